"""Steps of the core: channels, length and scale. numpy only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import ClipError, Context, Moved, ParameterError, Prepared, Preparer, Sums, param


@dataclass(frozen=True, kw_only=True)
class Mono(Preparer):
    """Mean of the channels: [channels, n] -> [1, n]."""

    def prepare(self, context: Context) -> Prepared:
        if len(context.shape) != 2 or not context.rate:
            raise ParameterError(f"expected sound [channels, n] with a rate, found shape {context.shape}"
                                 + ("" if context.rate else " without one"))
        return context.then(lambda x, state, rng: x.mean(axis=0, keepdims=True) if len(x) > 1 else x,
                            shape=(1, context.shape[1]))


@dataclass(frozen=True, kw_only=True)
class CropOrPad(Preparer):
    """One length for all: longer arrays are cropped, shorter ones get zeros at the end."""

    acts_on = ("signal", "feature")
    length: int | str = param(minimum=1, help='samples, frames, seconds ("3s"), or min, median or max of the training clips')
    where: str = param("start", choices=("start", "center"), help="which part of a longer array is kept")

    @property
    def fitted(self) -> bool:
        return self.length in ("min", "median", "max")

    def prepare(self, context: Context) -> Prepared:
        if not context.rate and context.axis is None:
            raise ParameterError(f"expected arrays with a time axis, found shape {context.shape} without one")
        hop = context.axis.hop if context.axis else 1 / context.rate
        length = None if self.fitted else self._frames(hop)

        def apply(x, state, rng):
            found, wanted = x.shape[-1], length or int(state["length"])
            if found < wanted:
                out = np.zeros((*x.shape[:-1], wanted), x.dtype)
                out[..., :found] = x
                return out
            first = (found - wanted) // 2 if self.where == "center" else 0
            kept = np.ascontiguousarray(x[..., first:first + wanted])
            return Moved(kept, by=first * hop) if first else kept

        if length:
            return context.then(apply, shape=(*context.shape[:-1], length))
        return context.then(apply, shape=lambda state: (*context.shape[:-1], int(state["length"])),
                            fit=lambda arrays: self._state([x.shape[-1] for x in arrays]),
                            fit_sums=lambda sums: self._state(sums.count))

    def _frames(self, hop: float) -> int:
        seconds = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*s", self.length) if isinstance(self.length, str) else None
        if isinstance(self.length, str) and not seconds:
            raise ParameterError('expected length as a whole number of samples or frames, as seconds such as "3s", or as one of '
                                 f"min, median and max; found {self.length!r}")
        frames = round(float(seconds[1]) / hop) if seconds else self.length
        if frames < 1:
            raise ParameterError(f"expected a length of at least one sample or frame, found {self.length!r} (one is {hop:g} s)")
        return frames

    def _state(self, lengths) -> dict[str, np.ndarray]:
        """The median of an even number of clips may lie between two frames: the frame below."""
        return {"length": np.array(int({"min": np.min, "median": np.median, "max": np.max}[self.length](lengths)))}


@dataclass(frozen=True, kw_only=True)
class Standardize(Preparer):
    """Zero mean and unit deviation over the training clips; what never varied becomes 0.

    Clips weigh by their frames. Moments of single arrays are joined in float64 after Chan, Golub and LeVeque (1983),
    https://doi.org/10.1080/00031305.1983.10483115.
    """

    acts_on = "feature"
    fitted = batched = True
    per: str = param("bin", choices=("bin", "cell", "all"), help="moments per bin (each position but time), per cell, or of all")

    def prepare(self, context: Context) -> Prepared:
        timed = context.axis is not None
        axes = {"bin": (-1,) if timed else (), "cell": (), "all": None}[self.per]

        def fit(arrays: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
            total, mean, squares = 0, None, None
            for x in arrays:
                x = x.astype(np.float64)
                own = x.mean(axis=axes, keepdims=True)
                own_squares = np.square(x - own).sum(axis=axes, keepdims=True)
                if mean is None:
                    mean, squares = np.zeros_like(own), np.zeros_like(own)
                if own.shape != mean.shape:
                    raise ParameterError(f"expected training arrays of one shape for per = {self.per!r}, found {mean.shape} and "
                                         f"{own.shape} (of {x.shape}); put crop_or_pad in front, or choose another per")
                count = x.size // own.size
                difference, share = own - mean, count / (total + count)
                mean = mean + difference * share
                squares = squares + own_squares + np.square(difference) * (total * share)
                total += count
            return _moments(mean, squares / total)

        def fit_sums(sums: Sums) -> dict[str, np.ndarray]:
            if self.per == "all":
                over = tuple(range(1, sums.sum.ndim))
                count = sums.count * np.prod(sums.sum.shape[1:], dtype=int)
                sum_, squares = sums.sum.sum(axis=over, keepdims=True), sums.squares.sum(axis=over, keepdims=True)
            else:
                count, sum_, squares = sums.count, sums.sum, sums.squares
            count = count.reshape(-1, *[1] * (sum_.ndim - 1)).astype(np.float64)
            mean = sum_.sum(axis=0) / count.sum()
            inside = np.square(sum_)  # in place from here on: memory costs more than sums
            inside /= count
            np.maximum(np.subtract(squares, inside, out=inside), 0, out=inside)
            between = sum_ / count
            between -= mean
            np.square(between, out=between)
            between *= count
            between += inside
            return _moments(mean[..., None], between.sum(axis=0)[..., None] / count.sum())

        known: tuple = (None, None, [], [])

        def apply(x, state, rng, out=None):
            nonlocal known
            if known[0] is not state["mean"] or known[1] is not state["deviation"]:
                known = state["mean"], state["deviation"], _single(**state), []
            single, tensors = known[2:]
            if out is None:
                return _scaled(np.subtract, None, _fits(x, state), *single)
            import torch  # the same bits, from memory to memory in half of numpy's time; a batch needs it anyway

            tensors[:] = tensors or map(torch.from_numpy, single)
            _scaled(torch.sub, torch.from_numpy(out), torch.from_numpy(_fits(x, state)), *tensors)
            return out

        def inverse(x, state):
            return (_fits(x, state) * state["deviation"] + state["mean"]).astype(np.float32)

        return context.then(apply, fit=fit, inverse=inverse, fit_sums=fit_sums if timed and self.per != "cell" else None)


def _moments(mean: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    deviation = np.sqrt(variance)
    deviation[deviation <= 1e-7 * np.abs(mean)] = 1  # below float32's resolution: constant but for rounding
    return {"mean": mean, "deviation": deviation}


def _single(mean: np.ndarray, deviation: np.ndarray) -> list[np.ndarray]:
    """In float32: the mean, what is lost of it if that is more than a millionth of the deviation anywhere, and 1 / deviation."""
    near, scale = mean.astype(np.float32), (1 / np.maximum(deviation, 1e-38)).astype(np.float32)
    lost = mean - near
    return [near, lost.astype(np.float32), scale] if (np.abs(lost) > 1e-6 * deviation).any() else [near, scale]


def _scaled(subtract, out, x, near, *more):
    scaled = subtract(x, near, out=out)
    for lost in more[:-1]:
        scaled -= lost
    scaled *= more[-1]
    return scaled


def _fits(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    fitted = state["mean"].shape
    if x.ndim != len(fitted) or any(size not in (1, found) for size, found in zip(fitted, x.shape)):
        raise ClipError(f"expected an array that fits moments of shape {fitted}, found {x.shape}; put crop_or_pad in front")
    return x
