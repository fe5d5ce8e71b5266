"""What a check is, how checks are found for a plugin, and how they run. pytest is imported only where tests are made of them."""

from __future__ import annotations

import shutil
import tempfile
import time
import traceback
import unittest
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from ..errors import ExperimentError, PluginError, UnknownComponent
from ..plugin import Component, Example, Named, Spec
from ..plugin.building import build
from ..plugin.loader import Plugin, discover, near, normalised
from ..plugin.registry import check_class, resolve_target

__all__ = ["Check", "CheckFailed", "Lacking", "NotReached", "Outcome", "Rule", "Subject", "checks_of", "expect", "lacking",
           "parametrize_checks", "rule", "run_checks", "summarised"]


class CheckFailed(AssertionError):
    """The plugin does not keep a rule."""


class NotReached(Exception):
    """The check has nothing to look at, because another one failed."""


class Lacking(NotReached, unittest.SkipTest):
    """The component needs the library of an extra that is not installed here. pytest skips the test."""


def expect(condition: Any, message: str) -> None:
    """Raise `CheckFailed` unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


@dataclass
class Subject:
    """What is checked: a plugin or, with a spec, one of its components. Made once for all checks of it."""

    plugin: Plugin
    spec: Spec | None = None
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return f"{self.plugin.name}.{self.spec.name}"

    @cached_property
    def cls(self) -> type[Component]:
        cls = resolve_target(self.spec.target)
        check_class(cls, (self.spec.kind,))
        return cls

    @cached_property
    def root(self) -> Path:
        """A folder that the example was built in; nothing may change it."""
        folder = tempfile.mkdtemp(prefix="mtcore-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder).resolve() / self.spec.name

    @cached_property
    def example(self) -> Example:
        """Of extractors and preparers without one, an empty one; of readers, `root` holds its miniature afterwards."""
        if not self.spec.example and self.spec.kind == "reader":
            raise NotReached(f"{self.name} names no example")
        try:
            made = resolve_target(self.spec.example)(self.root) if self.spec.example else None
            if not isinstance(made, (Example, type(None))):
                raise TypeError(f"expected that it returns an Example or nothing, found {made!r}")
        except Exception as error:
            raise NotReached(f"the example of {self.name} failed, see plugin.examples") from error
        return made or Example()

    @cached_property
    def component(self) -> Any:
        """Built with its defaults and the example's parameters."""
        try:
            return build(self.cls, self.example.parameters, self.name)
        except Exception as error:
            raise NotReached(f"{self.name} cannot be built, see plugin.examples") from error

    @property
    def named(self) -> Named:
        return Named(self.name, self.component, self.spec.revision)


@dataclass(frozen=True)
class Rule:
    """A rule that all subjects of a kind must keep. `function(subject)` raises `CheckFailed`, or returns a remark or None."""

    kind: str
    name: str
    function: Callable[[Subject], str | None]
    applies: Callable[[Subject], bool]

    @property
    def text(self) -> str:
        return (self.function.__doc__ or "").strip()


RULES: dict[str, list[Rule]] = {"plugin": [], "reader": [], "extractor": [], "preparer": []}


def rule(*kinds: str, applies: Callable[[Subject], bool] = lambda subject: True) -> Callable:
    """Decorator: the function is a rule for these kinds; its docstring says what is expected."""

    def register(function: Callable[[Subject], str | None]) -> Callable[[Subject], str | None]:
        for kind in kinds:
            RULES[kind].append(Rule(kind, function.__name__, function, applies))
        return function

    return register


@dataclass(frozen=True)
class Check:
    """One rule on one subject. `id` is "plugin.<rule>" or "<kind>.<component>.<rule>"."""

    rule: Rule
    subject: Subject

    @property
    def id(self) -> str:
        component = f"{self.subject.spec.name}." if self.subject.spec else ""
        return f"{self.rule.kind}.{component}{self.rule.name}"

    def __call__(self) -> str | None:
        """Raises `CheckFailed`, also for whatever the plugin raises; returns a remark or None."""
        try:
            return self.rule.function(self.subject)
        except Exception as error:
            if command := lacking(self.subject.plugin, error):
                raise Lacking(f"it needs a library that is not installed; to check it, {command}") from error
            if isinstance(error, (CheckFailed, NotReached)):
                raise
            raise CheckFailed(f"{type(error).__name__}: {error}{_place(self.subject.plugin, error)}") from error


