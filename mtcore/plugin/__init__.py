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

from ..clip import PARTS, Clip, File, Lazy
from ..errors import ClipError, DataError, ExperimentError, MtcoreError, ParameterError, PluginError, TrainingError
from ..task import Event, Task
from .helpers import scan, table
from .hookspecs import hookimpl
from .interfaces import (Axis, Balancer, Balancing, Batch, Component, Context, DatasetInfo, Download, Extractor, Head, Loss, Measure,
                         Metric, Moved, Named, Output, Predictions, Prepared, Preparer, Reader, Reporter, Reporting, Representation,
                         RepresentationShape, Sampler, SamplerIndex, Statistics, Step, Sums, Trainer, Trunk)
from .params import param
from .specs import (BalancerSpec, ExtractorSpec, HeadSpec, LossSpec, MetricSpec, PreparerSpec, ReaderSpec, ReporterSpec,
                    SamplerSpec, Spec, TrainerSpec, TrunkSpec)

__all__ = [
    "PARTS", "Axis", "Balancer", "BalancerSpec", "Balancing", "Batch", "Clip", "ClipError", "Component", "Context", "DataError",
    "DatasetInfo", "Download", "Event", "ExperimentError", "Extractor", "ExtractorSpec", "File", "Head", "HeadSpec", "Lazy", "Loss",
    "LossSpec", "Measure", "Metric", "MetricSpec", "Moved", "MtcoreError", "Named", "Output", "ParameterError", "PluginError",
    "Predictions", "Prepared", "Preparer", "PreparerSpec", "Reader", "ReaderSpec", "Reporter", "ReporterSpec", "Reporting",
    "Representation", "RepresentationShape", "Sampler", "SamplerIndex", "SamplerSpec", "Spec", "Statistics", "Step", "Sums", "Task",
    "Trainer", "TrainerSpec", "TrainingError", "Trunk", "TrunkSpec", "hookimpl", "param", "scan", "table",
]
