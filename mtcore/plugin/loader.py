"""Finds plugins through their metadata and loads their hook modules, so that none can harm another.

`blocked`       named by --block or MTCORE_BLOCK, or absent from MTCORE_PLUGINS; not imported
`misnamed`      the entry point is not called as the plugin must be; not imported
`conflict`      two distributions claim one plugin name, or name one hook module; neither is imported
`incompatible`  its requirement on mtcore excludes this core; not imported
`broken`        importing it or calling its hooks failed, or a spec is not as it must be; none of its components exists
`ok`            its components can be used
`found`         nothing is wrong so far, and it was asked not to import

The first that applies is a plugin's state. `remark` says "slow" when importing and calling took more than 100 ms.
"""

from __future__ import annotations

import contextlib
import email
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from email.message import Message
from functools import lru_cache
from importlib import metadata
from typing import Any

import pluggy

from ..errors import PluginError
from . import hookspecs
from .specs import KINDS, PLURALS, Spec

__all__ = ["Cause", "Plugin", "discover", "near", "normalised", "plainly_fits"]

GROUP = "mtcore"
SLOW = 0.1
"""seconds"""
MOST = 10_000
"""components of one plugin; a generator that never ends must not end the listing"""

_OWN_GROUP = re.compile(r"^\s*\[\s*mtcore\s*\]", re.MULTILINE)
_BOUND = re.compile(r"(>=|<)\s*(\d+(?:\.\d+)*)")
_COMPONENT = re.compile(r"[a-z][a-z0-9_]*")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_HOOKS = {f"mtcore_register_{plural}": kind for kind, plural in PLURALS.items()}


@dataclass(frozen=True)
class Cause:
    """Why a plugin is not ok: an exception's type, its message and the text of its traceback."""

    type: str
    message: str
    traceback: str = ""

    def __str__(self):
        return f"{self.type}: {self.message}" if self.type else self.message


@dataclass(frozen=True)
class Plugin:
    """One distribution's plugin. `seconds`: time to import the hook module and call its hooks; None: not done."""

    name: str
    distribution: str
    version: str
    state: str
    remark: str = ""
    cause: Cause | None = None
    specs: tuple[Spec, ...] = ()
    seconds: float | None = None
    entries: tuple[metadata.EntryPoint, ...] = field(default=(), repr=False, compare=False)
    requires: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def loaded(self) -> bool:
        return self.state == "ok"

    def because(self, state: str, message: str, type: str = "", traceback: str = "") -> Plugin:
        return replace(self, state=state, cause=Cause(type, message, traceback), specs=())

    def __str__(self):
        return f"plugin {self.name} (distribution {self.distribution} {self.version})"


