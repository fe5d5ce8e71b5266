"""Sound made into a picture, so that what works on pictures works on sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtcore.plugin import ClipError, Context, ParameterError, Prepared, Preparer, param

__all__ = ["Sonogram"]


@dataclass(frozen=True, kw_only=True)
class Sonogram(Preparer):
    """Levels by frequency, from the bottom up, and time: sound [channels, n] to a picture [channels, frame // 2 + 1, frames].

    Grey values are 1 where the clip is loudest and 0 where it is `depth` or more below. Frames lie fully inside the clip, under a
    Hann window. The picture has no rate and no time axis, so that its width is one of pixels.
    """

    frame: float = param(0.032, unit="s", help="length of a frame")
    hop: float = param(0.016, unit="s", help="from the start of one frame to the start of the next")
    depth: float = param(60.0, unit="dB", minimum=1, help="level below the clip's loudest that is drawn as 0")

    def prepare(self, context: Context) -> Prepared:
        rate = context.rate
        if not rate:
            raise ParameterError("expected sound with a sampling rate, found arrays without; a picture needs no sonogram")
        frame, hop = round(self.frame * rate), round(self.hop * rate)
        if frame < 2 or hop < 1:
            raise ParameterError("expected a frame of at least 2 samples and a hop of at least 1; found "
                                 f"{frame} and {hop} at {rate:g} Hz")
        window = np.hanning(frame + 1)[:-1]

        def apply(x, state, rng):
            if x.shape[-1] < frame:
                raise ClipError(f"too short for one frame: expected at least {frame} samples, found {x.shape[-1]}")
            frames = np.lib.stride_tricks.sliding_window_view(x, frame, axis=-1)[..., ::hop, :]
            power = np.square(np.abs(np.fft.rfft(frames * window))).swapaxes(-1, -2)[..., ::-1, :]
            below = 10 * np.log10(np.maximum(power / (power.max() or 1.0), 10 ** (-self.depth / 10)))
            return (1 + below / self.depth).astype(np.float32)

        return context.then(apply, shape=(*context.shape[:-1], frame // 2 + 1, None), rate=None)
