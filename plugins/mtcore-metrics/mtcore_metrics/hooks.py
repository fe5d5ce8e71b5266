"""What this plugin provides. Imports nothing heavy: components are named, not imported."""

from mtcore.plugin import MetricSpec, hookimpl


@hookimpl
def mtcore_register_metrics():
    yield MetricSpec("average_precision", "mtcore_metrics.ranking:AveragePrecision", "Average precision, a label against the rest")
    yield MetricSpec("roc_auc", "mtcore_metrics.ranking:RocAuc", "Area under the ROC curve, a label against the rest")
    yield MetricSpec("eer", "mtcore_metrics.ranking:EqualErrorRate", "Equal error rate, a label against the rest")
    yield MetricSpec("top_k", "mtcore_metrics.ranking:TopK", "Share of clips whose label is among the k highest scores")
    yield MetricSpec("map_at_k", "mtcore_metrics.ranking:MapAtK", "Mean average precision of the k highest scores of each clip")
    yield MetricSpec("cohen_kappa", "mtcore_metrics.agreement:CohenKappa", "Agreement beyond chance, also weighted by distance")
    yield MetricSpec("mcc", "mtcore_metrics.agreement:Mcc", "Matthews correlation coefficient")
    yield MetricSpec("ccc", "mtcore_metrics.agreement:Concordance", "Concordance correlation coefficient")
    yield MetricSpec("pearson", "mtcore_metrics.agreement:Pearson", "Linear correlation")
    yield MetricSpec("log_loss", "mtcore_metrics.probability:LogLoss", "Mean negative log-probability of what is true")
    yield MetricSpec("ece", "mtcore_metrics.probability:CalibrationError", "Expected calibration error")
    yield MetricSpec("event_based", "mtcore_metrics.detection:EventBased", "F1, precision, recall, error rate of whole events")
    yield MetricSpec("segment_based", "mtcore_metrics.detection:SegmentBased", "The same of segments of one length")
    yield MetricSpec("si_sdr", "mtcore_metrics.arrays:SiSdr", "Scale-invariant signal-to-distortion ratio in dB")
    yield MetricSpec("psds", "mtcore_metrics.events:Psds", "Polyphonic sound detection score; needs the extra psds")
