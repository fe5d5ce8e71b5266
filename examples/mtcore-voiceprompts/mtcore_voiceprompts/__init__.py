"""mtcore plugin `voiceprompts`: telephone prompts of eight voices in five languages."""
