"""What this plugin provides; imports nothing heavy."""

from mtcore.plugin import ReaderSpec, hookimpl


@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("speech", "mtcore_ravdess.reader:Speech", "RAVDESS: acted emotions, spoken (or sung) by 24 actors",
                     example="mtcore_ravdess.example:make")
    yield ReaderSpec("stress", "mtcore_ravdess.reader:Stress", "RAVDESS: fearful against neutral in the first 1.28 s",
                     example="mtcore_ravdess.example:make")
