"""Spectra on musical scales, equal to librosa's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Axis, Extractor, ParameterError, param

from .framing import check_length, known, power
from .spectral import Centred


@dataclass(frozen=True, kw_only=True)
class Cqt(Extractor):
    """Magnitudes of the constant-Q transform (Schörkhuber and Klapuri 2010, as librosa.cqt): [channels, bins, frames]; with
    `gamma` above 0 of the variable-Q transform (Schörkhuber et al. 2014, as librosa.vqt).

    Bin b lies at fmin * 2 ** (b / per_octave) Hz. Frame k has its centre at k * hop, with zeros outside the clip; the lowest
    bin's filter is the longest (0.5 s by default), and a clip shorter than it is an error.
    """

    hop: float = param(0.01, unit="s", help="from one frame to the next; an odd number of samples makes it slow")
    fmin: float = param(32.70319566257483, unit="Hz", minimum=1, help="lowest bin; default: the note C1")
    bins: int = param(84, minimum=2, help="number of bins")
    per_octave: int = param(12, minimum=1, help="bins per octave")
    gamma: float = param(0.0, unit="Hz", minimum=0, help="widens all filters, which shortens the low ones; 0: constant Q")

    def _hop(self, rate: float | None) -> int:
        hop = int(self.hop * known(rate) + 0.5)
        if hop < 1:
            raise ParameterError(f"expected a hop of at least one sample at {rate:g} Hz, found {self.hop:g} s")
        return hop

    def axis(self, rate: float | None) -> Axis:
        return Axis(self._hop(rate) / rate, 0.0)

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        hop = self._hop(rate)
        from librosa import vqt  # seconds to import
        from librosa.filters import wavelet_lengths

        frequencies = self.fmin * 2 ** (np.arange(self.bins) / self.per_octave)
        lengths, top = wavelet_lengths(freqs=frequencies, sr=rate, gamma=self.gamma)
        if top > rate / 2:
            raise ParameterError(f"expected every filter below {rate / 2:g} Hz, half the rate; found the last of {self.bins} "
                                 f"bins at {frequencies[-1]:g} Hz, which reaches {top:g} Hz; take fewer bins or a lower fmin")
        least = math.ceil(lengths.max())

        def cqt(x: np.ndarray) -> np.ndarray:
            check_length(x, least, rate, f"the filter at {self.fmin:g} Hz", " or raise fmin or gamma")
            # the FFT of the longest filter is up to twice as long, and librosa warns when the sound is shorter than that
            padded = np.pad(x, ((0, 0), (0, max(0, 2 * least - x.shape[-1]))))
            found = vqt(y=padded, sr=rate, hop_length=hop, fmin=self.fmin, n_bins=self.bins, bins_per_octave=self.per_octave,
                        gamma=self.gamma)
            return np.ascontiguousarray(np.abs(found[..., :1 + x.shape[-1] // hop]))

        return cqt


@dataclass(frozen=True, kw_only=True)
class Chroma(Centred):
    """Power per pitch class (Ellis 2007, as librosa.feature.chroma_stft), in each frame relative to the strongest:
    [channels, bins, frames]; the first class is C. A silent frame is zero."""

    frame: float = param(0.1, unit="s", help="length of a frame")
    bins: int = param(12, minimum=2, help="pitch classes per octave")
    tuning: float = param(0.0, unit="bins", help="how far the music lies above A4 = 440 Hz")

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        fft = self.lengths(rate).fft
        from librosa.filters import chroma  # seconds to import
        from librosa.util import normalize

        bank = chroma(sr=rate, n_fft=fft, n_chroma=self.bins, tuning=self.tuning)
        powers = self._over_frames(rate, self.bins, lambda spectrum, out: np.matmul(bank, power(spectrum).T, out=out))
        return lambda x: normalize(S=powers(x), norm=np.inf, axis=-2)
