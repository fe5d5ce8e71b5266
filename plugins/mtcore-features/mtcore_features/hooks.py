"""What this plugin provides. Imports nothing heavy: components are named, not imported."""

from mtcore.plugin import ExtractorSpec, PreparerSpec, hookimpl


@hookimpl
def mtcore_register_preparers():
    yield PreparerSpec("resample", "mtcore_features.signal:Resample", "Another sampling rate (soxr HQ)",
                       example="mtcore_features.examples:resample")
    yield PreparerSpec("trim", "mtcore_features.signal:Trim", "Without the silence at both ends")
    yield PreparerSpec("normalise", "mtcore_features.signal:Normalise", "Peak or RMS at a level in dBFS")
    yield PreparerSpec("cut", "mtcore_features.signal:Cut", "A stretch of so many seconds, by default the beginning")
    yield PreparerSpec("window", "mtcore_features.steps:Window", "Several windows of one length per clip, overlapping or not",
                       example="mtcore_features.examples:window")
    yield PreparerSpec("summary", "mtcore_features.steps:Summary", "Statistics over the frames")
    yield PreparerSpec("decibels", "mtcore_features.steps:Decibels", "Powers or magnitudes in dB")
    yield PreparerSpec("pcen", "mtcore_features.steps:Pcen", "Per-channel energy normalisation, for mel and other powers")
    yield PreparerSpec("minmax", "mtcore_features.steps:MinMax", "Training range to 0 … 1 per bin, cell or all")


@hookimpl
def mtcore_register_extractors():
    yield ExtractorSpec("stft", "mtcore_features.spectral:Stft", "Short-time Fourier transform, magnitudes")
    yield ExtractorSpec("mel", "mtcore_features.spectral:Mel", "Mel spectrogram, power")
    yield ExtractorSpec("logmel", "mtcore_features.spectral:LogMel", "Mel spectrogram in dB")
    yield ExtractorSpec("mfcc", "mtcore_features.spectral:Mfcc", "Mel-frequency cepstral coefficients, with deltas if asked")
    yield ExtractorSpec("logbank", "mtcore_features.logbank:Logbank", "Log filter bank energies of speech recognition")
    yield ExtractorSpec("logbank_summary", "mtcore_features.logbank:LogbankSummary", "Seven statistics of each log energy")
    yield ExtractorSpec("gammatone", "mtcore_features.gammatone:Gammatone", "Power in gammatone filters")
    yield ExtractorSpec("cqt", "mtcore_features.music:Cqt", "Constant-Q or variable-Q transform, magnitudes")
    yield ExtractorSpec("chroma", "mtcore_features.music:Chroma", "Power per pitch class")
    yield ExtractorSpec("fingerprint", "mtcore_features.fingerprint:Fingerprint", "What copies of one recording share: for split.similar")
    yield ExtractorSpec("opensmile", "mtcore_features.smile:OpenSmile", "Functionals of openSMILE (extra opensmile)")
    yield ExtractorSpec("transformers", "mtcore_features.pretrained:Transformers",
                        "Embeddings by a transformers model on this disk (extra transformers)",
                        example="mtcore_features.examples:transformers")
    yield ExtractorSpec("onnx", "mtcore_features.pretrained:Onnx", "An output of a network in an ONNX file (extra onnxruntime)",
                        example="mtcore_features.examples:onnx")
