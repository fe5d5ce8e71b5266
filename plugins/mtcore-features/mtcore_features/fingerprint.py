"""A fingerprint: what two copies of one recording share, and two recordings of the same kind of sound do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Extractor, ParameterError, param

from .framing import check_length, known, power, spectra

FRAME, HOP = 0.064, 0.016  # seconds


@dataclass(frozen=True, kw_only=True)
class Fingerprint(Extractor):
    """How the energy of bands goes up and down against each other: [channels, bands * slots], each of length 1; zeros where
    nothing does.

    Log energies in bands of equal ratio, averaged over slots of equal length, without what is constant over
    time or common to all bands: gain, level and colouring are gone, and the cosine of two fingerprints is the correlation of what
    is left. That energy differences over bands and time survive coding, filtering and small shifts is the finding of Haitsma and
    Kalker (2002), A highly robust audio fingerprinting system, ISMIR; slots that stretch with the clip make their sequence one vector.
    """

    bands: int = param(24, minimum=4, help="number of bands")
    slots: int = param(32, minimum=4, help="number of stretches of time; as many for a short clip as for a long one")
    fmin: float = param(200.0, unit="Hz", minimum=50, help="lower edge of the lowest band")
    fmax: float = param(3000.0, unit="Hz", help="upper edge of the highest band, below what any copy may have lost")
    blur: float = param(0.25, unit="s", minimum=0, help="shortest stretch that a slot is averaged over: longer ones forgive "
                                                                "larger shifts")
    floor: float = param(50.0, unit="dB", minimum=0, help="what is so far below the strongest is not told apart")

    def axis(self, rate: float | None) -> None:
        return None

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        rate = known(rate)
        if not self.fmin < self.fmax <= rate / 2:
            raise ParameterError(f"expected fmin < fmax <= {rate / 2:g} Hz, half the rate; found fmin = {self.fmin:g}, "
                                 f"fmax = {self.fmax:g}")
        frame, hop = (int(seconds * rate + 0.5) for seconds in (FRAME, HOP))
        window = np.hanning(frame + 1)[:-1].astype(np.float32)
        bank = self._bank(np.arange(frame // 2 + 1) * rate / frame)
        if not bank.any(axis=1).all():
            raise ParameterError(f"expected bands that hold a bin of {rate / frame:.1f} Hz each, found empty ones; take "
                                 f"fewer bands than {self.bands}, or another fmin or fmax")

        def extract(x: np.ndarray) -> np.ndarray:
            check_length(x, frame, rate)
            frames = 1 + (x.shape[-1] - frame) // hop
            slots, energy = self._slots(frames), np.empty((self.bands, frames), np.float32)
            out = np.zeros((len(x), self.bands * self.slots), np.float32)
            for channel, result in zip(x, out):
                for first, stop, spectrum in spectra(channel, window, hop, frame, 0, frames):
                    energy[:, first:stop] = bank @ power(spectrum).T
                if highest := energy.max():
                    level = np.log((energy / highest) @ slots + 10 ** (-self.floor / 10))
                    level -= level.mean(axis=1, keepdims=True)
                    level -= level.mean(axis=0)
                    length = np.linalg.norm(level)
                    result[:] = level.ravel() / length if length > 1e-3 else 0
            return out

        return extract

    def _bank(self, frequencies: np.ndarray) -> np.ndarray:
        """[bands, bins]: triangles over the logarithm of frequency."""
        edges = np.geomspace(self.fmin, self.fmax, self.bands + 2)[:, None]
        place = np.log(np.maximum(frequencies, 1))
        low, centre, high = np.log(edges[:-2]), np.log(edges[1:-1]), np.log(edges[2:])
        return np.maximum(np.minimum((place - low) / (centre - low), (high - place) / (high - centre)), 0).astype(np.float32)

    def _slots(self, frames: int) -> np.ndarray:
        """[frames, slots]: Hann windows that overlap by half, or are as long as `blur`."""
        width = max(2 * frames / self.slots, self.blur / HOP, 2)
        centres = (np.arange(self.slots) + 0.5) * frames / self.slots
        place = np.clip((np.arange(frames)[:, None] + 0.5 - centres) / width, -0.5, 0.5)
        weights = 0.5 + 0.5 * np.cos(2 * np.pi * place)
        return (weights / weights.sum(axis=0)).astype(np.float32)
