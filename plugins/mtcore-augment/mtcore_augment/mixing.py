"""Steps that add noise or a room, generated or out of a material: float32 [channels, n]; length and time stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtcore.plugin import Context, ParameterError, Prepared, param

from .ranges import Augmentation, power, sound

SILENCE = 1e-20
"""Power of -200 dBFS, far below any recorder's resolution; what is quieter is silence and cannot be scaled to a level."""
AUDIBLE = 20.0
"""Hz; coloured noise has nothing below, or most of brown noise would be where nobody hears it."""
EXPONENTS = {"white": 0, "pink": 1, "brown": 2}


def mixed(x: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Signal plus noise, scaled so that powers over the clip and all its channels differ by `snr` dB. Silence stays silence."""
    signal, added = power(x), power(noise)
    if signal < SILENCE or added < SILENCE:
        return x
    return x + noise * np.float32(np.sqrt(signal / added) * 10 ** (-snr / 20))


def coloured(rng: np.random.Generator, channels: int, n: int, rate: float, exponent: int) -> np.ndarray:
    """Gaussian noise with a power density of f^-exponent above 20 Hz, after Timmer and König (1995), A&A 300, 707."""
    if not exponent:
        return rng.standard_normal((channels, n), dtype=np.float32)
    from scipy.fft import irfft, next_fast_len  # half a second to import

    lowest = min(AUDIBLE, rate / 4)
    size = next_fast_len(max(n, int(4 * rate / lowest)), real=True)
    frequencies = np.fft.rfftfreq(size, 1 / rate)
    shape = np.where(frequencies < lowest, 0, np.maximum(frequencies, lowest) ** (-exponent / 2)).astype(np.float32)
    parts = rng.standard_normal((channels, len(shape), 2), dtype=np.float32)
    return irfft(parts.view(np.complex64)[..., 0] * shape, size)[:, :n]


def material(context: Context, name: str) -> Any:
    """What can be drawn from: `draw(rng)` gives float32 [channels, n] at the context's rate."""
    if name not in context.materials:
        raise ParameterError(f"expected a material {name!r}, found {', '.join(sorted(context.materials)) or 'none'}; name the "
                             f"dataset that it comes from in [materials.{name}]")
    return context.materials[name]


def on_channels(x: np.ndarray, channels: int) -> np.ndarray:
    """For as many channels as the clip has; of another number the first serves all: a mean of microphones would colour it."""
    return x if len(x) == channels else x[:1]


@dataclass(frozen=True, kw_only=True)
class Noise(Augmentation):
    """Gaussian noise, independent in all channels. The ratio is of powers over the whole clip; silence stays silence."""

    snr: tuple[float, float] = param((5.0, 30.0), unit="dB", help="lowest and highest signal-to-noise ratio")
    colours: tuple[str, ...] = param(("white",), choices=tuple(EXPONENTS), help="power density of 1, 1/f or 1/f², drawn")

    def prepare(self, context: Context) -> Prepared:
        rate = sound(context)
        if not self.colours:
            raise ParameterError("expected colours out of white, pink and brown; found none")

        def apply(x, state, rng):
            exponent = EXPONENTS[self.colours[rng.integers(len(self.colours))]]
            return mixed(x, coloured(rng, *x.shape, rate, exponent), rng.uniform(*self.snr))

        return context.then(apply)


@dataclass(frozen=True, kw_only=True)
class MixNoise(Augmentation):
    """A recording out of a material, from a random place: longer ones are cut, shorter ones repeated.

    The ratio is of powers over the whole clip and all channels. Silence stays as it is, and so does a clip that meets silence.
    """

    material: str = param(help="name of the noise in [materials]")
    snr: tuple[float, float] = param((0.0, 20.0), unit="dB", help="lowest and highest signal-to-noise ratio")

    def prepare(self, context: Context) -> Prepared:
        sound(context)
        noises = material(context, self.material)

        def apply(x, state, rng):
            snr, noise, n = rng.uniform(*self.snr), on_channels(noises.draw(rng), len(x)), x.shape[-1]
            found = noise.shape[-1]
            first = int(rng.integers(found - n + 1 if found >= n else found))
            if found < n:
                noise = np.tile(noise, -(-(first + n) // found))
            return mixed(x, np.broadcast_to(noise[:, first:first + n], x.shape), snr)

        return context.then(apply)


@dataclass(frozen=True, kw_only=True)
class Reverb(Augmentation):
    """Convolution with an impulse response out of a material.

    Its highest peak counts as direct path and is moved to time 0, so that sound stays where it was; reverberation beyond the
    clip's end is cut off; the clip keeps its energy.
    """

    material: str = param(help="name of the impulse responses in [materials]")

    def prepare(self, context: Context) -> Prepared:
        sound(context)
        rooms = material(context, self.material)
        from scipy.signal import oaconvolve  # half a second to import

        def apply(x, state, rng):
            response = on_channels(rooms.draw(rng), len(x))
            direct = int(np.abs(response).max(axis=0).argmax())
            wet = oaconvolve(x, response, axes=-1)[:, direct:direct + x.shape[-1]]
            before, after = power(x), power(wet)
            return x if min(before, after) < SILENCE else (wet * np.sqrt(before / after)).astype(np.float32)

        return context.then(apply)
