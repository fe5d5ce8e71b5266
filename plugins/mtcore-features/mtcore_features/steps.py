"""Steps on features: float32 […, frames], where the context has an axis."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import ClipError, Context, ParameterError, Prepared, Preparer, Sums, param

from .spectral import decibels
from .statistics import STATISTICS, statistics


def frames_of(value: int | str, name: str, context: Context) -> int:
    """A length in frames, or in seconds such as "1.5s", as frames."""
    if context.axis is None:
        raise ParameterError(f"expected features with a time axis, found shape {context.shape} without one")
    seconds = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*s", value) if isinstance(value, str) else None
    if isinstance(value, str) and not seconds:
        raise ParameterError(f'expected {name} as a whole number of frames or as seconds such as "1.5s", found {value!r}')
    frames = round(float(seconds[1]) / context.axis.hop) if seconds else value
    if frames < 1:
        raise ParameterError(f"expected {name} of at least one frame, found {value!r} (a frame is {context.axis.hop:g} s)")
    return frames


@dataclass(frozen=True, kw_only=True)
class Window(Preparer):
    """Cuts a clip into windows of one length. Windows lie fully inside the clip; frames behind the last one are in none."""

    acts_on = "feature"
    window = True
    length: int | str = param(minimum=1, help='length of a window: frames, or seconds such as "1s"')
    hop: int | str | None = param(None, minimum=1, help="from one window's start to the next one's, likewise; default: the length")

    def prepare(self, context: Context) -> Prepared:
        length = frames_of(self.length, "length", context)
        hop = length if self.hop is None else frames_of(self.hop, "hop", context)

        def count(shape, state):
            if shape[-1] < length:
                raise ClipError(f"too short for one window: expected at least {length} frames ({length * context.axis.hop:g} s), "
                                f"found {shape[-1]}; leave the clip out, shorten the window, or put crop_or_pad in front of it")
            return 1 + (shape[-1] - length) // hop

        return context.then(lambda x, state, rng: x, shape=(*context.shape[:-1], length), count=count,
                            slice=lambda shape, i, state: (i * hop, length))


@dataclass(frozen=True, kw_only=True)
class Summary(Preparer):
    """Statistics over the frames: […, bins, frames] -> […, statistics * bins], all bins of the first one, then of the next."""

    acts_on = "feature"
    statistics: tuple[str, ...] = param(STATISTICS, help="which, in the order of the result: " + ", ".join(STATISTICS))

    def prepare(self, context: Context) -> Prepared:
        unknown = [name for name in self.statistics if name not in STATISTICS]
        if unknown or not self.statistics:
            raise ParameterError(f"expected statistics out of {', '.join(STATISTICS)}; found {unknown[0] if unknown else 'none'}")
        if context.axis is None:
            raise ParameterError(f"expected features with a time axis to summarise, found shape {context.shape} without one")
        rest = context.shape[:-1]
        bins = rest[-1] if rest else 1
        return context.then(lambda x, state, rng: statistics(x, self.statistics), axis=None,
                            shape=(*rest[:-1], None if bins is None else len(self.statistics) * bins))


def check_powers(x: np.ndarray) -> None:
    """Raise `ParameterError` if a value is negative."""
    if (least := x.min()) < 0:
        raise ParameterError(f"expected powers or magnitudes, which are never negative, found {least:g}; put the step right "
                             "behind an extractor that gives those, such as mel, gammatone or cqt")


@dataclass(frozen=True, kw_only=True)
class Decibels(Preparer):
    """Powers or magnitudes in dB relative to 1, as librosa.power_to_db and amplitude_to_db; exact silence is -100 dB."""

    acts_on = "feature"
    of: str = param("power", choices=("power", "magnitude"), help="what the values are: mel and gammatone give power, stft "
                    "and cqt magnitudes")
    top_db: float = param(80.0, unit="dB", minimum=0, help="lowest value below the clip's highest; 0: no limit but -100 dB")

    def prepare(self, context: Context) -> Prepared:
        def apply(x, state, rng):
            check_powers(x)
            return decibels(x.copy() if self.of == "power" else x * x, self.top_db)

        return context.then(apply)


@dataclass(frozen=True, kw_only=True)
class Pcen(Preparer):
    """Per-channel energy normalisation (Wang et al. 2017, https://arxiv.org/abs/1607.05666) of powers or magnitudes, as
    librosa.pcen: S / (eps + M) ** gain, with M the smoothed past of S, then (… + bias) ** power - bias ** power.

    Smoothing runs over the whole clip from its beginning.
    """

    acts_on = "feature"
    scale: float = param(2.0 ** 31, minimum=0, help="values are multiplied by it first; the constants are meant for large ones")
    gain: float = param(0.98, minimum=0, help="exponent of the smoothed past that values are divided by")
    bias: float = param(2.0, minimum=0, help="added before compression; 0: none")
    power: float = param(0.5, minimum=0, help="exponent of compression; 0: logarithm")
    time_constant: float = param(0.4, unit="s", help="of the smoothing")
    eps: float = param(1e-6, help="added to the smoothed past")

    def prepare(self, context: Context) -> Prepared:
        if context.axis is None:
            raise ParameterError(f"expected features with a time axis to normalise, found shape {context.shape} without one")
        for name in ("scale", "time_constant", "eps"):
            if getattr(self, name) <= 0:
                raise ParameterError(f"expected {name} above 0, found {getattr(self, name):g}")
        from librosa import pcen  # seconds to import

        def apply(x, state, rng):
            check_powers(x)
            with np.errstate(divide="ignore"):  # without bias silence passes through log(0)
                y = pcen(S=x * np.float32(self.scale), sr=1, hop_length=context.axis.hop, gain=self.gain, bias=self.bias,
                         power=self.power, time_constant=self.time_constant, eps=self.eps)
            return np.ascontiguousarray(y, np.float32)

        return context.then(apply)


@dataclass(frozen=True, kw_only=True)
class MinMax(Preparer):
    """Scales linearly so that the training range is 0 … 1; what never varied becomes 0."""

    acts_on = "feature"
    fitted = True
    per: str = param("bin", choices=("bin", "cell", "all"), help="ranges per bin (each position but time), per cell, or one")

    def prepare(self, context: Context) -> Prepared:
        timed = context.axis is not None
        axes = {"bin": (-1,) if timed else (), "cell": (), "all": None}[self.per]

        def fit(arrays: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
            low = high = None
            for x in arrays:
                least, most = x.min(axis=axes, keepdims=True), x.max(axis=axes, keepdims=True)
                if low is not None and low.shape != least.shape:
                    raise ParameterError(f"expected training arrays of one shape for per = {self.per!r}, found {low.shape} and "
                                         f"{least.shape} (of {x.shape}); put crop_or_pad in front, or choose another per")
                low, high = (least, most) if low is None else (np.minimum(low, least), np.maximum(high, most))
            return {"minimum": low, "maximum": high}

        def fit_sums(sums: Sums) -> dict[str, np.ndarray]:
            ends = {"minimum": sums.minimum.min(axis=0), "maximum": sums.maximum.max(axis=0)}
            whole = {"minimum": np.min, "maximum": np.max}
            return {key: (end if self.per == "bin" else whole[key](end, keepdims=True))[..., None].astype(np.float32)
                    for key, end in ends.items()}

        def ranges(x, state):
            low = state["minimum"].astype(np.float64)
            width = state["maximum"] - low
            if x.ndim != low.ndim or any(fitted not in (1, found) for fitted, found in zip(low.shape, x.shape)):
                raise ClipError(f"expected an array that fits ranges of shape {low.shape}, found {x.shape}; put crop_or_pad in "
                                "front")
            return low, np.where(width == 0, 1, width)

        def apply(x, state, rng):
            low, width = ranges(x, state)
            return ((x - low) / width).astype(np.float32)

        def inverse(x, state):
            low, width = ranges(x, state)
            return (x * width + low).astype(np.float32)

        return context.then(apply, fit=fit, inverse=inverse, fit_sums=fit_sums if timed and self.per != "cell" else None)
