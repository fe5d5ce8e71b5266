"""The eleven hooks. Each takes no arguments and yields specs; results of all plugins are collected.

    from mtcore.plugin import ReaderSpec, hookimpl

    @hookimpl
    def mtcore_register_readers():
        yield ReaderSpec("calls", "mtcore_birds.reader:Calls", "Bird calls, 30 sites", example="mtcore_birds.example:make")
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from .specs import (
    BalancerSpec,
    ExtractorSpec,
    HeadSpec,
    LossSpec,
    MetricSpec,
    PreparerSpec,
    ReaderSpec,
    ReporterSpec,
    SamplerSpec,
    TrainerSpec,
    TrunkSpec,
)

hookspec = pluggy.HookspecMarker("mtcore")
hookimpl = pluggy.HookimplMarker("mtcore")


@hookspec
def mtcore_register_readers() -> Iterable[ReaderSpec]:
    """Yield `ReaderSpec`: dataset readers; targets are subclasses of `Reader`."""


@hookspec
def mtcore_register_preparers() -> Iterable[PreparerSpec]:
    """Yield `PreparerSpec`: steps on signals, features or batches; targets are subclasses of `Preparer`."""


@hookspec
def mtcore_register_extractors() -> Iterable[ExtractorSpec]:
    """Yield `ExtractorSpec`: samples to features; targets are subclasses of `Extractor`."""


@hookspec
def mtcore_register_trunks() -> Iterable[TrunkSpec]:
    """Yield `TrunkSpec`: shared networks; targets are subclasses of `Trunk`."""


@hookspec
def mtcore_register_heads() -> Iterable[HeadSpec]:
    """Yield `HeadSpec`: the part of the network that belongs to one task; targets are subclasses of `Head`."""


@hookspec
def mtcore_register_losses() -> Iterable[LossSpec]:
    """Yield `LossSpec`: losses of one task, a value per row; targets are subclasses of `Loss`."""


@hookspec
def mtcore_register_balancers() -> Iterable[BalancerSpec]:
    """Yield `BalancerSpec`: how all tasks' losses become one update; targets are subclasses of `Balancer`."""


@hookspec
def mtcore_register_samplers() -> Iterable[SamplerSpec]:
    """Yield `SamplerSpec`: which rows make up the next batch; targets are subclasses of `Sampler`."""


@hookspec
def mtcore_register_trainers() -> Iterable[TrainerSpec]:
    """Yield `TrainerSpec`: training paradigms; targets are subclasses of `Trainer`."""


@hookspec
def mtcore_register_metrics() -> Iterable[MetricSpec]:
    """Yield `MetricSpec`: figures of one task; targets are subclasses of `Metric`."""


@hookspec
def mtcore_register_reporters() -> Iterable[ReporterSpec]:
    """Yield `ReporterSpec`: what writes figures somewhere; targets are subclasses of `Reporter`."""
