"""Masks on features: float32 […, bins, frames]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Context, ParameterError, Prepared, param

from .ranges import Augmentation, frames_of


@dataclass(frozen=True, kw_only=True)
class SpecAugment(Augmentation):
    """Hides random bands and stretches of time, in all channels alike, after Park et al. (2019),
    https://doi.org/10.21437/Interspeech.2019-2680, without their time warping. Widths are drawn evenly from 0 to the widest,
    then places."""

    acts_on = "feature"
    bands: int = param(2, minimum=0, help="how many masks in frequency")
    bins: int = param(8, minimum=0, help="the widest of them, in bins")
    stretches: int = param(2, minimum=0, help="how many masks in time")
    frames: int | str = param("0.3s", minimum=1, help='the widest of them: frames, or seconds such as "0.3s"')
    share: float = param(0.2, minimum=0, maximum=1, help="of the clip's frames, at most, in one mask in time")
    fill: str = param("mean", choices=("mean", "zero"), help="what is written: the clip's mean or zero")

    def prepare(self, context: Context) -> Prepared:
        if context.axis is None or len(context.shape) < 2:
            raise ParameterError(f"expected features […, bins, frames] with a time axis, found shape {context.shape}, "
                                 f"axis {context.axis}; put the step behind an extractor such as logmel")
        if self.bands and context.shape[-2] is not None and self.bins > context.shape[-2]:
            raise ParameterError(f"expected bins of at most {context.shape[-2]}, as many as the features have; found {self.bins}")
        widest = frames_of(self.frames, "frames", context.axis.hop)

        def apply(x, state, rng):
            y, value = x.copy(), np.float32(x.mean(dtype=np.float64)) if self.fill == "mean" else 0
            bins, frames = x.shape[-2:]
            for first, width in _masks(rng, self.bands, self.bins, bins):
                y[..., first:first + width, :] = value
            for first, width in _masks(rng, self.stretches, min(widest, int(self.share * frames)), frames):
                y[..., first:first + width] = value
            return y

        return context.then(apply)


def _masks(rng: np.random.Generator, count: int, widest: int, size: int):
    """(first, width) of each mask, inside 0 … size."""
    for _ in range(count):
        width = int(rng.integers(min(widest, size) + 1))
        yield int(rng.integers(size - width + 1)), width
