"""What this plugin provides; imports nothing heavy."""

from mtcore.plugin import ReaderSpec, hookimpl


@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("scenes2017", "mtcore_dcase.reader:Scenes2017", "TUT Acoustic Scenes 2017: 15 scenes, DCASE 2017 task 1",
                     example="mtcore_dcase.example:make")
