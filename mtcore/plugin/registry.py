"""Names to components: finds specs, imports what they name, checks parameters, and builds.

    registry = get_registry()
    registry.make("trunk", {"use": "mlp", "hidden": [512, 512]}, path="model.trunk")      # Named
    registry.make_step({"use": "resample", "rate": 16000, "p": 0.5}, path="signal.steps[1]")   # Step
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..clip import PARTS
from ..errors import ExperimentError, ParameterError, PluginError, TrainingError, UnknownComponent, at
from . import interfaces
from .interfaces import Component, Loss, Named, Step
from .loader import Plugin, discover, near
from .params import STEP_KEYS
from .specs import KINDS, Spec

__all__ = ["ModuleLoss", "Registry", "check_class", "get_registry", "resolve_target"]

_BASES: dict[str, type[Component]] = {kind: getattr(interfaces, kind.capitalize()) for kind in KINDS}


class Registry:
    """All components of all plugins that are well. Lazy: plugins are looked for at the first question.

    `block` names plugins or distributions that are not to be imported, besides MTCORE_BLOCK.
    """

    def __init__(self, block: Iterable[str] = ()):
        self.block = tuple(block)

    @cached_property
    def plugins(self) -> list[Plugin]:
        """All plugins, whatever their state."""
        return discover(self.block)

    @cached_property
    def _specs(self) -> list[tuple[str, Spec]]:
        bad = [plugin for plugin in self.plugins if plugin.state not in ("ok", "blocked")]
        if bad and os.environ.get("MTCORE_STRICT_PLUGINS", "0") not in ("", "0"):
            raise PluginError("MTCORE_STRICT_PLUGINS is set, and not all plugins are well:\n" + "\n".join(map(_not_well, bad)))
        return [(f"{plugin.name}.{spec.name}", spec) for plugin in self.plugins if plugin.loaded for spec in plugin.specs]

    def specs(self, kind: str | None = None) -> list[tuple[str, Spec]]:
        """(full name, spec) of all components, or of those of one kind."""
        if kind is not None and kind not in KINDS:
            raise ExperimentError(f"unknown kind of component {kind!r}{near(kind, KINDS)}; kinds are {', '.join(KINDS)}")
        return [(full, spec) for full, spec in self._specs if kind in (None, spec.kind)]

    def find(self, kind: str | None, name: str) -> tuple[str, Spec]:
        """Full name and spec. A short name works while it is unique in its kind (None: among all kinds).

        Raises `UnknownComponent`; `ExperimentError` for an ambiguous name; `PluginError` if its plugin is installed but not well.
        """
        return self._find(tuple(KINDS) if kind is None else (kind,), name)

    def load(self, kind: str, name: str, search: Path | None = None) -> type[Component]:
        """Import the component's class. `name` is a name, or "package.module:Class" (looked for in the folder `search`, too)."""
        return self._load((kind,), name, search)[2]

    def make(self, kind: str, value: Any, path: str = "", search: Path | None = None) -> Named:
        """The component that an experiment's value stands for, its parameters checked.

        value   "name", {"use": "name", **parameters}, or a component built already (its full name is "module:Class" then)
        path    the value's key path in the experiment file, for errors: "model.trunk"
        search  folder on sys.path while a "package.module:Class" is imported: the experiment file's
        """
        if isinstance(value, Named):
            return value
        name, parameters = _taken_apart(value, kind, path)
        return Named(*self._built((kind,), name, parameters, path, search))

    def make_step(self, value: Any, path: str = "", kinds: Sequence[str] = ("preparer",), search: Path | None = None) -> Step:
        """Like `make`, for a step of a chain: takes the keys id, p, parts and fit out first. An extractor knows only id."""
        if isinstance(value, Step):
            return value
        name, parameters = _taken_apart(value, " or ".join(kinds), path)
        keys = {key: parameters.pop(key) for key in STEP_KEYS if key in parameters}
        full, component, revision = self._built(tuple(kinds), name, parameters, path, search)
        for key, found in keys.items():
            _check_step_key(key, found, component, f"{path}.{key}" if path else key)
        if "parts" in keys:
            keys["parts"] = tuple(keys["parts"])
        return Step(full, component, revision, **{"id": full.rpartition(":")[2].rpartition(".")[2], **keys})

    def _built(self, kinds, name, parameters, path, search) -> tuple[str, Component, int]:
        if isinstance(name, Component):
            if not isinstance(name, tuple(_BASES[kind] for kind in kinds)):
                raise ExperimentError(f"{path or 'component'}: expected a {' or '.join(kinds)}, found {name!r}, a {name.kind}")
            return f"{type(name).__module__}:{type(name).__qualname__}", name, 1
        with at(path):
            full, revision, cls = self._load(kinds, name, search)
            if not issubclass(cls, Component):
                return full, ModuleLoss(cls, full, parameters), revision
        from .building import build, parameters_of  # msgspec; listing does without
        for inner in parameters_of(cls):
            if inner.component and parameters.get(inner.name) is not None:
                place = f"{path}.{inner.name}" if path else inner.name
                parameters[inner.name] = self.make(inner.component, parameters[inner.name], place, search)
        return full, build(cls, parameters, full, path), revision

    def _load(self, kinds: tuple[str, ...], name: str, search: Path | None) -> tuple[str, int, type]:
        """Full name, revision and class."""
        if ":" in name:
            try:
                cls = resolve_target(name, search)
                if not ("loss" in kinds and _is_module(cls)):
                    check_class(cls, kinds)
            except PluginError as error:  # the file names it, so the file is wrong
                raise ExperimentError(f"{name}: {error}") from error.__cause__
            return name, 1, cls
        full, spec = self._find(kinds, name)
        plugin = next(plugin for plugin in self.plugins if plugin.loaded and plugin.name == full.partition(".")[0])
        try:
            cls = resolve_target(spec.target)
            check_class(cls, (spec.kind,))
        except PluginError as error:
            raise PluginError(f"{spec.kind} {full}: {error}\n{plugin}; see mtcore info {full} --traceback") from error.__cause__
        return full, spec.revision, cls

    def _find(self, kinds: tuple[str, ...], name: str) -> tuple[str, Spec]:
        candidates = [pair for kind in kinds for pair in self.specs(kind)]
        found = [(full, spec) for full, spec in candidates if name in (full, spec.name)]
        if len(found) == 1:
            return found[0]
        what = "component" if len(kinds) == len(KINDS) else " or ".join(kinds)
        if found:
            several = len({spec.kind for _, spec in found}) > 1
            names = [f"{spec.kind}:{full}" if several else full for full, spec in found]
            raise ExperimentError(f"{name!r} is the name of more than one {what}; write one of {', '.join(names)}")
        plugin, dot, short = name.partition(".")
        mine = [known for known in self.plugins if known.name == plugin]
        ill = [f"{known.name} ({known.state})" for known in self.plugins if not known.loaded]
        if dot and mine and not any(known.loaded for known in mine):
            raise PluginError(f"{what} {name} cannot be used:\n" + "\n".join(map(_not_well, mine)))
        message = f"unknown {what} {name!r}"
        if dot and not mine:
            message += f": no plugin {plugin!r} is installed{near(plugin, [known.name for known in self.plugins])}" \
                       f"\ntry pip install mtcore-{plugin}"
        else:
            message += near(name, [full for full, _ in candidates] + [spec.name for _, spec in candidates])
        elsewhere = sorted({f"{full} is a {spec.kind}" for full, spec in self.specs() if (short if dot else name) == spec.name})
        if elsewhere:
            message += "\n" + ", ".join(elsewhere)
        if not dot and ill:
            message += f"\nnot loaded: {', '.join(ill)}; see mtcore list-plugins"
        raise UnknownComponent(f"{message}\nsee mtcore list{' ' + kinds[0] if len(kinds) == 1 else ''}")


