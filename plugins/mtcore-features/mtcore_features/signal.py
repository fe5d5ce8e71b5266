"""Steps on sound: float32 [channels, n] at a rate in Hz."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtcore.plugin import ClipError, Context, Moved, ParameterError, Prepared, Preparer, param


def sound(context: Context) -> tuple[float, tuple[int | None, None]]:
    """The rate of the sound, and its shape once its length has changed."""
    if not context.rate or len(context.shape) != 2:
        raise ParameterError(f"expected sound [channels, n] with a sampling rate, found shape {context.shape}, rate "
                             f"{context.rate}")
    return context.rate, (context.shape[0], None)


@dataclass(frozen=True, kw_only=True)
class Resample(Preparer):
    """Another sampling rate, by soxr with quality HQ: n samples become round(n * new / old), sound stays where it was in time."""

    rate: int = param(help="new sampling rate", unit="Hz", minimum=1)

    def prepare(self, context: Context) -> Prepared:
        old, shape = sound(context)
        if old == self.rate:
            return context.then(lambda x, state, rng: x)
        import soxr  # a compiled library that only this step needs

        def apply(x, state, rng):
            return np.ascontiguousarray(soxr.resample(x.T, old, self.rate, quality="HQ").T)

        return context.then(apply, rate=self.rate, shape=shape)


@dataclass(frozen=True, kw_only=True)
class Trim(Preparer):
    """Without the silence at both ends, as librosa.effects.trim finds it; a clip of silence stays as it is."""

    top_db: float = param(60.0, unit="dB", minimum=0, help="frames this far below the loudest are silence")
    frame: float = param(0.064, unit="s", help="length of the frames whose loudness is compared")
    hop: float = param(0.016, unit="s", help="from frame to frame, and how finely the ends are found")

    def prepare(self, context: Context) -> Prepared:
        rate, shape = sound(context)
        frame, hop = (int(seconds * rate + 0.5) for seconds in (self.frame, self.hop))
        if frame < 1 or hop < 1:
            raise ParameterError(f"expected frame and hop of at least one sample at {rate:g} Hz, found {self.frame:g} s and "
                                 f"{self.hop:g} s")
        from librosa.effects import trim  # seconds to import

        def apply(x, state, rng):
            kept, (start, _) = trim(y=x, top_db=self.top_db, frame_length=frame, hop_length=hop)
            return Moved(np.ascontiguousarray(kept), by=float(start) / rate)

        return context.then(apply, shape=shape)


@dataclass(frozen=True, kw_only=True)
class Normalise(Preparer):
    """Scales a clip so that its peak, or its root mean square over all channels, has this level; silence stays silence."""

    mode: str = param("peak", choices=("peak", "rms"), help="what has the level")
    level: float = param(0.0, unit="dBFS", help="level, relative to an amplitude of 1")

    def prepare(self, context: Context) -> Prepared:
        target = 10 ** (self.level / 20)

        def apply(x, state, rng):
            found = np.abs(x).max() if self.mode == "peak" else np.sqrt(np.mean(np.square(x), dtype=np.float64))
            return x * np.float32(target / found) if found > np.finfo(np.float32).tiny else x

        return context.then(apply)


@dataclass(frozen=True, kw_only=True)
class Cut(Preparer):
    """The stretch that begins at `start` and has `seconds` (floor(seconds * rate) samples), or what a shorter clip has of it."""

    start: float = param(0.0, unit="s", minimum=0, help="where the stretch begins")
    seconds: float | None = param(None, unit="s", help="how long it is; default: to the clip's end")

    def prepare(self, context: Context) -> Prepared:
        rate, shape = sound(context)
        first = int(self.start * rate + 1e-6)  # 0.29 s at 100 Hz is 28.999999999999996 in floating point
        stop = None if self.seconds is None else first + int(self.seconds * rate + 1e-6)
        if stop is not None and stop <= first:
            raise ParameterError(f"expected a stretch of at least one sample at {rate:g} Hz, found seconds = {self.seconds:g}")

        def apply(x, state, rng):
            if x.shape[-1] <= first:
                raise ClipError(f"too short to cut: expected more than {first} samples (start = {self.start:g} s at {rate:g} "
                                f"Hz), found {x.shape[-1]}; leave the clip out or start earlier")
            kept = np.ascontiguousarray(x[:, first:stop])
            return Moved(kept, by=first / rate) if first else kept

        return context.then(apply, shape=shape)
