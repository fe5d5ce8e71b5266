"""What this plugin provides; imports nothing heavy."""

from mtcore.plugin import ExtractorSpec, PreparerSpec, ReaderSpec, hookimpl


@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("digits", "mtcore_images.reader:Digits", "Handwritten digits, 1797 pictures that come with scikit-learn",
                     example="mtcore_images.example:make")


@hookimpl
def mtcore_register_preparers():
    yield PreparerSpec("sonogram", "mtcore_images.sonogram:Sonogram", "Sound to a picture of its levels by frequency and time")


@hookimpl
def mtcore_register_extractors():
    yield ExtractorSpec("pixels", "mtcore_images.pixels:Pixels", "Pictures as they are, or of one size by areas",
                        example="mtcore_images.example:pictures")
