"""What the conformance kit tries the core's own components on, and `mtcore demo READER` reads."""

from __future__ import annotations

from pathlib import Path

from mtcore.plugin import Example

__all__ = ["crop_or_pad", "make_csv", "make_folders", "make_nothing"]


def _write(path: Path, frequency: float, seconds: float = 0.5, rate: int = 8000) -> None:
    import numpy as np
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate), rate)


def make_csv(root: Path) -> None:
    """24 tones of two instruments, three takes each, listed in index.csv."""
    lines = ["path,start,stop,instrument,pitch,group"]
    for number in range(24):
        name = f"audio/tone {number:02}.wav"
        _write(root / name, 220 + 40 * number)
        lines.append(f"{name},0,0.5,{'flute' if number % 2 else 'organ'},{220 + 40 * number},{number // 2}")
    (root / "index.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_folders(root: Path) -> None:
    """Two classes, twelve tones each."""
    for number in range(24):
        _write(root / ("high" if number % 2 else "low") / f"take {number:02}.wav", (900 if number % 2 else 300) + 7 * number)


def make_nothing(root: Path) -> None:
    """Generated sound lies nowhere."""
    root.mkdir(parents=True, exist_ok=True)


def crop_or_pad(root: Path) -> Example:
    """A length that is longer than some of the kit's arrays and shorter than others."""
    return Example(parameters={"length": "1.05s"}, others={"length": "median"})
