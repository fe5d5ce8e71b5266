"""The plugin API: everything a plugin imports. Light: importing it imports neither torch nor numpy.

A plugin is a distribution with one entry point in the group `mtcore`, which names a hook module:

    # pyproject.toml
    [project.entry-points.mtcore]
    birds = "mtcore_birds.hooks"

    # mtcore_birds/hooks.py
    from mtcore.plugin import ReaderSpec, hookimpl

    @hookimpl
    def mtcore_register_readers():
        yield ReaderSpec("calls", "mtcore_birds.reader:Calls", "Bird calls, 30 sites")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .hookspecs import hookimpl
from .specs import (
    BalancerSpec,
    Example,
    ExtractorSpec,
    HeadSpec,
    LossSpec,
    MetricSpec,
    PreparerSpec,
    ReaderSpec,
    ReporterSpec,
    SamplerSpec,
    Spec,
    TrainerSpec,
    TrunkSpec,
)

if TYPE_CHECKING:
    from ..clip import PARTS, Clip, File, Lazy
    from ..errors import ClipError, DataError, ExperimentError, MtcoreError, ParameterError, PluginError, TrainingError
    from ..task import Event, Task
    from .helpers import LabelHead, framed, module_dict, scan, table
    from .interfaces import (
        Axis,
        Balancer,
        Balancing,
        Batch,
        Component,
        Context,
        DatasetInfo,
        Download,
        Extractor,
        Head,
        Loss,
        Measure,
        Metric,
        Moved,
        Named,
        Output,
        Predictions,
        Prepared,
        Preparer,
        Reader,
        Reporter,
        Reporting,
        Representation,
        RepresentationShape,
        Sampler,
        SamplerIndex,
        Statistics,
        Step,
        Sums,
        Trainer,
        Trunk,
    )
    from .params import param

__all__ = [
    "PARTS", "Axis", "Balancer", "BalancerSpec", "Balancing", "Batch", "Clip", "ClipError", "Component", "Context", "DataError",
    "DatasetInfo", "Download", "Event", "Example", "ExperimentError", "Extractor", "ExtractorSpec", "File", "Head", "HeadSpec",
    "LabelHead", "Lazy", "Loss", "LossSpec", "Measure", "Metric", "MetricSpec", "Moved", "MtcoreError", "Named", "Output", "ParameterError",
    "PluginError", "Predictions", "Prepared", "Preparer", "PreparerSpec", "Reader", "ReaderSpec", "Reporter", "ReporterSpec",
    "Reporting", "Representation", "RepresentationShape", "Sampler", "SamplerIndex", "SamplerSpec", "Spec", "Statistics", "Step",
    "Sums", "Task", "Trainer", "TrainerSpec", "TrainingError", "Trunk", "TrunkSpec", "framed", "hookimpl",
    "module_dict", "param", "scan", "table",
]

_LATER = ("..errors", "..clip", "..task", ".params", ".helpers", ".interfaces")


def __getattr__(name: str) -> Any:
    """What hook modules do without is imported on first use: they are imported whenever anything is listed."""
    if name in __all__:
        from importlib import import_module

        for module in (import_module(where, __name__) for where in _LATER):
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
