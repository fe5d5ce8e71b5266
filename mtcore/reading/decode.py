"""From a file, or whatever a `Lazy` loads, to an array. The only place that knows what a sound file is."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator, NamedTuple

from ..clip import File, Lazy
from ..errors import ClipError, MtcoreError

if TYPE_CHECKING:
    import numpy as np
    import soundfile

__all__ = ["DECODER_REVISION", "Probe", "decode", "probe"]

DECODER_REVISION = 1
"""Raised when the same bytes decode to other samples; part of stores' keys."""

_ROUNDING = 0.02
"""Seconds by which `stop` may lie behind the end: annotations are rounded to hundredths."""
_UNKNOWN = 2**62
"""libsndfile's number of frames where the header does not say it (FLAC out of a pipe) is above this."""
_BLOCK = 2**20
_MP3_SLACK = 2 * 1152
"""Samples that may be missing in MP3: its header counts whole frames, and a broken last one decodes to nothing."""

_SIZES = re.compile(r"^ *(?:data|SSND|riff|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_RF64 = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_NO_END = re.compile("without an End-Of-Stream flag|lacks an end-of-stream bit")


class Probe(NamedTuple):
    """What a header says: length in seconds (of the stretch, where there is one), rate in Hz, channels."""

    seconds: float
    rate: float
    channels: int


def decode(audio: File | Lazy) -> tuple[np.ndarray, float | None]:
    """The samples as contiguous float32, and their rate in Hz (None: no time axis).

    A file gives [channels, n] in -1 … 1; a stretch is cut at the samples `round(seconds * rate)`. What a `Lazy` loads may have any
    rank; one-dimensional sound, that is with a rate, becomes [1, n]. Raises `ClipError` for what cannot be used: missing, unreadable,
    empty, cut off, outside the file, not finite.
    """
    import numpy as np  # late, like soundfile: the index needs the names of this module only

    samples, rate = _load(audio) if isinstance(audio, Lazy) else _read(audio)
    if not samples.size:
        raise ClipError(f"{audio}: expected sound, found no samples")
    if not np.isfinite(samples).all():
        raise ClipError(f"{audio}: expected finite samples, found {np.count_nonzero(~np.isfinite(samples))} of {samples.size} "
                        "that are infinite or not a number; export the file again")
    return samples, rate


def probe(file: File) -> Probe:
    """Length, rate and channels out of the header, without decoding (except of FLAC that does not say its length)."""
    with _opened(file) as handle:
        known = handle.frames < _UNKNOWN
        frames = handle.frames if known else sum(map(len, iter(lambda: handle.read(_BLOCK), ())))
        first, last = _stretch(file, frames, handle.samplerate)
        return Probe((last - first) / handle.samplerate, float(handle.samplerate), handle.channels)


def _load(audio: Lazy) -> tuple[np.ndarray, float | None]:
    import numpy as np

    try:
        array, rate = audio.load(*audio.args)
        array = np.ascontiguousarray(array, dtype=np.float32)
    except MtcoreError as error:
        raise ClipError(f"{audio}: {error}") from error
    except Exception as error:  # foreign code: whatever it raises belongs to this clip
        raise ClipError(f"{audio}: expected (array, rate or None), found {type(error).__name__}: {error}") from error
    return (array[None] if array.ndim == 1 and rate is not None else array), None if rate is None else float(rate)


def _read(file: File) -> tuple[np.ndarray, float]:
    import numpy as np

    with _opened(file) as handle:
        rate, total = handle.samplerate, handle.frames
        # Seeking in MP3 loses the bit reservoir, so the samples after it would differ from those of the whole file.
        whole = total >= _UNKNOWN or handle.format == "MP3"
        first, last = _stretch(file, total, rate)
        if not whole:
            handle.seek(first)
            sound = handle.read(last - first, dtype="float32", always_2d=True)
        else:
            blocks = [np.empty((0, handle.channels), np.float32)]
            while missing := min(last - sum(map(len, blocks)), _BLOCK):
                blocks.append(handle.read(missing, dtype="float32", always_2d=True))
                if not len(blocks[-1]):
                    break
            sound = np.concatenate(blocks)
            if total >= _UNKNOWN:
                first, last = _stretch(file, len(sound) if len(sound) < last else total, rate)
            sound, decoded = sound[first:last], len(sound)
            ...
    return np.ascontiguousarray(sound.T), float(rate)
