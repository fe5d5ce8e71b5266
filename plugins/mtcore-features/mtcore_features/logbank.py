"""Log filter bank energies as speech recognition computes them, equal to python_speech_features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Axis, param

from .framing import Filters, check_length, power, spectra
from .statistics import statistics

SILENCE = float(np.finfo(np.float64).eps)  # energy that exact silence counts as


@dataclass(frozen=True, kw_only=True)
class Logbank(Filters):
    """Natural logarithm of the energies in triangular mel filters, of frames without a window: [channels, filters, frames].

    The mel scale is 2595 log10(1 + f / 700) (O'Shaughnessy 1987); corners lie on bins of the FFT. Energies are |X|² / fft. The
    last frame is filled up with zeros.
    """

    frame: float = param(0.03, unit="s", help="length of a frame")
    filters: int = param(24, minimum=1, help="number of mel filters")
    preemphasis: float = param(0.97, minimum=0, maximum=1, help="share of the previous sample that is taken off; 0: none")

    def axis(self, rate: float | None) -> Axis | None:
        frame, hop, _ = self.lengths(rate)
        return Axis(hop / rate, (frame - 1) / 2 / rate)

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        frame, hop, fft = self.lengths(rate)
        bank = self.filled(triangles(self.filters, fft, rate, *self.edges(rate)), rate)
        window = np.ones(frame, np.float32)

        def logbank(x: np.ndarray) -> np.ndarray:
            check_length(x, frame, rate)
            emphasised = x.copy()
            emphasised[:, 1:] -= np.float32(self.preemphasis) * x[:, :-1]
            frames = 1 - (frame - x.shape[-1]) // hop
            out = np.empty((len(x), self.filters, frames), np.float32)
            for channel, result in zip(emphasised, out):
                for first, stop, spectrum in spectra(channel, window, hop, fft, 0, frames):
                    np.matmul(bank, power(spectrum).T, out=result[:, first:stop])
            out[out == 0] = SILENCE
            return np.log(out, out=out)

        return logbank


@dataclass(frozen=True, kw_only=True)
class LogbankSummary(Logbank):
    """Minimum, maximum, deviation, mean, median, 25th and 75th percentile over the frames of each log filter bank energy:
    [channels, 7 * filters], all filters of the first statistic, then of the next (Georgiev et al. 2017,
    https://doi.org/10.1145/3131895)."""

    def axis(self, rate: float | None) -> None:
        return None

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        logbank = super().prepare(rate)
        return lambda x: statistics(logbank(x))


def triangles(filters: int, fft: int, rate: float, fmin: float, fmax: float) -> np.ndarray:
    """Triangular filters [filters, fft // 2 + 1] with corners on bins, divided by `fft`."""
    low, high = 2595 * np.log10(1 + np.array([fmin, fmax]) / 700)
    hertz = 700 * (10 ** (np.linspace(low, high, filters + 2) / 2595) - 1)
    corners = np.floor((fft + 1) * hertz / rate)[:, None]
    left, top, right, bins = corners[:-2], corners[1:-1], corners[2:], np.arange(fft // 2 + 1)
    rising = np.where((left <= bins) & (bins < top), (bins - left) / np.maximum(top - left, 1), 0)
    falling = np.where((top <= bins) & (bins < right), (right - bins) / np.maximum(right - top, 1), 0)
    return ((rising + falling) / fft).astype(np.float32)
