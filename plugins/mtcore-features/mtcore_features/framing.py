"""Frames and their spectra: what all extractors here share.

Frame and hop are given in seconds, so that one setting serves all rates; the FFT's length is in samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.fft import rfft

from mtcore.plugin import ClipError, Extractor, ParameterError, param

BLOCK = 64  # frames at a time: their spectra stay in the processor's cache


class Lengths(NamedTuple):
    """In samples."""

    frame: int
    hop: int
    fft: int


def known(rate: float | None) -> float:
    """The rate; `ParameterError` where there is none."""
    if not rate:
        raise ParameterError("expected sound with a sampling rate, found arrays without; use an extractor such as waveform")
    return rate


def check_length(x: np.ndarray, least: int, rate: float, what: str = "one frame",
                 instead: str = " or take a shorter frame") -> None:
    """Raise `ClipError` unless the sound has at least `least` samples."""
    if x.shape[-1] < least:
        raise ClipError(f"too short for {what}: expected at least {least} samples ({least / rate:g} s at {rate:g} Hz), found "
                        f"{x.shape[-1]}; leave the clip out, pad it (crop_or_pad as a signal step){instead}")


@dataclass(frozen=True, kw_only=True)
class Framed(Extractor):
    """An extractor that cuts sound into frames."""

    frame: float = param(0.032, unit="s", help="length of a frame")
    hop: float = param(0.01, unit="s", help="from the start of one frame to the start of the next")
    fft: int | None = param(None, minimum=1, unit="samples", help="of the FFT; default: the next power of two that holds a frame")

    def lengths(self, rate: float | None) -> Lengths:
        """Frame, hop and FFT in samples at `rate`; halves are rounded up."""
        rate = known(rate)
        frame, hop = (int(seconds * rate + 0.5) for seconds in (self.frame, self.hop))
        if frame < 2 or hop < 1:
            raise ParameterError("expected a frame of at least 2 samples and a hop of at least 1; found "
                                 f"frame = {self.frame:g} s, which is {frame}, and hop = {self.hop:g} s, which is {hop}, at "
                                 f"{rate:g} Hz")
        fft = 1 << (frame - 1).bit_length() if self.fft is None else self.fft
        if fft < frame:
            raise ParameterError(f"expected an FFT that holds a frame of {frame} samples ({self.frame:g} s at {rate:g} Hz), "
                                 f"found fft = {fft}; leave fft out, or set it to {frame} or more, or frame to {fft / rate:g} s "
                                 "or less")
        return Lengths(frame, hop, fft)


@dataclass(frozen=True, kw_only=True)
class Filters(Framed):
    """An extractor with a bank of filters on the mel scale."""

    filters: int = param(64, minimum=1, help="number of mel filters")
    fmin: float = param(0.0, unit="Hz", minimum=0, help="lower edge of the lowest filter")
    fmax: float | None = param(None, unit="Hz", help="upper edge of the highest filter; default: half the rate")

    def edges(self, rate: float) -> tuple[float, float]:
        """`fmin` and `fmax` in Hz."""
        fmax = rate / 2 if self.fmax is None else self.fmax
        if not 0 <= self.fmin < fmax <= rate / 2:
            raise ParameterError(f"expected 0 <= fmin < fmax <= {rate / 2:g} Hz, half the rate; found fmin = {self.fmin:g}, "
                                 f"fmax = {fmax:g}")
        return self.fmin, fmax

    def filled(self, bank: np.ndarray, rate: float) -> np.ndarray:
        """The bank [filters, bins] if every filter holds a bin: an empty one would be a constant in every feature."""
        fft = self.lengths(rate).fft
        empty = np.flatnonzero(bank.max(axis=1) == 0)
        if len(empty):
            raise ParameterError(f"expected every filter to hold a bin of the FFT, found {len(empty)} of {self.filters} empty "
                                 f"(the first: filter {empty[0] + 1}) with fft = {fft} at {rate:g} Hz; take fewer filters, or "
                                 f"fft = {2 * fft} or more")
        return bank


def spectra(x: np.ndarray, window: np.ndarray, hop: int, fft: int, before: int,
            frames: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Spectra of a signal float32 [n], a block of frames at a time: (first, stop, complex64 [stop - first, fft // 2 + 1]).

    Frame k begins at sample k * hop - before; outside the signal are zeros. `window` is as long as a frame.
    """
    size = len(window)
    padded = np.zeros(max(before + len(x), (frames - 1) * hop + size), np.float32)
    padded[before:before + len(x)] = x
    cut = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    block = np.zeros((BLOCK, fft), np.float32)
    for first in range(0, frames, BLOCK):
        stop = min(first + BLOCK, frames)
        np.multiply(cut[first:stop], window, out=block[:stop - first, :size])
        yield first, stop, rfft(block[:stop - first])


def power(spectrum: np.ndarray) -> np.ndarray:
    """Squared magnitudes of a complex array, which is overwritten."""
    pairs = spectrum.view(np.float32)
    np.multiply(pairs, pairs, out=pairs)
    return pairs[:, ::2] + pairs[:, 1::2]
