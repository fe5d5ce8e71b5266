"""Steps that change the samples' level or spectrum: float32 [channels, n], all channels alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Context, ParameterError, Prepared, param

from .ranges import Augmentation, sound


@dataclass(frozen=True, kw_only=True)
class Gain(Augmentation):
    """Every sample times 10^(gain / 20), `gain` drawn evenly. Nothing is clipped."""

    gain: tuple[float, float] = param((-6.0, 6.0), unit="dB", help="lowest and highest")

    def prepare(self, context: Context) -> Prepared:
        sound(context)
        return context.then(lambda x, state, rng: x * np.float32(10 ** (rng.uniform(*self.gain) / 20)))


@dataclass(frozen=True, kw_only=True)
class Polarity(Augmentation):
    """The sign of all samples is turned in one clip of two. With a lower `p` it is in fewer."""

    def prepare(self, context: Context) -> Prepared:
        sound(context)
        return context.then(lambda x, state, rng: -x if rng.random() < 0.5 else x)


@dataclass(frozen=True, kw_only=True)
class Clipping(Augmentation):
    """Samples beyond a threshold are set to it, as an overdriven recorder does."""

    level: tuple[float, float] = param((-12.0, 0.0), unit="dB", maximum=0, help="lowest and highest; 0 is the clip's peak")

    def prepare(self, context: Context) -> Prepared:
        sound(context)

        def apply(x, state, rng):
            most = np.abs(x).max(initial=0) * np.float32(10 ** (rng.uniform(*self.level) / 20))
            return np.clip(x, -most, most)

        return context.then(apply)


@dataclass(frozen=True, kw_only=True)
class Filter(Augmentation):
    """A Butterworth filter of 12 dB per octave, applied forwards and backwards: no delay, 24 dB per octave, -6 dB at the cutoff.

    Cutoffs are drawn evenly in octaves; a band has two of them, at least an octave apart.
    """

    kinds: tuple[str, ...] = param(("low", "high", "band"), choices=("low", "high", "band"), help="what passes, drawn")
    cutoff: tuple[float, float] = param((200.0, 3000.0), unit="Hz", help="lowest and highest")

    def prepare(self, context: Context) -> Prepared:
        rate = sound(context)
        low, high = self.cutoff
        if not self.kinds:
            raise ParameterError("expected kinds out of low, high and band; found none")
        if not 0 < low <= high < rate / 2:
            raise ParameterError(f"expected cutoff above 0 and below half the rate, {rate / 2:g} Hz; found {list(self.cutoff)}")
        if "band" in self.kinds and high < 2 * low:
            raise ParameterError(f"expected a cutoff range of at least an octave for a band, found {list(self.cutoff)}")
        from scipy.signal import butter, sosfiltfilt  # half a second to import

        def apply(x, state, rng):
            kind = self.kinds[rng.integers(len(self.kinds))]
            edges = np.exp(rng.uniform(np.log(low), np.log(high), 2))
            if kind == "band":
                bottom = min(edges.min(), high / 2)
                edges = bottom, max(edges.max(), 2 * bottom)
            else:
                edges = edges[0]
            sections = butter(2, edges, btype=kind, output="sos", fs=rate)
            padding = min(3 * (2 * len(sections) + 1), x.shape[-1] - 1)
            return sosfiltfilt(sections, x, padlen=padding).astype(np.float32)

        return context.then(apply)
