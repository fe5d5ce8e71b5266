"""Rules for a plugin as a whole: its metadata, its hook module, and what its specs name."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module, metadata
from typing import Any

import pluggy

from ..errors import PluginError
from ..plugin import hookspecs, loader
from ..plugin.building import Parameter, parameters_of, type_name
from ..plugin.registry import check_class, resolve_target
from .kit import CheckFailed, NotReached, Subject, expect, lacking, rule
from .sounds import arrays_of, situations

__all__ = ["HEAVY", "run_apart"]

HEAVY = ("IPython", "audiomentations", "h5py", "jax", "joblib", "keras", "lightning", "librosa", "llvmlite",
         "matplotlib", "msgspec", "numba", "numpy", "onnx", "onnxruntime", "pandas", "polars", "pyarrow", "pytest",
         "resampy", "scipy", "seaborn", "sklearn", "soundfile", "soxr", "speechbrain", "tensorboard", "tensorflow",
         "torch", "torchaudio", "torchvision", "transformers")
"""Modules that no hook module may import."""


def run_apart(code: str, *arguments: str, **environment: str) -> subprocess.Popen:
    """A fresh Python that finds what this one finds."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), **environment}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=variables, text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _module_name(subject: Subject) -> str:
    return subject.plugin.entries[0].module


def _module(subject: Subject) -> Any:
    if subject.plugin.state in ("blocked", "misnamed", "conflict"):
        raise NotReached(f"the plugin is {subject.plugin.state}")
    try:
        return import_module(_module_name(subject))
    except BaseException as error:
        raise NotReached(f"the hook module cannot be imported: {error}") from error


def _loaded(subject: Subject) -> None:
    if not subject.plugin.loaded:
        raise NotReached(f"the plugin is {subject.plugin.state}")


def _implementations(module: Any) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, function, options) of everything that carries the decorator."""
    manager = pluggy.PluginManager("mtcore")
    for name in dir(module):
        options = manager.parse_hookimpl_opts(module, name)
        if options is not None:
            yield name, getattr(module, name), options


@rule("plugin")
def name(subject: Subject) -> None:
    """One entry point in the group mtcore, called as the distribution without "mtcore-"; nobody else claims the name."""
    plugin = subject.plugin
    expect(plugin.state not in ("blocked", "misnamed", "conflict"), f"{plugin.state}: {plugin.cause}")


@rule("plugin")
def version_bounds(subject: Subject) -> None:
    """It requires mtcore with a lower and an upper bound, and this mtcore is within them."""
    plugin = subject.plugin
    if plugin.name == "core":
        return
    from packaging.requirements import Requirement

    wanted = [need for need in map(Requirement, plugin.requires) if loader.normalised(need.name) == "mtcore"
              and (need.marker is None or need.marker.evaluate({"extra": ""}))]
    example = 'dependencies = ["mtcore>=0.1,<0.2"]'
    expect(wanted, f"{plugin.distribution} does not require mtcore; write {example}")
    operators = {bound.operator for need in wanted for bound in need.specifier}
    expect(operators & {">=", ">", "==", "~=", "==="}, f"found {wanted[0]} without a lower bound; write {example}")
    expect(operators & {"<", "<=", "==", "~=", "==="}, f"found {wanted[0]} without an upper bound; write {example}")
    expect(plugin.state != "incompatible", str(plugin.cause))


@rule("plugin")
def described(subject: Subject) -> str | None:
    """The distribution's metadata hold a valid version, a summary, a licence and the Python it needs."""
    from packaging.version import InvalidVersion, Version

    known = metadata.metadata(subject.plugin.distribution)
    licences = [known.get(key) for key in ("License-Expression", "License", "License-File")]
    licences += [line for line in known.get_all("Classifier") or () if line.startswith("License ::")]
    missing = [key for key, found in (("description", known.get("Summary")), ("license", any(licences)),
                                      ("requires-python", known.get("Requires-Python"))) if not found]
    expect(not missing, f"pyproject.toml lacks {', '.join(missing)}")
    try:
        Version(subject.plugin.version)
    except InvalidVersion:
        raise CheckFailed(f"expected a version such as 0.1.0 (PEP 440), found {subject.plugin.version!r}") from None
    return None if known.get_payload() or known.get("Description") else "no readme: indexes will show an empty page"


