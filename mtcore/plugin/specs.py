"""Specs: what a hook yields. Only strings, so that listing never imports a component."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = ["KINDS", "BalancerSpec", "Example", "ExtractorSpec", "HeadSpec", "LossSpec", "MetricSpec", "PreparerSpec", "ReaderSpec",
           "ReporterSpec", "SamplerSpec", "Spec", "TrainerSpec", "TrunkSpec"]


KINDS: dict[str, type[Spec]] = {}
"""The kinds of components, in the order in which work goes through them."""


@dataclass(frozen=True)
class Spec:
    """One named component.

    name      short name, `[a-z][a-z0-9_]*`; the full name is `<plugin>.<name>`
    target    "package.module:Class", imported only when a run or `mtcore info` needs it
    summary   one line for listings
    example   "package.module:function", a function `make(root)` that builds what the conformance kit and `mtcore demo`
              need: for a reader a miniature of the real layout below `root`. It may return an `Example`
    revision  raised whenever the component's output changes for the same input and parameters; part of stores' keys
    """

    kind: ClassVar[str] = ""

    name: str
    target: str
    summary: str = ""
    example: str | None = None
    revision: int = 1

    def __init_subclass__(cls, kind: str = ""):
        if kind:
            cls.kind, KINDS[kind] = kind, cls


@dataclass(frozen=True)
class Example:
    """What a spec's example may return: how the conformance kit is to try the component.

    parameters  what it is built with; those without a default must be here
    others      by parameter: another valid value, where the kit finds none by itself
    arrays      of an extractor or preparer: two or more arrays as it meets them; default: the kit's own sound or features
    rate        in Hz, of `arrays` that are signals
    axis        of `arrays` that are features with a time axis
    materials   of a preparer, by name: what has draw(rng) -> float32 [channels, n], at the rate of the arrays it meets
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)
    arrays: tuple[Any, ...] = ()
    rate: float | None = None
    axis: Any = None
    materials: Mapping[str, Any] = field(default_factory=dict)


class ReaderSpec(Spec, kind="reader"):
    """Names a subclass of `Reader`."""


class PreparerSpec(Spec, kind="preparer"):
    """Names a subclass of `Preparer`."""


class ExtractorSpec(Spec, kind="extractor"):
    """Names a subclass of `Extractor`."""


class TrunkSpec(Spec, kind="trunk"):
    """Names a subclass of `Trunk`."""


class HeadSpec(Spec, kind="head"):
    """Names a subclass of `Head`."""


class LossSpec(Spec, kind="loss"):
    """Names a subclass of `Loss`."""


class BalancerSpec(Spec, kind="balancer"):
    """Names a subclass of `Balancer`."""


class SamplerSpec(Spec, kind="sampler"):
    """Names a subclass of `Sampler`."""


class TrainerSpec(Spec, kind="trainer"):
    """Names a subclass of `Trainer`."""


class MetricSpec(Spec, kind="metric"):
    """Names a subclass of `Metric`."""


class ReporterSpec(Spec, kind="reporter"):
    """Names a subclass of `Reporter`."""


PLURALS = {kind: "losses" if kind == "loss" else f"{kind}s" for kind in KINDS}
"""As in hooks' names and listings."""
