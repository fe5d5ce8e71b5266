"""A miniature of TUT Acoustic Scenes 2017: true layout, lists and file names, short 24-bit stereo noise."""

from __future__ import annotations

from pathlib import Path

SCENES = ("beach", "cafe/restaurant", "metro_station")
DEVELOPMENT = {"a001": "beach", "b020": "beach", "a013": "beach", "b009": "beach",
               "a002": "cafe/restaurant", "b079": "cafe/restaurant", "a100": "cafe/restaurant", "b101": "cafe/restaurant",
               "a003": "metro_station", "b030": "metro_station", "a014": "metro_station", "b103": "metro_station"}
EVALUATION = {"b200": "beach", "b201": "cafe/restaurant", "b202": "metro_station"}
STARTS = (0, 90, 180)
"""Where the segments of each recording begin, in seconds."""
TWICE = "audio/a001_0_10.wav"
"""Tested in two folds, as six of the published files are."""


def make(root: Path, seconds: float = 0.5, rate: int = 44100) -> None:
    """Write both datasets below `root`: 12 recordings of 3 scenes in 4 folds and 3 more for evaluation, 3 segments each. A scene is
    the colour of its noise, a recording a hum of its own."""
    development, evaluation = (Path(root) / f"TUT-acoustic-scenes-2017-{name}" for name in ("development", "evaluation"))
    rows = [(f"audio/{recording}_{start}_{start + 10}.wav", scene, recording) for recording, scene in DEVELOPMENT.items() for start in STARTS]
    hidden = [(f"audio/{recording}_{start}_{start + 10}.wav", scene, recording) for recording, scene in EVALUATION.items() for start in STARTS]
    for place, listed in ((development, rows), (evaluation, hidden)):
        (place / "audio").mkdir(parents=True, exist_ok=True)
        (place / "evaluation_setup").mkdir(exist_ok=True)
        for number, (file, scene, recording) in enumerate(listed):
            name = file if place == development else f"audio/{number + 1}.wav"
            _write(place / name, SCENES.index(scene), int(recording[1:]), number, seconds, rate)
    _table(development / "meta.txt", rows)
    _table(development / "error.txt", [("audio/b079_180_190.wav", 1.991448, 2.446579, "error"), ("audio/b020_90_100.wav", 0.5, 0.75, "error")])
    recordings = list(DEVELOPMENT)
    for fold in range(4):
        tested = {row for row in rows if recordings.index(row[2]) % 4 == fold or (row[0] == TWICE and fold == 1)}
        setup = development / "evaluation_setup" / f"fold{fold + 1}"
        _table(Path(f"{setup}_train.txt"), [row[:2] for row in rows if row not in tested])
        _table(Path(f"{setup}_test.txt"), [row[:1] for row in rows if row in tested])
        _table(Path(f"{setup}_evaluate.txt"), [row[:2] for row in rows if row in tested])
    numbered = [f"audio/{number + 1}.wav" for number in range(len(hidden))]
    _table(evaluation / "evaluation_setup" / "test.txt", [(name,) for name in numbered])
    _table(evaluation / "evaluation_setup" / "evaluate.txt", [(name, row[1]) for name, row in zip(numbered, hidden)])
    _table(evaluation / "evaluation_setup" / "map.txt", [(row[0], name) for name, row in zip(numbered, hidden)])
    for place in (development, evaluation):
        (place / "README.md").write_text("A miniature\n", encoding="utf-8")


def _table(path: Path, rows: list[tuple]) -> None:
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def _write(path: Path, colour: int, recording: int, number: int, seconds: float, rate: int) -> None:
    import numpy as np
    import soundfile

    noise = np.random.default_rng([colour, recording, number]).standard_normal((round(seconds * rate), 2))
    for _ in range(colour):
        noise = np.diff(noise, axis=0, prepend=0.0)
    hum = np.sin(2 * np.pi * (60 + 5 * recording) * np.arange(len(noise)) / rate)[:, None]
    sound = 0.1 * noise / noise.std() + 0.05 * hum
    soundfile.write(path, sound.clip(-1, 1), rate, subtype="PCM_24")
