"""Generated sound for demonstrations and tests: tones and chords that share instruments and a scale. Nothing lies on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterable

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
class Tones(Reader):
    """Single tones between middle C and an octave and a half above it. Nothing is read: any root will do."""

    info = DatasetInfo(title="Generated tones", layout="nothing")
    default_group = "take"
    generated = True
    count: int = param(240, minimum=1, help="number of clips")
    seed: int = param(0, minimum=0, help="of everything that is drawn")

    def tasks(self, root):
        return [Task.multiclass("timbre", TIMBRES), Task.regression("pitch", unit="semitones")]

    def clips(self, root):
        for number in range(self.count):
            timbre, pitch = _tone_of(self.seed, number // TAKES)
            yield _clip(tone, self.seed, number, {"timbre": timbre, "pitch": pitch})


@dataclass(frozen=True, kw_only=True)
class Chords(Reader):
    """One to four of five notes at once, each in one of two octaves, played by the instruments of `Tones`. Nothing is read: any root will do."""

    info = DatasetInfo(title="Generated chords", layout="nothing")
    default_group = "take"
    generated = True
    count: int = param(240, minimum=1, help="number of clips")
    seed: int = param(0, minimum=0, help="of everything that is drawn")

    def tasks(self, root):
        return [Task.multilabel("notes", NOTES)]

    def clips(self, root):
        for number in range(self.count):
            yield _clip(chord, self.seed, number, {"notes": frozenset(_chord_of(self.seed, number // TAKES)[1])})


def _clip(load: Callable, seed: int, number: int, targets: dict[str, Any]) -> Clip:
    name = load.__name__
    return Clip(f"{name}{number:05}", Lazy(load, (seed, number), f"core.{name}/{seed}/{number}"), targets,
                {"take": f"core.{name}:{seed}/{number // TAKES}"})