@rule("plugin")
def light(subject: Subject) -> str | None:
    """The hook module can be imported, and it imports none of the heavy modules (torch, numpy, librosa, …)."""
    if subject.plugin.state in ("blocked", "misnamed", "conflict"):
        raise NotReached(f"the plugin is {subject.plugin.state}")
    process = run_apart("import sys, time, mtcore.plugin; start = time.perf_counter(); __import__(sys.argv[1]); "
                        "spent = time.perf_counter() - start; import json; "
                        "print('\\n' + json.dumps([spent, [name for name in sys.argv[2:] if name in sys.modules]]))",
                        _module_name(subject), *HEAVY)
    out, err = process.communicate()
    expect(
        process.returncode == 0,
        f"importing {_module_name(subject)} failed: {err.strip().splitlines()[-1] if err.strip() else 'exit'}",
    )
    spent, heavy = json.loads(out.strip().splitlines()[-1])
    expect(
        not heavy,
        f"{_module_name(subject)} imports {', '.join(heavy)}; name targets as strings and import in the component's "
        f"module (python -X importtime -c 'import {_module_name(subject)}' shows by which way)",
    )
    return f"slow: importing it took {spent * 1000:.0f} ms" if spent > loader.SLOW else None


TRACES = """\
import contextlib, decimal, io, json, locale, logging, os, random, signal, socket, sys, threading, warnings
import mtcore.plugin
told = io.StringIO()
def look():
    return {"the working folder": os.getcwd(), "os.environ": dict(os.environ), "sys.path": sys.path[:],
            "warnings.filters": list(map(repr, warnings.filters)), "the locale": locale.setlocale(locale.LC_ALL),
            "logging": [logging.root.level, len(logging.root.handlers), logging.root.manager.disable,
                        repr(logging.getLoggerClass())],
            "the random numbers of random": repr(random.getstate()), "threads": threading.active_count(),
            "handlers of signals": [repr(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
            "hooks of sys": [repr(sys.excepthook), repr(sys.gettrace()), sys.getrecursionlimit(), repr(sys.displayhook)],
            "the time limit of sockets": socket.getdefaulttimeout(), "decimal's context": repr(decimal.getcontext()),
            "what is printed": told.getvalue()}
before = look()
with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
    module = __import__(sys.argv[1], fromlist=["hooks"])
    for name in dir(module):
        if name.startswith("mtcore_register_"):
            list(getattr(module, name)())
after = look()
heavy = [name for name in sys.argv[2:] if name in sys.modules]
print("\\n" + json.dumps([[name for name in before if before[name] != after[name]], heavy]))
"""
"""What importing a hook module and calling its hooks changes in a process."""


@rule("plugin")
def leaves_no_trace(subject: Subject) -> None:
    """Importing the hook module and calling its hooks prints nothing and changes nothing that others see: working folder,
    environment, sys.path, filters of warnings, locale, logging, random numbers, signals."""
    _loaded(subject)
    process = run_apart(TRACES, _module_name(subject), *HEAVY)
    out, _ = process.communicate()
    changed, heavy = json.loads(out.strip().splitlines()[-1]) if process.returncode == 0 else ([], True)
    if heavy:  # numpy changes filters of warnings, for one
        raise NotReached("the hook module cannot be imported by itself or imports heavy modules, see plugin.light")
    expect(
        not changed,
        f"{_module_name(subject)} changes {', '.join(changed)}; leave that to the user, or to where a component needs it",
    )


@rule("plugin")
def plain_hooks(subject: Subject) -> None:
    """Hook implementations have no arguments, so no defaults either, and no options: no wrappers, no tryfirst."""
    for name, function, options in _implementations(_module(subject)):
        given = sorted(key for key, value in options.items() if value)
        expect(not given, f"{name}: expected @hookimpl without options, found {', '.join(given)}")
        arguments = list(inspect.signature(function).parameters)
        expect(not arguments, f"{name}: hooks take no arguments, found {', '.join(arguments)}")


@rule("plugin")
def known_hooks(subject: Subject) -> None:
    """At least one hook, each with the name of one that exists and with the decorator."""
    module = _module(subject)
    names = {name for name in vars(hookspecs) if name.startswith("mtcore_register_")}
    found = {name for name, _, _ in _implementations(module)}
    unknown = sorted(found - names)
    expect(not unknown, f"unknown hook {unknown[0] if unknown else ''}{loader.near(unknown[0], names) if unknown else ''}")
    bare = sorted(name for name in names - found if callable(getattr(module, name, None)))
    expect(not bare, f"{', '.join(bare)}: lacks the decorator @hookimpl")
    expect(found, f"{module.__name__} implements no hook; hooks are {', '.join(sorted(names))}")


@rule("plugin")
def specs(subject: Subject) -> str | None:
    """All hooks yield well-formed specs, of their kind, with names that are unique in it."""
    plugin = subject.plugin
    if plugin.state in ("blocked", "misnamed", "conflict", "incompatible"):
        raise NotReached(f"the plugin is {plugin.state}")
    if plugin.state == "broken":
        for earlier in (plain_hooks, known_hooks):
            try:
                earlier(subject)
            except CheckFailed as error:
                raise NotReached(f"the hooks are wrong: {error}") from error
        raise CheckFailed(str(plugin.cause))
    bare = [f"{spec.kind} {spec.name}" for spec in plugin.specs if not spec.summary]
    return f"no summary: {', '.join(bare)}" if bare else None


