"""What this plugin provides. Imports nothing heavy: components are named, not imported."""

from mtcore.plugin import HeadSpec, LossSpec, hookimpl


@hookimpl
def mtcore_register_losses():
    yield LossSpec("focal", "mtcore_losses.probability:Focal", "Cross-entropy in which rows that are right already weigh little")
    yield LossSpec("asymmetric", "mtcore_losses.probability:Asymmetric", "Binary cross-entropy that forgets easy negatives")
    yield LossSpec("generalized_cross_entropy", "mtcore_losses.probability:GeneralizedCrossEntropy",
                   "Between cross-entropy and absolute error: bears wrong labels")
    yield LossSpec("arcface", "mtcore_losses.angular:ArcFace", "Softmax of cosines with an angular margin, for the head cosine")
    yield LossSpec("huber", "mtcore_losses.regression:Huber", "Squared near, absolute far from the target")
    yield LossSpec("si_sdr", "mtcore_losses.arrays:SiSdr", "Scale-invariant signal-to-distortion ratio of arrays, negative")
    yield LossSpec("reconstruction", "mtcore_losses.arrays:ReconstructionError",
                   "Squared difference from an input, for tasks without a target")
    yield LossSpec("ccc", "mtcore_losses.regression:Concordance", "1 - concordance correlation coefficient of the batch")
    yield LossSpec("distill", "mtcore_losses.distillation:Distill", "From a teacher's outputs besides the labels (Hinton 2015)")
    yield LossSpec("contrastive", "mtcore_losses.contrastive:Contrastive",
                   "Rows of one label lie together, for the head projection (Khosla 2020)")


@hookimpl
def mtcore_register_heads():
    yield HeadSpec("reconstruction", "mtcore_losses.arrays:Reconstruction", "An input's array again, for tasks without a target")
    yield HeadSpec("cosine", "mtcore_losses.angular:Cosine", "Cosines between the vector and a direction per label")
    yield HeadSpec("projection", "mtcore_losses.contrastive:Projection", "An embedding of length 1; a linear probe decides")