def _place(plugin: Plugin, error: BaseException) -> str:
    """The last line of the plugin's own that the error came through."""
    package = plugin.entries[0].module.partition(".")[0] if plugin.entries else ""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if package in (*Path(frame.filename).parts, Path(frame.filename).stem)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def lacking(plugin: Plugin, error: BaseException) -> str:
    """The command that installs the plugin's extra for want of which `error` was raised; "" where that is not the reason."""
    from packaging.requirements import Requirement

    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    absent = {normalised((one.name or "").partition(".")[0]) for one in chain if isinstance(one, ModuleNotFoundError)}
    extras = metadata.metadata(plugin.distribution).get_all("Provides-Extra") or [] if chain else []
    named = {extra for extra in extras if any(f"{plugin.distribution}[{extra}]" in str(one) for one in chain)}
    for extra in sorted(extras, key=lambda extra: extra not in named):
        wanted = [need for need in map(Requirement, plugin.requires) if need.marker and need.marker.evaluate({"extra": extra})
                  and not need.marker.evaluate({"extra": ""}) and not _installed(need.name)]
        if wanted and (extra in named or absent & {normalised(need.name) for need in wanted}):
            return f'pip install "{plugin.distribution}[{extra}]"'
    return ""


def _installed(distribution: str) -> bool:
    try:
        return bool(metadata.distribution(distribution))
    except metadata.PackageNotFoundError:
        return False


@dataclass(frozen=True)
class Outcome:
    """`status`: "passed", "failed", or "not reached". A check that passed may have a remark as its message."""

    id: str
    status: str
    expected: str
    message: str = ""
    seconds: float = 0.0


def checks_of(name: str) -> list[Check]:
    """All checks of an installed plugin (its name or its distribution's), those of the plugin itself first.

    Components are imported, for some rules depend on what they are. Raises `UnknownComponent`.
    """
    every = discover()
    found = [plugin for plugin in every if normalised(name) in (plugin.name, plugin.distribution)]
    if not found:
        known = [plugin.name for plugin in every]
        raise UnknownComponent(f"no plugin {name!r} is installed{near(name, known)}; installed are {', '.join(known)}")
    checks = []
    for plugin in found:
        subjects = [Subject(plugin), *(Subject(plugin, spec) for spec in plugin.specs if spec.kind in RULES)]
        for subject in subjects:
            checks += [
                Check(rule, subject) for rule in RULES[subject.spec.kind if subject.spec else "plugin"] if _applies(rule, subject)
            ]
    return checks


def _applies(rule: Rule, subject: Subject) -> bool:
    try:
        return rule.applies(subject)
    except Exception:  # it cannot be imported or built: the plugin's own checks say so, and this one will not be reached
        return True


def run_checks(name: str, progress: Callable[[Outcome], None] = lambda outcome: None) -> list[Outcome]:
    """The outcomes of all checks of a plugin; `progress` gets each as soon as it is there."""
    outcomes = []
    for check in checks_of(name):
        start, status = time.perf_counter(), "passed"
        try:
            message = check() or ""
        except CheckFailed as error:
            status, message = "failed", str(error)
        except NotReached as error:
            status, message = "not reached", str(error)
        outcomes.append(Outcome(check.id, status, check.rule.text, message, time.perf_counter() - start))
        progress(outcomes[-1])
    return outcomes


def summarised(name: str, outcomes: Sequence[Outcome], expected: Sequence[str] = ()) -> str:
    """The outcomes in a line. Raises `PluginError` unless exactly the `expected` checks fail (those not reached apart), and
    `ExperimentError` for an expected one that does not exist."""
    status = {outcome.id: outcome.status for outcome in outcomes}
    if unknown := [known for known in expected if known not in status]:
        raise ExperimentError(f"--expect: {name} has no check {unknown[0]!r}{near(unknown[0], status)}")
    if failed := [known for known, found in status.items() if found == "failed" and known not in expected]:
        raise PluginError(f"{name} fails {len(failed)} of {len(status)} checks: {', '.join(failed)}")
    if better := [known for known in expected if status[known] == "passed"]:
        raise PluginError(f"{name} passes what --expect says it fails: {', '.join(better)}; leave that out")
    count = list(status.values()).count
    told = f"all {len(status)}" if count("passed") == len(status) else f"{count('passed')} of {len(status)}"
    words = (("failed", "failed as expected"), ("not reached", "not reached"))
    return f"{name}: {told} checks passed" + "".join(f", {count(one)} {said}" for one, said in words if count(one))


def parametrize_checks(name: str, expected_failures: Mapping[str, str] | None = None) -> Callable:
    """Decorator for pytest: the test function gets one check after the other as `check` and calls it.

        @parametrize_checks("birds", expected_failures={"reader.calls.times_within_file": "two annotations end too late"})
        def test_conformance(check):
            check()

    expected_failures   reason by check id. Strict: a check that passes all the same, or an id that no check has, is an error
    """
    import pytest

    expected = dict(expected_failures or {})
    checks = checks_of(name)
    unknown = [key for key in expected if key not in {check.id for check in checks}]
    if unknown:
        raise ExperimentError(
            f"expected_failures: {name} has no check {unknown[0]!r}{near(unknown[0], [check.id for check in checks])}"
        )
    marks = lambda check: (
        [pytest.mark.xfail(strict=True, raises=CheckFailed, reason=expected[check.id])] if check.id in expected else []
    )
    return pytest.mark.parametrize("check", [pytest.param(check, id=check.id, marks=marks(check)) for check in checks])
