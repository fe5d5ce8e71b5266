"""The plugin `core`: what the core brings itself, through the same door as everybody's."""

from mtcore.plugin import (
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
    hookimpl,
)


@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("csv", "mtcore.builtin.readers:Csv", "Own recordings listed in a CSV file, a column per task",
                     example="mtcore.builtin.examples:make_csv")
    yield ReaderSpec("folders", "mtcore.builtin.readers:Folders", "Own recordings, one folder per class",
                     example="mtcore.builtin.examples:make_folders")
    yield ReaderSpec("tones", "mtcore.builtin.sound:Tones", "Generated single tones: timbre and pitch",
                     example="mtcore.builtin.examples:make_nothing")
    yield ReaderSpec("chords", "mtcore.builtin.sound:Chords", "Generated chords: which notes sound",
                     example="mtcore.builtin.examples:make_nothing")


@hookimpl
def mtcore_register_preparers():
    yield PreparerSpec("mono", "mtcore.builtin.preparers:Mono", "Mean of the channels")
    yield PreparerSpec("crop_or_pad", "mtcore.builtin.preparers:CropOrPad", "One length for all: frames, seconds, or a fitted one",
                       example="mtcore.builtin.examples:crop_or_pad")
    yield PreparerSpec("standardize", "mtcore.builtin.preparers:Standardize", "Zero mean and unit deviation per bin, cell or all")


@hookimpl
def mtcore_register_extractors():
    yield ExtractorSpec("waveform", "mtcore.builtin.extractors:Waveform", "The array as it is")
    yield ExtractorSpec("spectrogram", "mtcore.builtin.extractors:Spectrogram", "Short-time spectrum, numpy only")
    yield ExtractorSpec("run", "mtcore.experiment.stored:RunOutputs", "Representation or outputs of a stored run",
                        example="mtcore.testing.runs:example")


@hookimpl
def mtcore_register_trunks():
    yield TrunkSpec("mlp", "mtcore.builtin.trunks:Mlp", "Fully connected layers over all inputs, flattened")
    yield TrunkSpec("cnn", "mtcore.builtin.trunks:Cnn", "2-D convolutions over [channels, bins, frames]")
    yield TrunkSpec("cnn1d", "mtcore.builtin.trunks:Cnn1d", "1-D convolutions over [channels, samples]")


@hookimpl
def mtcore_register_heads():
    yield HeadSpec("linear", "mtcore.builtin.heads:Linear", "Linear map of the vector, for labels and values")
    yield HeadSpec("frames", "mtcore.builtin.heads:Frames", "Linear map of every frame, for events")
    yield HeadSpec("array", "mtcore.builtin.heads:Array", "Linear map of the vector or of every frame, for arrays")


@hookimpl
def mtcore_register_losses():
    yield LossSpec("cross_entropy", "mtcore.builtin.losses:CrossEntropy", "Multi-class cross-entropy")
    yield LossSpec("binary_cross_entropy", "mtcore.builtin.losses:BinaryCrossEntropy", "Binary, multi-label and events")
    yield LossSpec("mse", "mtcore.builtin.losses:MeanSquaredError", "Mean squared error")
    yield LossSpec("mae", "mtcore.builtin.losses:MeanAbsoluteError", "Mean absolute error")


@hookimpl
def mtcore_register_balancers():
    yield BalancerSpec("sum", "mtcore.builtin.balancers:Sum", "Each task's weight times its mean loss, added up")


@hookimpl
def mtcore_register_samplers():
    yield SamplerSpec("mixed", "mtcore.builtin.samplers:Mixed", "One shuffle of all rows")
    yield SamplerSpec("proportional", "mtcore.builtin.samplers:Proportional", "Each batch keeps the datasets' ratio")
    yield SamplerSpec("alternating", "mtcore.builtin.samplers:Alternating", "One dataset per batch")


@hookimpl
def mtcore_register_trainers():
    yield TrainerSpec("gradient", "mtcore.training.gradient:Gradient", "Gradient descent with checkpoints and early stopping")


@hookimpl
def mtcore_register_metrics():
    yield MetricSpec("classification", "mtcore.builtin.metrics:Classification", "Accuracy, precision, recall, F1 per label and mean")
    yield MetricSpec("multilabel", "mtcore.builtin.metrics:Multilabel", "F1 per label, micro and macro; average precision")
    yield MetricSpec("regression", "mtcore.builtin.metrics:Regression", "MAE, RMSE and R2 in the target's unit")
    yield MetricSpec("events", "mtcore.builtin.metrics:Events", "Segment-based F1 and error rate")
    yield MetricSpec("arrays", "mtcore.builtin.metrics:Arrays", "Mean squared and absolute error of all values")


@hookimpl
def mtcore_register_reporters():
    yield ReporterSpec("tensorboard", "mtcore.builtin.tensorboard:TensorBoard", "Scalars, confusion pictures, hyperparameters")
