"""Generated arrays: small recordings for miniatures of datasets, and what extractors and preparers are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ClipError, ExperimentError
from ..plugin import Axis, Context, Extractor, MtcoreError, ParameterError, Preparer
from ..streams import stream
from .kit import NotReached, Subject

__all__ = ["RATES", "Situation", "arrays_of", "rate_of", "situations", "sound", "write_tone"]

RATES = (16000, 8000, 22050, 32000, 44100, 48000)
"""Hz; the first that an extractor accepts is used."""
SECONDS = (1.0, 4.0, 16.0)
"""Lengths that are tried until the component takes sound or features so long."""


def write_tone(path: Path, pitch: float = 440.0, seconds: float = 0.5, rate: int = 8000, channels: int = 1) -> None:
    """Write a tone of `pitch` Hz with a little noise as a 16-bit file; folders are made. Equal arguments give equal bytes."""
    import soundfile

    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(pitch * 1000)).standard_normal((len(time), channels))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * time)[:, None] + 0.003 * noise, rate, subtype="PCM_16")


def sound(seed: int, seconds: float, rate: float, channels: int = 1) -> np.ndarray:
    """A tone that rises from 300 Hz, and noise: float32 [channels, n], below 1."""
    return _sound(seed, seconds, rate, channels).copy()


@lru_cache(maxsize=64)
def _sound(seed: int, seconds: float, rate: float, channels: int) -> np.ndarray:
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
            refusal = error
    raise NotReached(f"it takes sound at none of {', '.join(map(str, RATES))} Hz ({refusal}); let its example return "
                     "Example(arrays=…, rate=…)") from refusal


def arrays_of(subject: Subject) -> list[np.ndarray]:
    """What an extractor is tried on: its example's arrays, else sound of one and of two channels in two lengths, as far as it
    takes them."""
    if subject.example.arrays:
        return [np.array(array, np.float32) for array in subject.example.arrays]
    if "arrays" not in subject.memory:
        subject.memory["arrays"] = _taken(subject)
    return [array.copy() for array in subject.memory["arrays"]]


def _taken(subject: Subject) -> list[np.ndarray]:
    rate = rate_of(subject)
    extract = subject.component.prepare(rate)
    for seconds in SECONDS:
        tried = [
            sound(seed, length * seconds, rate, channels)
            for seed, (length, channels) in enumerate(((1, 1), (1.4, 1), (1, 2), (1.4, 2)))
        ]
        refusals = [_refusal(lambda: extract(array.copy())) for array in tried]
        taken = [array for array, refusal in zip(tried, refusals) if refusal is None]
        if len(taken) > 1:
            return taken
    raise NotReached(f"it takes sound of {', '.join(f'{seconds:g}' for seconds in SECONDS)} s neither of one channel nor of two "
                     f"({refusals[0]}); let its example return Example(arrays=…, rate=…)") from refusals[0]


def _refusal(call: Callable[[], Any]) -> MtcoreError | None:
    """Why a component does not take an array. That something else goes wrong is the matter of its rules."""
    try:
        call()
    except (ClipError, ExperimentError) as error:
        return error
    except Exception:
        pass
    return None


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
    for seconds in SECONDS if "seconds" not in subject.memory else (subject.memory["seconds"],):
        usual = _usual(acts_on, example.materials, seconds)
        refusals = {situation.name: _refuses(component, situation) for situation in usual}
        if tried := [situation for situation in usual if refusals[situation.name] is None]:
            subject.memory["seconds"] = seconds
            return tried
    why = "; ".join(f"{name}: {error}" for name, error in refusals.items())
    raise NotReached(f"it refuses all that the kit has ({why}); let its example return Example(arrays=…)") from next(
        iter(refusals.values()), None
    )


def _refuses(component: Preparer, situation: Situation) -> Exception | None:
    """Why a preparer does not take these arrays."""
    def tried() -> None:
        prepared = component.prepare(situation.context)
        state = prepared.fit(array.copy() for array in situation.arrays) if prepared.fit else {}
        for array in situation.arrays:
            if prepared.count:
                prepared.count(array.shape, state)
            else:
                prepared.apply(array.copy(), state, stream(0, "kit") if component.random else None)

    return _refusal(tried)


def _usual(acts_on: tuple[str, ...], materials: Mapping[str, Any], longer: float) -> list[Situation]:
    lengths = [longer * seconds for seconds in (1.0, 1.3, 0.8, 1.1, 1.0)]
    found = []
    if "signal" in acts_on:
        found += [Situation(f"sound of {channels} channels", Context((channels, None), rate=16000.0, materials=materials),
                            tuple(sound(i, seconds, 16000, channels) for i, seconds in enumerate(lengths)))
                  for channels in (1, 2)]
    if "feature" in acts_on:
        random = np.random.default_rng(0)
        arrays = tuple(random.gamma(2.0, 2.0, (1, 24, round(100 * seconds))).astype(np.float32) for seconds in lengths)
        found.append(Situation("features", Context((1, 24, None), axis=Axis(0.01, 0.0125), materials=materials), arrays))
        found.append(Situation("values", Context((1, 24), materials=materials), tuple(array[..., 0] for array in arrays)))
    return found
