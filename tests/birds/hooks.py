"""What the plugin has."""

from mtcore.plugin import ExtractorSpec, PreparerSpec, ReaderSpec, hookimpl

@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("calls", "birds_kit.reader:Calls", "Calls", example="birds_kit.reader:make")

@hookimpl
def mtcore_register_extractors():
    yield ExtractorSpec("energy", "birds_kit.extractor:Energy", "Energy of frames")

@hookimpl
def mtcore_register_preparers():
    yield PreparerSpec("scale", "birds_kit.preparer:Scale", "Peak of the training part becomes 1")
    yield PreparerSpec("gain", "birds_kit.preparer:Gain", "Random gain")
    yield PreparerSpec("delay", "birds_kit.preparer:Delay", "Moves everything", example="birds_kit.preparer:example")
    yield PreparerSpec("cut", "birds_kit.preparer:Cut", "Windows")
