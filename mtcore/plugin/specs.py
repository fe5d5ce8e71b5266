"""Specs: what a hook yields. Only strings, so that listing never imports a component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = ["KINDS", "BalancerSpec", "ExtractorSpec", "HeadSpec", "LossSpec", "MetricSpec", "PreparerSpec", "ReaderSpec",
           "ReporterSpec", "SamplerSpec", "Spec", "TrainerSpec", "TrunkSpec"]


@dataclass(frozen=True)
class Spec:
    """One named component.

    name      short name, `[a-z][a-z0-9_]*`; the full name is `<plugin>.<name>`
    target    "package.module:Class", imported only when a run or `mtcore info` needs it
    summary   one line for listings
    example   "package.module:function", a function `make(root)` that builds what the conformance kit and `mtcore demo`
              need: for a reader a miniature of the real layout below `root`
    revision  raised whenever the component's output changes for the same input and parameters; part of stores' keys
    """

    kind: ClassVar[str] = ""

    name: str
    target: str
    summary: str = ""
    example: str | None = None
    revision: int = 1


class ReaderSpec(Spec):
    kind = "reader"


class PreparerSpec(Spec):
    kind = "preparer"


class ExtractorSpec(Spec):
    kind = "extractor"


class TrunkSpec(Spec):
    kind = "trunk"


class HeadSpec(Spec):
    kind = "head"


class LossSpec(Spec):
    kind = "loss"


class BalancerSpec(Spec):
    kind = "balancer"


class SamplerSpec(Spec):
    kind = "sampler"


class TrainerSpec(Spec):
    kind = "trainer"


class MetricSpec(Spec):
    kind = "metric"


class ReporterSpec(Spec):
    kind = "reporter"


KINDS: dict[str, type[Spec]] = {spec.kind: spec for spec in (
    ReaderSpec, PreparerSpec, ExtractorSpec, TrunkSpec, HeadSpec, LossSpec, BalancerSpec, SamplerSpec, TrainerSpec, MetricSpec,
    ReporterSpec)}
