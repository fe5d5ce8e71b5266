"""Generated arrays: small recordings for miniatures of datasets, and what extractors and preparers are tried on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

import numpy as np

from ..plugin import Axis, Context, Extractor, MtcoreError, ParameterError, Preparer
from .kit import NotReached, Subject

__all__ = ["RATES", "Situation", "rate_of", "situations", "sound", "write_tone"]

RATES = (16000, 8000, 22050, 32000, 44100, 48000)
"""Hz; the first that an extractor accepts is used."""
SECONDS = 1.0


def write_tone(path: Path, pitch: float = 440.0, seconds: float = 0.5, rate: int = 8000, channels: int = 1) -> None:
    """Write a tone of `pitch` Hz with a little noise as a 16-bit file; folders are made. Equal arguments give equal bytes."""
    import soundfile

    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(pitch * 1000)).standard_normal((len(time), channels))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * time)[:, None] + 0.003 * noise, rate, subtype="PCM_16")


def sound(seed: int, seconds: float, rate: float, channels: int = 1) -> np.ndarray:
    """A tone that rises from 300 Hz, and noise: float32 [channels, n], below 1."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal((channels, len(time)))
    return (0.3 * np.sin(2 * np.pi * (300 + 200 * time + 20 * seed) * time) + 0.05 * noise).astype(np.float32)


def rate_of(subject: Subject) -> float | None:
    """The rate at which an extractor is tried: its example's, else the first it accepts."""
    if subject.example.arrays:
        return subject.example.rate
    component: Extractor = subject.component
    for rate in RATES:
        try:
            component.prepare(float(rate))
            return float(rate)
        except ParameterError as error:
            last = error
    raise NotReached(f"{subject.name} takes sound at none of {', '.join(map(str, RATES))} Hz ({last}); let its example return "
                     "Example(arrays=…, rate=…)")


@dataclass(frozen=True)
class Situation:
    """What a preparer may meet: a context, and arrays of it."""

    name: str
    context: Context
    arrays: tuple[np.ndarray, ...]

    @property
    def hop(self) -> float | None:
        """Seconds from one element of the last dimension to the next."""
        return self.context.axis.hop if self.context.axis else 1 / self.context.rate if self.context.rate else None

    @property
    def first(self) -> float:
        """Time of the first element, in seconds."""
        return self.context.axis.first if self.context.axis else 0.0


def situations(subject: Subject) -> list[Situation]:
    """Those of the example, else of the kit's own all that the preparer accepts."""
    component: Preparer = subject.component
    example = subject.example
    acts_on = (component.acts_on,) if isinstance(component.acts_on, str) else tuple(component.acts_on)
    if example.arrays:
        timed = example.rate is not None or example.axis is not None
        shapes = {(*array.shape[:-1], None) if timed else array.shape for array in example.arrays}
        arrays = tuple(np.asarray(array, np.float32) for array in example.arrays)
        return [Situation("its example", Context(shape, example.rate, example.axis, example.materials), arrays)
                for shape in sorted(shapes, key=str)[:1]]
    tried, refusals = [], []
    for situation in _usual(acts_on, example.materials):
        try:
            component.prepare(situation.context)
            tried.append(situation)
        except MtcoreError as error:
            refusals.append(f"{situation.name}: {error}")
    if not tried:
        raise NotReached(f"{subject.name} refuses all that the kit has ({'; '.join(refusals)}); let its example return Example(arrays=…)")
    return tried


def _usual(acts_on: tuple[str, ...], materials: Mapping[str, Any]) -> list[Situation]:
    lengths = (1.0, 1.3, 0.8, 1.1, 1.0)
    found = []
    if "signal" in acts_on:
        found += [Situation(f"sound of {channels} channels", Context((channels, None), rate=16000.0, materials=materials),
                            tuple(sound(i, seconds * SECONDS, 16000, channels) for i, seconds in enumerate(lengths)))
                  for channels in (1, 2)]
    if "feature" in acts_on:
        random = np.random.default_rng(0)
        arrays = tuple(random.gamma(2.0, 2.0, (1, 24, round(100 * seconds))).astype(np.float32) for seconds in lengths)
        found.append(Situation("features", Context((1, 24, None), axis=Axis(0.01, 0.0125)), arrays))
        found.append(Situation("values", Context((1, 24)), tuple(array[..., 0] for array in arrays)))
    return found
