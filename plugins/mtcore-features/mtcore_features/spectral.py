"""Spectra, mel spectra and cepstra, equal to librosa's with centred frames and zeros outside the signal."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.fft import dct

from mtcore.plugin import Axis, ParameterError, param

from .framing import Filters, Framed, check_length, power, spectra

DECIBEL = 10 / math.log(10)
FLOOR = 1e-10  # power that silence counts as, -100 dB, as in librosa.power_to_db


class Centred(Framed):
    """Frame k has its centre at k * hop; a Hann window (periodic) as long as the frame."""

    def axis(self, rate: float | None) -> Axis:
        return Axis(self.lengths(rate).hop / rate, 0.0)

    def _over_frames(self, rate: float, rows: int, reduce: Callable) -> Callable[[np.ndarray], np.ndarray]:
        """A function [channels, n] -> [channels, rows, frames]; `reduce(spectrum [block, bins], out [rows, block])` fills it."""
        frame, hop, fft = self.lengths(rate)
        window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)).astype(np.float32)
        before = fft // 2 - (fft - frame) // 2

        def extract(x: np.ndarray) -> np.ndarray:
            check_length(x, frame, rate)
            frames = 1 + (x.shape[-1] - fft % 2) // hop
            out = np.empty((len(x), rows, frames), np.float32)
            for channel, result in zip(x, out):
                for first, stop, spectrum in spectra(channel, window, hop, fft, before, frames):
                    reduce(spectrum, result[:, first:stop])
            return out

        return extract


@dataclass(frozen=True, kw_only=True)
class Stft(Centred):
    """Magnitudes of the short-time Fourier transform: [channels, fft // 2 + 1, frames]."""

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        return self._over_frames(rate, self.lengths(rate).fft // 2 + 1, lambda spectrum, out: np.abs(spectrum.T, out=out))


@dataclass(frozen=True, kw_only=True)
class Mel(Centred, Filters):
    """Power in mel filters (Slaney's scale and area normalisation, Auditory Toolbox 1998): [channels, filters, frames]."""

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        bank = self._bank(rate)
        return self._over_frames(rate, self.filters, lambda spectrum, out: np.matmul(bank, power(spectrum).T, out=out))

    def _bank(self, rate: float | None) -> np.ndarray:
        fft = self.lengths(rate).fft
        fmin, fmax = self.edges(rate)
        from librosa.filters import mel  # seconds to import
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about empty filters, which are an error here
            return self.filled(mel(sr=rate, n_fft=fft, n_mels=self.filters, fmin=fmin, fmax=fmax), rate)


@dataclass(frozen=True, kw_only=True)
class LogMel(Mel):
    """Power in mel filters in dB relative to 1: [channels, filters, frames]."""

    top_db: float = param(80.0, unit="dB", minimum=0, help="lowest value below the clip's highest; 0: no limit but -100 dB")

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        mel = super().prepare(rate)
        return lambda x: decibels(mel(x), self.top_db)


@dataclass(frozen=True, kw_only=True)
class Mfcc(LogMel):
    """Cepstral coefficients (DCT-II, orthonormal, of the log-mel spectrum): [channels, (1 + deltas) * coefficients, frames].

    Deltas are slopes of polynomials fitted to `width` frames (Savitzky and Golay 1964), as in librosa.feature.delta.
    """

    coefficients: int = param(20, minimum=1, help="number of coefficients, the zeroth included")
    deltas: int = param(0, choices=(0, 1, 2), help="1 stacks the first derivative below the coefficients, 2 the second too")
    width: int = param(9, unit="frames", minimum=3, help="odd number of frames that a derivative looks at")

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        if self.coefficients > self.filters:
            raise ParameterError(f"expected at most as many coefficients as filters ({self.filters}), found {self.coefficients}")
        if self.width % 2 == 0 or self.width < 3:
            raise ParameterError(f"expected an odd width of at least 3 frames, found {self.width}")
        logmel, (frame, hop, fft) = super().prepare(rate), self.lengths(rate)
        basis = dct(np.eye(self.filters), type=2, axis=0, norm="ortho")[:self.coefficients].astype(np.float32)
        least = max(frame, (self.width - 1) * hop + fft % 2) if self.deltas else frame
        fits = [polynomials(self.width, order) for order in range(1, self.deltas + 1)]

        def mfcc(x: np.ndarray) -> np.ndarray:
            check_length(x, least, rate, f"deltas over {self.width} frames" if self.deltas else "one frame")
            cepstra = basis @ logmel(x)
            return np.concatenate([cepstra, *(derivative(cepstra, fit) for fit in fits)], axis=1) if fits else cepstra

        return mfcc


def polynomials(width: int, order: int) -> np.ndarray:
    """[width, width]: row i takes `width` frames to the derivative at frame i of the polynomial of this order through them."""
    from scipy.signal import savgol_filter  # half a second to import
    return savgol_filter(np.eye(width), width, polyorder=order, deriv=order, axis=0).astype(np.float32)


def derivative(x: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """Over the last axis; at both ends that of the first and last whole polynomial."""
    width, half = len(fit), len(fit) // 2
    out = np.empty_like(x)
    out[..., half:-half] = np.lib.stride_tricks.sliding_window_view(x, width, axis=-1) @ fit[half]
    out[..., :half] = x[..., :width] @ fit[:half].T
    out[..., -half:] = x[..., -width:] @ fit[-half:].T
    return out


def decibels(x: np.ndarray, top_db: float) -> np.ndarray:
    """Power, which is overwritten, in dB; not less than `top_db` below the highest value unless that is 0."""
    np.maximum(x, FLOOR, out=x)
    np.log(x, out=x)  # numpy has a vectorised float32 log, but no such log10
    x *= DECIBEL
    return np.maximum(x, x.max() - np.float32(top_db), out=x) if top_db else x
