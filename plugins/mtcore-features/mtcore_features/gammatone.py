"""A filter bank after the inner ear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import param

from .framing import Filters, power
from .spectral import Centred

EAR_Q, NARROWEST = 9.26449, 24.7
"""Equivalent rectangular bandwidth at f Hz: f / EAR_Q + NARROWEST Hz (Glasberg and Moore 1990)."""
ROOT = 2 ** 0.5


@dataclass(frozen=True, kw_only=True)
class Gammatone(Centred, Filters):
    """Power in gammatone filters of fourth order, each with gain 1 at its centre: [channels, filters, frames].

    Filters as in Slaney, "An efficient implementation of the Patterson-Holdsworth auditory filter bank" (Apple Technical Report
    35, 1993), their squared responses weighting the power spectrum, as in Ellis, "Gammatone-like spectrograms" (2009). Centres
    lie evenly on the scale of equivalent rectangular bandwidths, the lowest at `fmin`, the highest one step below `fmax`.
    """

    filters: int = param(64, minimum=1, help="number of gammatone filters")
    fmin: float = param(50.0, unit="Hz", minimum=0, help="centre of the lowest filter")
    fmax: float | None = param(None, unit="Hz", help="where the centre after the highest would lie; default: half the rate")

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        fft = self.lengths(rate).fft
        bank = responses(centres(self.filters, *self.edges(rate)), np.arange(fft // 2 + 1) * rate / fft, rate).astype(np.float32)
        return self._over_frames(rate, self.filters, lambda spectrum, out: np.matmul(bank, power(spectrum).T, out=out))


def centres(filters: int, fmin: float, fmax: float) -> np.ndarray:
    """Frequencies in Hz from `fmin` up to, without, `fmax`, evenly spaced in equivalent rectangular bandwidths."""
    shift = EAR_Q * NARROWEST
    return np.geomspace(fmin + shift, fmax + shift, filters, endpoint=False) - shift


def responses(middles: np.ndarray, hertz: np.ndarray, rate: float) -> np.ndarray:
    """Squared magnitudes [filters, frequencies] at `hertz` of the filters centred at `middles`.

    A filter is four sections with one pair of poles and one real zero each. Distances to them are taken directly: the
    coefficients of the product of the sections lose all digits for low filters at high rates.
    """
    turn = 2 * np.pi / rate
    radius = np.exp(-1.019 * turn * (middles / EAR_Q + NARROWEST))[:, None]
    angle = turn * middles[:, None]
    zeros = [radius * (np.cos(angle) + factor * np.sin(angle)) for factor in (1 + ROOT, -1 - ROOT, ROOT - 1, 1 - ROOT)]
    pole = radius * np.exp(1j * angle)

    def gain(z: np.ndarray) -> np.ndarray:
        return np.prod([np.abs(z - zero) for zero in zeros], axis=0) / (np.abs(z - pole) * np.abs(z - pole.conj())) ** 4

    return (gain(np.exp(1j * turn * hertz)) / gain(np.exp(1j * angle))) ** 2