@rule("plugin")
def targets(subject: Subject) -> None:
    """What each spec names can be imported, is a class of its kind, and defines all that its kind demands."""
    _loaded(subject)
    for spec in subject.plugin.specs:
        try:
            cls = resolve_target(spec.target)
            if not _parameters_are_wrong(cls):
                check_class(cls, (spec.kind,))
        except PluginError as error:
            raise CheckFailed(f"{spec.kind} {spec.name}: {error}") from error


def _parameters_are_wrong(cls: Any) -> bool:
    """That is another rule's matter."""
    try:
        parameters_of(cls)
    except PluginError:
        return True
    except Exception:
        return False
    return False


@rule("plugin")
def parameters(subject: Subject) -> str | None:
    """Components are frozen dataclasses; each parameter has a type that a file can give, either a default that is valid or
    none, and is explained."""
    _loaded(subject)
    unexplained = []
    for spec in subject.plugin.specs:
        try:
            cls = resolve_target(spec.target)
        except PluginError as error:
            raise NotReached(f"{spec.kind} {spec.name}: {error}") from error
        try:
            found = parameters_of(cls)
        except PluginError as error:
            raise CheckFailed(f"{spec.kind} {spec.name}: {error}") from error
        for parameter in found:
            _check_default(f"{spec.kind} {spec.name}", parameter)
            if not parameter.help:
                unexplained.append(f"{spec.name}.{parameter.name}")
    return f"without help: {', '.join(unexplained)}" if unexplained else None


def _check_default(where: str, parameter: Parameter) -> None:
    import msgspec

    try:
        msgspec.json.schema(parameter.type)  # raises a TypeError for what no JSON or TOML can hold, a Path for instance
        msgspec.convert({} if parameter.required else {"value": msgspec.to_builtins(parameter.default)},
                        type=msgspec.defstruct("Value", [("value", parameter.type, None)]))
    except msgspec.ValidationError as error:
        raise CheckFailed(
            f"{where}: the default of {parameter.name}, {parameter.default!r}, is not of its type: {error}"
        ) from None
    except TypeError as error:
        raise CheckFailed(
            f"{where}: parameter {parameter.name} has a type that no experiment file can give, {type_name(parameter.type)}; "
            f"take str for paths, and numbers, text, lists and tables of them: {error}"
        ) from None


@rule("plugin")
def examples(subject: Subject) -> str | None:
    """Every reader names an example, and so does every extractor or preparer with a parameter that has no default; each can be
    built and takes the arrays that the kit or its example has."""
    _loaded(subject)
    untried = {}
    for spec in subject.plugin.specs:
        if spec.kind not in ("reader", "extractor", "preparer"):
            continue
        where, component = f"{spec.kind} {spec.name}", Subject(subject.plugin, spec)
        try:
            needed = [parameter.name for parameter in parameters_of(component.cls) if parameter.required]
        except PluginError as error:
            raise NotReached(f"{where}: {error}") from error
        expect(
            spec.example or spec.kind != "reader",
            f'{where}: write {spec.kind.capitalize()}Spec(…, example="package.module:make")',
        )
        expect(
            spec.example or not needed,
            f"{where}: {', '.join(needed)} has no default; let an example return Example(parameters=…)",
        )
        try:
            _try(component)
        except Exception as error:
            if command := lacking(subject.plugin, error):
                untried[spec.name] = command
            elif isinstance(error, CheckFailed):
                raise CheckFailed(f"{where}: {error}") from error
    return (
        "; ".join(f"{name} is not checked, its library is not installed: {command}" for name, command in untried.items()) or None
    )


def _try(component: Subject) -> None:
    """Build it and give it arrays. What else may go wrong is the matter of its own rules."""
    try:
        component.component
    except NotReached as error:
        why = error.__cause__ if not isinstance(error.__cause__, NotReached) else error.__cause__.__cause__
        hint = "; the root does not exist before: root.mkdir(parents=True)" if isinstance(why, FileNotFoundError) else ""
        what = f"its example {component.spec.example} failed" if component.spec.example else "it cannot be built"
        raise CheckFailed(f"{what}: {type(why).__name__}: {why}{hint}") from error
    try:
        if component.spec.kind == "extractor":
            arrays_of(component)
        elif component.spec.kind == "preparer" and component.component.acts_on != "batch":
            situations(component)
    except NotReached as error:
        raise CheckFailed(str(error)) from error
