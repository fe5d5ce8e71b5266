"""From a file, or whatever a `Lazy` loads, to an array. The only place that knows what a sound file is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

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
_MP3_RUNUP = 32 * 1152
"""Samples decoded before a stretch of MP3: a frame may need the 511 bytes before it, at the lowest bit rate that is 20 frames."""
_MP3_SLACK = 2 * 1152
"""Samples that may be missing in MP3: its header counts whole frames, and a broken last one decodes to nothing."""

_WHOLE = {"PCM_16": ("int16", 2.0**-15), "PCM_24": ("int32", 2.0**-31)}
"""What libsndfile reads as whole numbers several times faster than as floats, and what makes the same floats of them."""

_SIZES = re.compile(r"^ *(?:data|SSND|riff|Data Size) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
_RF64 = re.compile(r"Calculated frame count (\d+) does not match value from 'ds64' chunk of (\d+)")
_OGG = re.compile("without an End-Of-Stream flag|lacks an end-of-stream bit")


class Probe(NamedTuple):
    """What a header says: length in seconds (of the stretch, where there is one), rate in Hz, channels."""

    seconds: float
    rate: float
    channels: int


def decode(audio: File | Lazy) -> tuple[np.ndarray, float | None]:
    """The samples as contiguous float32, and their rate in Hz (None: no time axis).

    A file gives [channels, n] in -1 … 1; a stretch is cut at the samples `round(seconds * rate)`. What a `Lazy` loads may have
    any rank; one-dimensional sound, that is with a rate, becomes [1, n]. Raises `ClipError` for what cannot be used: missing,
    unreadable, empty, cut off, outside the file, not finite.
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
    """Length, rate and channels out of the header, without decoding."""
    with _opened(file) as handle:
        first, last = _stretch(file, handle.frames, handle.samplerate)
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
        rate = handle.samplerate
        first, last = _stretch(file, handle.frames, rate)
        mp3 = handle.format == "MP3"
        begin = max(0, first - _MP3_RUNUP) if mp3 else first
        handle.seek(begin)
        kind, scale = _WHOLE.get(handle.subtype, ("float32", 1.0))
        sound = handle.read(last - begin, dtype=kind, always_2d=True)[first - begin:]
        if (missing := last - first - len(sound)) > (_MP3_SLACK if mp3 else 0):
            raise ClipError(f"{file}: the file is cut off: its header promises {missing / rate:.3f} s more than it holds; "
                            "fetch it again")
    return np.multiply(sound.T, np.float32(scale), dtype=np.float32, order="C"), float(rate)


@contextmanager
def _opened(file: File) -> Iterator[soundfile.SoundFile]:
    import soundfile  # late: loads libsndfile

    try:
        # As bytes, names that are no valid UTF-8 work too.
        with soundfile.SoundFile(str(file.path) if os.name == "nt" else os.fsencode(file.path)) as handle:
            if handle.frames >= _UNKNOWN:  # libsndfile can neither seek in such a file nor tell where it ends
                raise ClipError(f"{file}: its header does not say how long it is; write the file anew, for instance "
                                "with flac or ffmpeg")
            _check_whole(file, handle.extra_info)
            yield handle
    except (RuntimeError, TypeError, ValueError, OSError) as error:  # soundfile raises any of these
        raise ClipError(f"{file}: {_reason(file, error)}") from None


def _check_whole(file: File, header: str) -> None:
    """libsndfile shortens what is cut off without a word, except in its log of the header."""
    found = [(int(said), int(there)) for said, there in _SIZES.findall(header)]
    found += [(int(said), int(there)) for there, said in _RF64.findall(header)]
    for said, there in found:
        # Writers that cannot seek back leave 0 or a size just below 2 or 4 GiB in the header.
        if said > there and -said % 2**31 > 4096:
            raise ClipError(f"{file}: the file is cut off: its header promises {said} bytes or samples, {there} are there; "
                            "fetch it again")
    if _OGG.search(header) or ("Ogg: Junk" in header and not _ends_with_a_page(file)):
        raise ClipError(f"{file}: the file is cut off: its Ogg stream has no end; fetch it again or, if it is a recorded "
                        "stream, write it anew")


def _ends_with_a_page(file: File) -> bool:
    """Whether the last Ogg page is there as a whole (RFC 3533, section 6), whatever tags may follow."""
    with file.path.open("rb") as content:
        content.seek(max(0, file.path.stat().st_size - 2**17))
        _, start, page = content.read().rpartition(b"OggS")
    return bool(start) and len(page) > 22 and len(page) >= 23 + page[22] + sum(page[23:23 + page[22]])


def _stretch(file: File, frames: int, rate: int) -> tuple[int, int]:
    """First sample of the stretch and the one behind its last."""
    first = round(file.start * rate)
    last = frames if file.stop is None else round(file.stop * rate)
    if not frames:
        raise ClipError(f"{file}: expected sound, found a file without samples")
    if first >= frames or last > frames + _ROUNDING * rate:
        raise ClipError(f"{file}: expected a stretch within the file, found that the file ends at {frames / rate:.3f} s")
    if first >= (last := min(last, frames)):
        raise ClipError(f"{file}: the stretch holds no sample at {rate} Hz; expected at least {1 / rate:.6f} s")
    return first, last


def _reason(file: File, error: Exception) -> str:
    path = file.path
    if not path.exists():
        return "expected a sound file, found nothing there"
    if path.is_dir():
        return "expected a sound file, found a folder"
    if not os.access(path, os.R_OK):
        return "expected a sound file, but reading it is not permitted"
    if not path.stat().st_size:
        return "expected a sound file, found an empty one (0 bytes)"
    return (f"expected a sound file that libsndfile reads (wav, flac, ogg, mp3, aiff, …), found one that is cut off, damaged or "
            f"something else: {getattr(error, 'error_string', error)}")
