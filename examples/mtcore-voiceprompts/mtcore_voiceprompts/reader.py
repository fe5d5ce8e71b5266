"""Telephone prompts: the same phrases spoken by professional voices in five languages, 8 kHz mono."""

from __future__ import annotations

from dataclasses import dataclass

from mtcore.plugin import Clip, DatasetInfo, File, Reader, Task, table

__all__ = ["KINDS", "LANGUAGES", "SPEAKERS", "Prompts"]

LANGUAGES = ("en", "es", "fr", "it", "ru")
SPEAKERS = ("Allison", "Armelle", "Avatar", "Carlo", "IvrvoiceRU", "June", "Menardi")
"""Eight voices, seven speakers: Allison speaks English and Spanish."""
KINDS = ("digits", "letters", "phonetic", "prompt")


@dataclass(frozen=True, kw_only=True)
class Prompts(Reader):
    """What the index lists: each recording with its language, speaker, kind and length."""

    info = DatasetInfo(
        title="Voice prompts of the Asterisk telephone exchange, as packaged by Debian",
        licence="CC BY-SA 3.0 (asterisk-core-sounds, asterisk-prompt-it), GPL-2 (es-co), BSD (fr-armelle); see the packages",
        homepage="https://packages.debian.org/search?keywords=asterisk-core-sounds",
        layout="index.csv and audio/, as the script fetch_voiceprompts.py of this plugin's sources makes them",
    )
    default_group = "phrase"
    ignored = ("index.csv", "licence/*")

    def tasks(self, root):
        return [Task.multiclass("language", LANGUAGES), Task.multiclass("speaker", SPEAKERS), Task.multiclass("kind", KINDS),
                Task.regression("duration", unit="s")]

    def clips(self, root):
        for row in table(root / "index.csv"):
            yield Clip(row["path"], File(root / row["path"]),
                       targets={**{name: row[name] for name in ("language", "speaker", "kind")}, "duration": float(row["n_seconds"])},
                       groups={"phrase": f"voiceprompts:{row['group']}", "speaker": f"voiceprompts:{row['speaker']}"})
