"""Generated sound for demonstrations and tests: tones and chords that share instruments and a scale. Nothing lies on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtcore.plugin import Clip, DatasetInfo, Lazy, Reader, Task, param

__all__ = ["NOTES", "TIMBRES", "Chords", "Tones", "chord", "tone"]

RATE = 8000
"""Hz; every clip lasts one second."""
TAKES = 2
"""Clips of the same parameters: a split that parts them would be too easy."""
TIMBRES = ("sine", "sawtooth", "tremolo", "noise")
NOTES = {"c": 0, "d": 2, "e": 4, "g": 7, "a": 9}
"""Semitones above middle C, or above the C of the next octave."""
MIDDLE_C = 261.63


def _random(seed: int, *counter: int) -> np.random.Generator:
    """A stream for each dataset, purpose and number (Philox, Salmon et al. 2011)."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, *counter]))


def _tone_of(seed: int, take: int) -> tuple[str, float]:
    return TIMBRES[take % len(TIMBRES)], float(_random(seed, 0, 0, take).uniform(0, 18))


def _chord_of(seed: int, take: int) -> tuple[str, dict[str, int]]:
    """Timbre, and the pitch of each note: its octave is drawn, for its name says nothing of it."""
    random = _random(seed, 1, 0, take)
    names = random.permutation(list(NOTES))[:random.integers(1, 5)]
    return TIMBRES[random.integers(len(TIMBRES))], {str(name): NOTES[str(name)] + 12 * int(random.integers(2)) for name in names}


def tone(seed: int, number: int) -> tuple[np.ndarray, float]:
    """Clip `number`: float32 [1, samples], and its rate in Hz."""
    timbre, pitch = _tone_of(seed, number // TAKES)
    return _played(timbre, [pitch], _random(seed, 0, 1, number)), float(RATE)


def chord(seed: int, number: int) -> tuple[np.ndarray, float]:
    """Clip `number`: float32 [1, samples], and its rate in Hz."""
    timbre, notes = _chord_of(seed, number // TAKES)
    return _played(timbre, notes.values(), _random(seed, 1, 1, number)), float(RATE)


def _played(timbre: str, pitches: Iterable[float], random: np.random.Generator) -> np.ndarray:
    """One take: random onset, decay, phases, level and background noise."""
    time = np.arange(RATE) / RATE
    sound = sum(_voice(timbre, MIDDLE_C * 2 ** (pitch / 12), time, random) for pitch in pitches)
    onset, decay = random.uniform(0, 0.1), random.uniform(0.5, 1.5)
    sound *= np.where(time < onset, 0.0, np.exp((onset - time) / decay))
    sound += sound.std() * 10 ** random.uniform(-2, -1) * random.standard_normal(RATE)  # 20 to 40 dB below
    return (random.uniform(0.1, 0.9) * sound / np.abs(sound).max()).astype(np.float32)[None]


def _voice(timbre: str, frequency: float, time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Partials below half the rate, together of unit power: one, all, the odd ones beating six times a second, or a band of many."""
    if timbre == "noise":
        frequencies, amplitudes = frequency * (1 + 0.06 * random.standard_normal(32)), np.ones(32)
    else:
        order = {"sine": np.array([1]), "sawtooth": np.arange(1, 16), "tremolo": np.arange(1, 16, 2)}[timbre]
        frequencies, amplitudes = frequency * order, 1 / order
    amplitudes = np.where(frequencies < RATE / 2, amplitudes, 0)
    phases = 2 * np.pi * (frequencies[:, None] * time + random.random((len(frequencies), 1)))
    sound = amplitudes @ np.sin(phases) * np.sqrt(2 / np.sum(amplitudes**2))
    return sound * (1 + np.sin(2 * np.pi * (6 * time + random.random()))) if timbre == "tremolo" else sound


@dataclass(frozen=True, kw_only=True)
class Generated(Reader):
    """Clips that `load(seed, number)` makes. Nothing is read: any root will do."""

    default_group = "take"
    generated = True
    load: ClassVar[Callable[[int, int], tuple[np.ndarray, float]]]
    count: int = param(240, minimum=1, help="number of clips")
    seed: int = param(0, minimum=0, help="of everything that is drawn")

    def clips(self, root):
        name = self.load.__name__
        for number in range(self.count):
            take = number // TAKES
            yield Clip(f"{name}{number:05}", Lazy(self.load, (self.seed, number), f"core.{name}/{self.seed}/{number}"),
                       self.targets(take), {"take": f"core.{name}:{self.seed}/{take}"})


@dataclass(frozen=True, kw_only=True)
class Tones(Generated):
    """Single tones between middle C and an octave and a half above it. Nothing is read: any root will do."""

    info = DatasetInfo(title="Generated tones", layout="nothing")
    load = staticmethod(tone)

    def tasks(self, root):
        return [Task.multiclass("timbre", TIMBRES), Task.regression("pitch", unit="semitones")]

    def targets(self, take: int) -> dict[str, Any]:
        return dict(zip(("timbre", "pitch"), _tone_of(self.seed, take)))


@dataclass(frozen=True, kw_only=True)
class Chords(Generated):
    """One to four of five notes at once, each in one of two octaves, played by the instruments of `Tones`. Nothing is read: any
    root will do."""

    info = DatasetInfo(title="Generated chords", layout="nothing")
    load = staticmethod(chord)

    def tasks(self, root):
        return [Task.multilabel("notes", NOTES)]

    def targets(self, take: int) -> dict[str, Any]:
        return {"notes": frozenset(_chord_of(self.seed, take)[1])}
