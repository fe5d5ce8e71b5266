"""Steps that move time or play with it: sound float32 [channels, n]; `random_crop` features, too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Context, Moved, ParameterError, Prepared, param

from .ranges import Augmentation, frames_of, sound

WINDOW = 0.064
"""Seconds, at least, of the phase vocoder's window: it holds three periods of a low voice."""


def vocoded(x: np.ndarray, speed: float, rate: float) -> np.ndarray:
    """Faster by `speed` at the same pitch: [channels, n] -> [channels, round(n / speed)].

    The phase vocoder of Flanagan and Golden (1966) on the frames of librosa.phase_vocoder; phases are products of unit
    numbers, not sums of angles, which is faster.
    """
    from librosa import istft, stft  # seconds to import

    size = 1 << int(WINDOW * rate - 1).bit_length()
    n, hop = x.shape[-1], size // 4
    padded = np.pad(x, ((0, 0), (0, max(0, size - n))))
    spectrum = stft(y=padded, n_fft=size, hop_length=hop).swapaxes(-1, -2)  # a frame's bins are neighbours in memory
    places = np.arange(0, spectrum.shape[-2], speed)
    before = places.astype(int)
    spectrum = np.pad(spectrum, ((0, 0), (0, 2), (0, 0)))
    loudness = np.abs(spectrum)
    unit = np.divide(spectrum, loudness, out=np.ones_like(spectrum), where=loudness > np.finfo(np.float32).tiny)
    turns = unit[:, before[:-1] + 1] * unit[:, before[:-1]].conj()
    phases = np.concatenate([unit[:, :1], turns], axis=1).cumprod(axis=1, dtype=np.complex128)
    share = (places - before).astype(np.float32)[:, None]
    phases *= (1 - share) * loudness[:, before] + share * loudness[:, before + 1]
    return istft(phases.astype(np.complex64).swapaxes(-1, -2), n_fft=size, hop_length=hop, length=max(1, round(n / speed)))


@dataclass(frozen=True, kw_only=True)
class Shift(Augmentation):
    """Later by `seconds`, earlier where they are negative, but never by more than half of the clip; the length stays.

    With `fill = "wrap"` what leaves at one end enters at the other. Events do not: use it where targets are of whole clips.
    """

    seconds: tuple[float, float] = param((-0.5, 0.5), unit="s", help="lowest and highest; negative is earlier")
    fill: str = param("zero", choices=("zero", "wrap"), help="what comes in: silence, or what left at the other end")

    def prepare(self, context: Context) -> Prepared:
        rate = sound(context)

        def apply(x, state, rng):
            n = x.shape[-1]
            by = int(np.clip(round(rng.uniform(*self.seconds) * rate), -(n // 2), n // 2))
            moved = np.roll(x, by, axis=-1)
            if self.fill == "zero" and by:
                moved[:, slice(by) if by > 0 else slice(by, None)] = 0
            return Moved(moved, by=-by / rate)

        return context.then(apply)


@dataclass(frozen=True, kw_only=True)
class Stretch(Augmentation):
    """Faster or slower at the same pitch, by a phase vocoder: round(n / speed) samples, as librosa.effects.time_stretch."""

    speed: tuple[float, float] = param((0.9, 1.1), minimum=0.1, maximum=10, help="slowest and fastest; 1 is as recorded")

    def prepare(self, context: Context) -> Prepared:
        rate = sound(context)

        def apply(x, state, rng):
            speed = rng.uniform(*self.speed)
            return Moved(vocoded(x, speed, rate), speed=1 / speed)

        return context.then(apply, shape=(context.shape[0], None))


@dataclass(frozen=True, kw_only=True)
class Pitch(Augmentation):
    """Higher or lower at the same speed: a phase vocoder, then resampling by soxr HQ, as librosa.effects.pitch_shift."""

    semitones: tuple[float, float] = param((-2.0, 2.0), minimum=-24, maximum=24, help="lowest and highest")

    def prepare(self, context: Context) -> Prepared:
        rate = sound(context)
        import soxr  # a compiled library that only this step needs

        def apply(x, state, rng):
            ratio = 2 ** (rng.uniform(*self.semitones) / 12)
            found = soxr.resample(vocoded(x, 1 / ratio, rate).T, ratio * rate, rate, quality="HQ").T[:, :x.shape[-1]]
            return np.pad(found, ((0, 0), (0, x.shape[-1] - found.shape[-1])))

        return context.then(apply)


@dataclass(frozen=True, kw_only=True)
class RandomCrop(Augmentation):
    """One length for all: of longer arrays a random stretch, outside training the middle; shorter ones get zeros at the end."""

    acts_on = ("signal", "feature")
    length: int | str = param(minimum=1, help='samples or frames, or seconds such as "3s"')

    def prepare(self, context: Context) -> Prepared:
        if not context.rate and context.axis is None:
            raise ParameterError(f"expected arrays with a time axis, found shape {context.shape} without one")
        hop = context.axis.hop if context.axis else 1 / context.rate
        length = frames_of(self.length, "length", hop)

        def cut(x, place):
            left = x.shape[-1] - length
            if left <= 0:
                return np.pad(x, (*[(0, 0)] * (x.ndim - 1), (0, -left)))
            first = place(left)
            return Moved(x[..., first:first + length].copy(), by=first * hop)

        return context.then(lambda x, state, rng: cut(x, lambda left: int(rng.integers(left + 1))),
                            off=lambda x, state: cut(x, lambda left: left // 2), shape=(*context.shape[:-1], length))
