"""What all steps of this plugin share: they are random, and parameters of two numbers are ranges to draw from."""

from __future__ import annotations

import math
import re

import numpy as np

from mtcore.plugin import Context, ParameterError, Preparer


class Augmentation(Preparer):
    """A random step. Each parameter that is a pair of numbers is a range, lowest first."""

    random = True

    def __post_init__(self):
        for name, value in self.parameters().items():
            pair = isinstance(value, tuple) and len(value) == 2 and all(isinstance(end, (int, float)) for end in value)
            if pair and not (all(map(math.isfinite, value)) and value[0] <= value[1]):
                raise ParameterError(f"expected {name} as [lowest, highest], found {list(value)}")


def sound(context: Context) -> float:
    """The rate of the sound in Hz."""
    if not context.rate or len(context.shape) != 2:
        raise ParameterError(f"expected sound [channels, n] with a sampling rate, found shape {context.shape}, rate "
                             f"{context.rate}; put the step in front of the extractor, or behind the extractor waveform")
    return context.rate


def power(x: np.ndarray) -> float:
    """Mean square over all channels."""
    return float(np.square(x, dtype=np.float64).mean())


def frames_of(value: int | str, name: str, hop: float) -> int:
    """A length in samples or frames, or in seconds such as "1.5s", as samples or frames. `hop` is in seconds."""
    seconds = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*s", value) if isinstance(value, str) else None
    if isinstance(value, str) and not seconds:
        raise ParameterError(f'expected {name} as a number of samples or frames or as seconds such as "1.5s", found {value!r}')
    frames = round(float(seconds[1]) / hop) if seconds else value
    if frames < 1:
        raise ParameterError(f"expected {name} of at least one sample or frame, found {value!r} (one is {hop:g} s)")
    return frames
