"""Extractors of the core: an array as it is, and a plain spectrogram. numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Axis, ClipError, Extractor, ParameterError, param


@dataclass(frozen=True, kw_only=True)
class Waveform(Extractor):
    """The array as it is, of any rank, with or without a rate: of sound [channels, n], a frame per sample."""

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: np.ascontiguousarray(x, dtype=np.float32)

    def axis(self, rate: float | None) -> Axis | None:
        return Axis(1 / rate) if rate else None


@dataclass(frozen=True, kw_only=True)
class Spectrogram(Extractor):
    """Short-time spectrum of frames that lie fully inside the clip, with a Hann window: [channels, fft // 2 + 1, frames].

    Scales: |X| "magnitude", |X|² "power", or 10 log10 of that "log" (dB, not below -100).
    """

    frame: float = param(0.032, unit="s", help="length of a frame")
    hop: float = param(0.01, unit="s", help="from the start of one frame to the start of the next")
    fft: int | None = param(None, minimum=1, unit="samples", help="of the FFT; default: the next power of two that holds a frame")
    scale: str = param("log", choices=("log", "power", "magnitude"), help="what the values are")

    def lengths(self, rate: float | None) -> tuple[int, int, int]:
        """Frame, hop and FFT in samples."""
        if not rate:
            raise ParameterError("expected sound with a sampling rate, found arrays without; use the extractor waveform")
        frame, hop = (int(seconds * rate + 0.5) for seconds in (self.frame, self.hop))
        if frame < 2 or hop < 1:
            raise ParameterError("expected a frame of at least 2 samples and a hop of at least 1; found "
                                 f"frame = {self.frame:g} s, which is {frame}, and hop = {self.hop:g} s, which is {hop}, at "
                                 f"{rate:g} Hz")
        fft = 1 << (frame - 1).bit_length() if self.fft is None else self.fft
        if fft < frame:
            raise ParameterError(f"expected an FFT that holds a frame of {frame} samples ({self.frame:g} s at {rate:g} Hz), "
                                 f"found fft = {fft}; leave fft out, or set it to {frame} or more")
        return frame, hop, fft

    def axis(self, rate: float | None) -> Axis | None:
        frame, hop, _ = self.lengths(rate)
        return Axis(hop / rate, frame / 2 / rate)

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        frame, hop, fft = self.lengths(rate)
        window = np.hanning(frame + 1)[:-1].astype(np.float32)

        def spectrogram(x: np.ndarray) -> np.ndarray:
            if x.shape[-1] < frame:
                raise ClipError(f"too short for one frame: expected at least {frame} samples ({self.frame:g} s at {rate:g} Hz), "
                                f"found {x.shape[-1]}; leave the clip out, pad it (crop_or_pad as a signal step) or shorten the "
                                "frame")
            frames = np.lib.stride_tricks.sliding_window_view(x, frame, axis=-1)[..., ::hop, :]
            out = np.empty((len(x), fft // 2 + 1, frames.shape[1]), np.float32)
            for first in range(0, frames.shape[1], 256):  # so that memory does not grow by all overlapping frames
                part = slice(first, first + 256)
                out[..., part] = np.abs(np.fft.rfft(frames[:, part] * window, fft)).swapaxes(1, 2)
            if self.scale == "magnitude":
                return out
            np.square(out, out=out)
            return out if self.scale == "power" else 10 * np.log10(np.maximum(out, np.float32(1e-10)))

        return spectrogram
