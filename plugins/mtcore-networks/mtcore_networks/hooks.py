"""What this plugin provides. Imports nothing heavy: components are named, not imported."""

from mtcore.plugin import HeadSpec, TrunkSpec, hookimpl


@hookimpl
def mtcore_register_trunks():
    yield TrunkSpec("vgg", "mtcore_networks.convolutional:Vgg", "Blocks of two 3 x 3 convolutions and a pooling (Kong 2020)")
    yield TrunkSpec("resnet", "mtcore_networks.convolutional:Resnet", "Residual blocks of two 3 x 3 convolutions (He 2016)")
    yield TrunkSpec("crnn", "mtcore_networks.sequential:Crnn", "Convolutions over bins, recurrence over time (Cakir 2017)")
    yield TrunkSpec("conv_transformer", "mtcore_networks.sequential:ConvTransformer",
                    "Convolutions that subsample, attention over time (Vaswani 2017, Gulati 2020)")
    yield TrunkSpec("pretrained", "mtcore_networks.pretrained:Pretrained",
                    "A transformers model of raw sound in a folder, trained on (extra transformers)",
                    example="mtcore_networks.examples:wav2vec2")
    yield TrunkSpec("soft", "mtcore_networks.sharing:Soft",
                    "A network for each task, their parameters held together (Duong 2015)")
    yield TrunkSpec("cross_stitch", "mtcore_networks.sharing:CrossStitch",
                    "A network for each task, mixed behind each stage (Misra 2016)")
    yield TrunkSpec("mtan", "mtcore_networks.sharing:Mtan",
                    "One network, of whose stages each task chooses values by attention (Liu 2019)")
    yield TrunkSpec("mmoe", "mtcore_networks.experts:Mmoe", "Several networks, mixed for each task by a gate (Ma 2018)")
    yield TrunkSpec("cgc", "mtcore_networks.experts:Cgc", "Networks of all tasks and of each task, mixed by gates (Tang 2020)")
    yield TrunkSpec("ple", "mtcore_networks.experts:Ple", "The same, level by level between the networks' stages (Tang 2020)")
    yield TrunkSpec("simclr", "mtcore_networks.views:SimClr",
                    "A network that learns without labels, from two views of a clip (Chen 2020)")


@hookimpl
def mtcore_register_heads():
    yield HeadSpec("pooling", "mtcore_networks.pooling:Pooling",
                   "Frames' probabilities pooled to one per label, for weak labels (Wang 2019)")
