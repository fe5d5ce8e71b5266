"""What this plugin provides; imports nothing heavy."""

from mtcore.plugin import ReaderSpec, hookimpl


@hookimpl
def mtcore_register_readers():
    yield ReaderSpec("prompts", "mtcore_voiceprompts.reader:Prompts", "Telephone prompts, 8 voices in 5 languages",
                     example="mtcore_voiceprompts.example:make")