@lru_cache(maxsize=1)
def get_registry() -> Registry:
    """The process's registry. `get_registry.cache_clear()` makes it look again."""
    return Registry()


def resolve_target(target: str, search: Path | None = None) -> Any:
    """What "package.module:attribute" names. `search`: a folder that comes first on sys.path during the import.

    Raises `PluginError` with the cause, whatever the import raised (`KeyboardInterrupt` excepted).
    """
    module, _, attribute = target.partition(":")
    try:
        with _searched(search):
            found = importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit in a module too
        raise PluginError(f"importing {module} failed: {type(error).__name__}: {error}") from error
    _check_shadow(found, search)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise PluginError(f"{module} has no {attribute!r}{near(attribute, dir(found))}")
        found = getattr(found, part)
    return found


@contextlib.contextmanager
def _searched(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        yield
    finally:
        sys.path.remove(str(folder))


def _check_shadow(module: Any, search: Path | None) -> None:
    """A module of the same name that was imported from elsewhere before is not the one meant."""
    if search is None:
        return
    top = module.__name__.partition(".")[0]
    here = [path for path in (Path(search) / f"{top}.py", Path(search) / top / "__init__.py") if path.exists()]
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if here and loaded and not any(path.samefile(loaded) for path in here):
        raise PluginError(f"expected {here[0]}, found a module {top} imported from {loaded}; rename {here[0].name}")


def _not_well(plugin: Plugin) -> str:
    return f"{plugin} is {plugin.state}: {plugin.cause}; see mtcore list-plugins --causes {plugin.name}"


def check_class(cls: Any, kinds: Sequence[str]) -> None:
    """`PluginError` unless this can be a component of one of these kinds."""
    from .building import parameters_of  # msgspec; listing does without

    if not inspect.isclass(cls) or not issubclass(cls, tuple(_BASES[kind] for kind in kinds)):
        bases = " or ".join(_BASES[kind].__name__ for kind in kinds)
        raise PluginError(f"expected a subclass of mtcore.plugin.{bases}, found {cls!r}")
    if inspect.isabstract(cls):
        raise PluginError(f"{cls.__qualname__} does not define {', '.join(sorted(cls.__abstractmethods__))}")
    parameters_of(cls)


def _is_module(cls: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a subclass of nn.Module has imported torch
    return torch is not None and inspect.isclass(cls) and issubclass(cls, torch.nn.Module)


def _taken_apart(value: Any, what: str, path: str) -> tuple[Any, dict[str, Any]]:
    """Name (or component) and a copy of the parameters."""
    if isinstance(value, (str, Component)) and value != "":
        return value, {}
    if isinstance(value, Mapping) and isinstance(value.get("use"), str):
        return value["use"], {key: item for key, item in value.items() if key != "use"}
    raise ExperimentError(f"{path or what}: expected a {what}, \"name\" or {{use = \"name\", …}}; found {value!r}")


def _check_step_key(key: str, found: Any, component: Component, path: str) -> None:
    if component.kind == "extractor" and key != "id":
        raise ExperimentError(f"{path}: an extractor is applied to every clip and learns nothing; remove {key}")
    number = isinstance(found, (int, float)) and not isinstance(found, bool)
    listed = isinstance(found, (list, tuple)) and found and set(map(str, found)) <= set(PARTS) and len(set(found)) == len(found)
    valid, expected = {
        "id": (isinstance(found, str) and found != "" and "." not in found, "a name without dots"),
        "p": (number and 0 < found <= 1, "a probability above 0, at most 1"),
        "parts": (listed, f"a list of {', '.join(PARTS)}"),
        "fit": (found in ("shared", "dataset"), '"shared" or "dataset"'),
    }[key]
    if not valid:
        raise ExperimentError(f"{path}: expected {expected}, found {found!r}")


class ModuleLoss(Loss):
    """An nn.Module class with `reduction="none"` as a loss: of each row the mean over all further dimensions, of events over
    labels and the frames that are no padding, with the target at the output's frames.

    Lists among the arguments become tensors (class weights).
    """

    def __init__(self, module: type, name: str, arguments: Mapping[str, Any]):
        known = list(inspect.signature(module).parameters)
        if "reduction" not in known:
            raise ExperimentError(f"{name}: expected a module that takes reduction=\"none\"; it takes {', '.join(known)}")
        known.remove("reduction")
        for key in arguments:
            if key not in known:
                raise ExperimentError(f"{name}: unknown argument {key!r}{near(key, known)}; it takes {', '.join(known)}")
        self.module, self.name, self.arguments = module, name, dict(arguments)
        try:
            self.build(None, None)
        except Exception as error:
            raise ParameterError(f"{name} refuses its arguments: {type(error).__name__}: {error}") from error

    def parameters(self) -> dict[str, Any]:
        return dict(self.arguments)

    def build(self, task: Any, statistics: Any) -> Callable[..., Any]:
        import torch  # imported by whoever has such a class; listing has not

        from .helpers import framed

        arguments = {key: torch.tensor(value) if isinstance(value, list) else value for key, value in self.arguments.items()}
        where = f"task {task.name}: the loss {self.name}" if task else self.name

        class Rows(torch.nn.Module):  # a module, so that class weights follow the model to its device
            def __init__(self, inner):
                super().__init__()
                self.inner = inner

            def forward(self, output, target, batch):
                valid = None
                if task is not None and task.kind == "events":
                    target, valid = framed(output, target, batch, task.name)
                shapes = [tuple(one.shape) for one in (output, target) if one is not None]
                try:
                    values = self.inner(output, target)
                    grown = values.numel() > max(map(math.prod, shapes))  # [n, 1] and [n] have become [n, n]
                    if grown or values.shape[:1] != output.shape[:1]:
                        raise ValueError(f"expected a value per row, found {tuple(values.shape)}")
                except Exception as error:  # whatever a module raises
                    raise TrainingError(f"{where} cannot compare an output and a target of the shapes {shapes}: {error}; "
                                        "take a loss or a head that fits") from error
                if valid is not None and values.shape == output.shape:
                    return (values.mean(1) * valid).sum(1) / valid.sum(1)
                return values.flatten(1).mean(1) if values.ndim > 1 else values

        return Rows(self.module(**arguments, reduction="none"))
