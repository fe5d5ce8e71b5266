"""A miniature of the prompts: true layout, columns and names, hummed by generated voices."""

from __future__ import annotations

import csv
from pathlib import Path

VOICES = ("en_US_f_Allison", "es_CO_f_Avatar", "es_MX_f_Allison", "fr_CA_f_June", "fr_FR_f_Armelle", "it_IT_f_Menardi", "it_IT_m_Carlo",
          "ru_RU_f_IvrvoiceRU")
PHRASES = ("activated", "agent-pass", "vm-forward", "digits/1", "digits/2", "letters/a", "letters/b", "phonetic/a_p")
COLUMNS = ("path", "start", "stop", "language", "voice", "speaker", "gender", "kind", "digit", "letter", "n_seconds", "group")


def make(root: Path, rate: int = 8000) -> None:
    """Write 8 voices with 8 phrases each below `root`. Pitch tells the speaker, the movement of the pitch the language, the number of
    syllables the phrase."""
    import numpy as np
    import soundfile

    rows = []
    for number, voice in enumerate(VOICES):
        language, _, gender, speaker = voice.split("_", 3)
        for phrase, name in enumerate(PHRASES):
            kind, _, stem = name.rpartition("/")
            seconds = 0.3 + 0.1 * phrase + 0.02 * number
            time = np.arange(round(seconds * rate)) / rate
            pitch = 100 + 30 * sorted({v.split("_", 3)[3] for v in VOICES}).index(speaker)
            sway = {"en": 1, "es": 2, "fr": 4, "it": 6, "ru": 9}[language]
            phase = 2 * np.pi * pitch * time + 3 * np.sin(2 * np.pi * sway * time)
            sound = sum(np.sin(k * phase) / k for k in (1, 2, 3)) * np.abs(np.sin(np.pi * (phrase + 1) * time / seconds))
            sound += 0.01 * np.random.default_rng([number, phrase]).standard_normal(len(time))
            path = f"audio/{voice}/{name}.wav"
            (Path(root) / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(Path(root) / path, 0.3 * sound, rate, subtype="PCM_16")
            rows.append({"path": path, "start": "0.000000", "stop": f"{len(time) / rate:.6f}", "language": language, "voice": voice,
                         "speaker": speaker, "gender": gender, "kind": kind or "prompt", "digit": stem if kind == "digits" else "",
                         "letter": stem if kind == "letters" else "", "n_seconds": f"{len(time) / rate:.3f}",
                         "group": f"{kind or 'prompt'}/{stem}"})
    with open(Path(root) / "index.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