def normalised(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def discover(block: Iterable[str] = (), load: bool = True) -> list[Plugin]:
    """All plugins with their states, `core` first, then by name. `block` adds to the environment's MTCORE_BLOCK."""
    blocked, only = {normalised(name) for name in block} | _words("MTCORE_BLOCK"), _words("MTCORE_PLUGINS")
    plugins = [_judged(plugin, blocked, only) for plugin in _installed()]
    claims: dict[str, list[Plugin]] = {}
    for plugin in plugins:
        if plugin.state == "found":
            for claim, _ in _claimed(plugin):
                claims.setdefault(claim, []).append(plugin)
    done = []
    for plugin in plugins:
        if plugin.state == "found":
            plugin = _conflicting(plugin, claims) or _incompatible(plugin) or (_loaded(plugin) if load else plugin)
        done.append(plugin)
    return sorted(done, key=lambda plugin: (plugin.name != "core", plugin.name, plugin.distribution))


def _words(variable: str) -> set[str]:
    return {normalised(name) for name in re.split(r"[,\s]+", os.environ.get(variable, "")) if name}


def _installed() -> Iterator[Plugin]:
    """Distributions with an entry point of ours. Most have none, and parsing all their metadata would be slow."""
    seen = set()
    for candidate in metadata.distributions():
        try:
            if not _OWN_GROUP.search(candidate.read_text("entry_points.txt") or ""):
                continue
            name = normalised(_headers(candidate)["Name"])
            if name in seen:
                continue
            seen.add(name)
            # Of several copies (stale, editable) the import system takes the first on sys.path, and that is what this gives.
            with contextlib.suppress(metadata.PackageNotFoundError):  # a folder that pip left behind
                yield from _plugin(name, metadata.distribution(name))
        except Exception as error:  # of a distribution that cannot even be read, its folder is all that is known
            yield Plugin("?", str(getattr(candidate, "_path", candidate)), "", "found").because(
                "broken", f"its metadata cannot be read: {error}", type(error).__name__, traceback.format_exc())


def _plugin(name: str, distribution: metadata.Distribution) -> Iterator[Plugin]:
    entries = tuple(distribution.entry_points.select(group=GROUP))
    if entries:
        known = _headers(distribution)
        requires = known.get_all("Requires-Dist") or distribution.requires or ()
        yield Plugin("core" if name == "mtcore" else name.removeprefix("mtcore-"), name, known["Version"] or "", "found",
                     entries=entries, requires=tuple(requires))


def _headers(distribution: metadata.Distribution) -> Message:
    """`Distribution.metadata` parses the description too, which is long."""
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    return email.message_from_string(text.partition("\n\n")[0])


def _judged(plugin: Plugin, blocked: set[str], only: set[str]) -> Plugin:
    """Blocked or misnamed, else as it was."""
    if plugin.state != "found":
        return plugin
    names = {plugin.name, plugin.distribution}
    if names & blocked:
        return plugin.because("blocked", "named by --block or MTCORE_BLOCK")
    core = plugin.distribution == "mtcore"
    if only and not core and not names & only:
        return plugin.because("blocked", f"MTCORE_PLUGINS allows only {', '.join(sorted(only))}")
    found = [entry.name for entry in plugin.entries]
    if plugin.name == "core" and not core:
        return plugin.because("misnamed", f"the name core belongs to the distribution mtcore; rename {plugin.distribution}")
    if found != [plugin.name]:
        return plugin.because("misnamed", f"distribution {plugin.distribution} must have one entry point in the group mtcore, "
                                          f"called {plugin.name}; found {', '.join(found)}")
    return plugin


def _claimed(plugin: Plugin) -> list[tuple[str, str]]:
    """What one distribution alone may have, and what to block where two have it."""
    module = plugin.entries[0].value
    return [(f"the name {plugin.name}", f"mtcore-{plugin.name}"), (f"the hook module {module}", plugin.distribution)]


def _conflicting(plugin: Plugin, claims: dict[str, list[Plugin]]) -> Plugin | None:
    twice = [(claim, block) for claim, block in _claimed(plugin) if len(claims[claim]) > 1]
    if not twice or plugin.name == "core":  # whoever names the core's hook module must not harm it
        return None
    claim, block = twice[0]
    which = " and ".join(f"{claimant.distribution} {claimant.version}" for claimant in claims[claim])
    return plugin.because("conflict", f"{which} both claim {claim}; uninstall one, or block it by its distribution's name: "
                                      f"MTCORE_BLOCK={block}")


def _incompatible(plugin: Plugin) -> Plugin | None:
    ours = [line for line in plugin.requires if re.match(r"mtcore(?![\w.-])", line.strip(), re.IGNORECASE)]
    if not ours or plugin.name == "core":
        return None
    try:
        core = _core_version()
        if all(plainly_fits(line, core) for line in ours):
            return None
        from packaging.requirements import Requirement  # its import is a seventh of all that listing takes
        requirements = [Requirement(line) for line in ours]
        wrong = [need for need in requirements if (need.marker is None or need.marker.evaluate({"extra": ""}))
                 and not need.specifier.contains(core, prereleases=True)]
    except Exception as error:
        return plugin.because("broken", f"its requirement {ours} cannot be read: {error}", type(error).__name__)
    if wrong:
        return plugin.because("incompatible", f"it needs mtcore {wrong[0].specifier}, this is mtcore {core}; try "
                                              f"pip install --upgrade {plugin.distribution}")
    return None


@lru_cache(maxsize=1)
def _core_version() -> str:
    return metadata.version("mtcore")


def plainly_fits(requirement: str, version: str) -> bool:
    """Whether a requirement of the usual form, "mtcore>=1.2,<2", holds. False: it does not, or it is of another form."""
    bounds = [_BOUND.fullmatch(bound.strip()) for bound in requirement.strip()[len("mtcore"):].split(",")]
    if not all(bounds) or not re.fullmatch(r"\d+(\.\d+)*", version):
        return False
    numbers = lambda text: [int(part) for part in re.sub(r"(\.0+)+$", "", text).split(".")]
    return all((numbers(version) >= numbers(bound[2])) == (bound[1] == ">=") for bound in bounds)


def _loaded(plugin: Plugin) -> Plugin:
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints must not end up in --json
            specs = tuple(_specs(plugin.name, plugin.entries[0].load))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        plugin = plugin.because("broken", _message(error), type(error).__name__, traceback.format_exc())
    else:
        plugin = replace(plugin, state="ok", specs=specs)
    seconds = time.perf_counter() - start
    return replace(plugin, seconds=seconds, remark=f"slow: {seconds * 1000:.0f} ms" if seconds > SLOW else "")


def _message(error: BaseException) -> str:
    try:
        return f"sys.exit({error.code!r}) while it was loaded" if isinstance(error, SystemExit) else str(error) or "no message"
    except Exception as another:  # a faulty __str__
        return f"a message that cannot be shown ({type(another).__name__})"


def _specs(name: str, load: Callable[[], Any]) -> Iterator[Spec]:
    """All specs of one plugin, checked. Each plugin has a manager of its own: what fails leaves nothing behind."""
    manager = pluggy.PluginManager("mtcore")
    manager.add_hookspecs(hookspecs)
    module = load()
    manager.register(module, name)
    _check_hooks(manager, module)
    seen = set()
    for caller in manager.get_hookcallers(module) or ():
        kind = _HOOKS[caller.name]
        for spec in _yielded(caller):
            _check_spec(spec, kind, caller.name)
            if (kind, spec.name) in seen:
                raise PluginError(f"{caller.name}: two {kind}s are called {spec.name!r}; names are unique per kind")
            seen.add((kind, spec.name))
            if len(seen) > MOST:
                raise PluginError(f"{caller.name}: expected at most {MOST} components of one plugin, and it yields more")
            yield spec


def _yielded(caller: pluggy.HookCaller) -> Iterator[Any]:
    (implementation,) = caller.get_hookimpls()
    result = implementation.function()
    if isinstance(result, (str, Spec)) or not isinstance(result, Iterable):
        raise PluginError(f"{caller.name}: expected it to yield specs, found that it returns {result!r}")
    yield from result


def _check_hooks(manager: pluggy.PluginManager, module: Any) -> None:
    """Names and signatures, for which pluggy has either no check or no helpful message."""
    bare = [name for name in _HOOKS if hasattr(module, name) and manager.parse_hookimpl_opts(module, name) is None]
    if bare:
        raise PluginError(f"{bare[0]} lacks the decorator @hookimpl")
    for caller in manager.get_hookcallers(module) or ():
        if caller.name not in _HOOKS:
            raise PluginError(f"unknown hook {caller.name}{near(caller.name, _HOOKS)}; hooks are {', '.join(_HOOKS)}")
        (implementation,) = caller.get_hookimpls()
        given = sorted(key for key, value in implementation.opts.items() if value)
        if given:
            raise PluginError(f"{caller.name}: expected @hookimpl without options, found {', '.join(given)}")
        if implementation.argnames or implementation.kwargnames:
            raise PluginError(f"{caller.name}: hooks take no arguments, found "
                              f"{', '.join((*implementation.argnames, *implementation.kwargnames))}")


def near(name: str, names: Iterable[str]) -> str:
    """"; did you mean …?" where one of the names is close, else nothing."""
    from difflib import get_close_matches  # only for errors
    close = get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _check_spec(spec: Any, kind: str, hook: str) -> None:
    wanted = KINDS[kind]
    if type(spec) is not wanted:  # a subclass might be of another kind
        raise PluginError(f"{hook}: expected {wanted.__name__}, found {spec!r}")
    if type(spec.name) is not str or not _COMPONENT.fullmatch(spec.name):  # an enumeration's member is shown as something else
        raise PluginError(f"{hook}: a component's name is lower-case letters, digits and _, a letter first; found {spec.name!r}")
    for key in ("target", "example"):
        value = getattr(spec, key)
        if not (key == "example" and value is None) and not (type(value) is str and _TARGET.fullmatch(value)):
            raise PluginError(f"{hook}: {spec.name}: expected {key} as \"package.module:name\", found {value!r}")
    if type(spec.summary) is not str or "\n" in spec.summary:
        raise PluginError(f"{hook}: {spec.name}: expected a summary in one line, found {spec.summary!r}")
    if type(spec.revision) is not int or spec.revision < 1:
        raise PluginError(f"{hook}: {spec.name}: expected a revision of 1 or more, found {spec.revision!r}")
