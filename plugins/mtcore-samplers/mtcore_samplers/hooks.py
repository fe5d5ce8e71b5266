"""What this plugin provides. Imports nothing heavy: components are named, not imported."""

from mtcore.plugin import SamplerSpec, hookimpl


@hookimpl
def mtcore_register_samplers():
    yield SamplerSpec("balanced", "mtcore_samplers.shares:Balanced", "As many rows of each dataset, or of each label of a task")
    yield SamplerSpec("temperature", "mtcore_samplers.shares:Temperature", "Datasets by their size to a power")
    yield SamplerSpec("weighted", "mtcore_samplers.shares:Weighted", "Datasets in given shares")
    yield SamplerSpec("bucketed", "mtcore_samplers.buckets:Bucketed", "Rows of similar length in one batch")
