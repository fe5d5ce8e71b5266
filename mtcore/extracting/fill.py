"""Filling feature stores: what is missing is decoded, run through the prefix and written, a shard per chunk of clips."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..clip import File, Lazy
from ..errors import ClipError, DataError, ExperimentError, MtcoreError
from ..progress import Progress, in_parallel
from ..reading.decode import decode
from .chain import Array, Chain
from .store import Store, row_key, write_shard

__all__ = ["Wanted", "array_of", "fill", "rounded", "rows_of"]

CHUNK = 64
"""Clips per shard: large enough for threads to scale, small enough that little is redone after a kill."""
WORKER_LOST = "a worker process ended before its work, for want of memory or by a signal. What is complete stays: run again"
HELD = 1 << 26
"""Bytes of arrays after which a shard is written before its chunk is through: long recordings do not fill the memory."""


@dataclass
class Wanted:
    """Rows of one store: the chain whose prefix makes them, and by row key the clip's name and its audio."""

    chain: Chain
    store: Store
    clips: dict[str, tuple[str, File | Lazy]] = field(default_factory=dict)

    def missing(self) -> list[str]:
        return [key for key in self.clips if key not in self.store]


def rows_of(digest: str, audio: File | Lazy) -> str:
    """The row key of a clip's audio."""
    return row_key(digest, audio.start, audio.stop) if isinstance(audio, File) else row_key(digest)


def array_of(chain: Chain, audio: File | Lazy) -> Array:
    """One clip, decoded and run through the chain's prefix."""
    data, rate = decode(audio)
    return chain.run(Array(data, rate), 0, chain.cut, {})


def fill(wanted: Sequence[Wanted], jobs: int | None = None, progress: Progress | None = None) -> dict[str, ClipError]:
    """Compute and store what is missing. Gives the clips that cannot be used, by row key; everything else is stored.

    Threads over chunks of clips, or what `joblib.parallel_config` says; each chunk is one shard, so a kill loses at most one shard
    per worker. Chunks are taken in any order and looked for just before: processes that fill one store share the work.
    """
    progress, failed = progress or Progress(), {}
    for want in wanted:
        missing = want.missing()
        chunks = [missing[i:i + CHUNK] for i in range(0, len(missing), CHUNK)]
        if not chunks:
            continue
        from joblib import delayed  # late: often nothing is missing

        random.Random().shuffle(chunks)
        label = f"extracting {want.chain.steps[want.chain.extractor].id}"
        tasks = (delayed(_shard)(want.chain, want.store.folder, clips) for clips in _still_missing(want, chunks))
        try:
            for bad in progress.track(in_parallel(tasks, jobs), len(chunks), label):
                failed |= bad
        except BrokenProcessPool as error:
            raise DataError(WORKER_LOST) from error
        want.store.refresh()
    return failed


def _still_missing(want: Wanted, chunks: Sequence[Sequence[str]]) -> Iterator[dict[str, tuple[str, File | Lazy]]]:
    for keys in chunks:
        want.store.refresh()
        yield {key: want.clips[key] for key in keys if key not in want.store}


def _shard(chain: Chain, folder: Path, clips: Mapping[str, tuple[str, File | Lazy]]) -> dict[str, ClipError]:
    rows, failed = [], {}
    for key, (name, audio) in clips.items():
        try:
            rows.append((key, rounded(chain, array_of(chain, audio))))
        except ClipError as error:
            failed[key] = ClipError(f"{name}: {error}")
        except MtcoreError as error:
            raise type(error)(f"clip {name}: {error}") from error
        if sum(array.data.nbytes for _, array in rows) > HELD:
            _write(folder, chain, rows)
            rows = []
    _write(folder, chain, rows)
    return failed


def rounded(chain: Chain, array: Array) -> Array:
    """As the chain's prefix is stored."""
    if chain.dtype != "float16":
        return array
    with np.errstate(over="ignore"):
        data = array.data.astype("<f2")
    if (np.isinf(data) & np.isfinite(array.data)).any():
        raise ExperimentError(f"extract.dtype: float16 ends at 65504, found {np.abs(array.data).max():.6g}; take float32, or a step that scales")
    return replace(array, data=data)


def _write(folder: Path, chain: Chain, rows: list[tuple[str, Array]]) -> None:
    try:
        write_shard(folder, chain.prefix, rows)
    except OSError as error:
        raise DataError(f"{folder}: cannot write features: {error.strerror or error}; free space or choose another folder with "
                        "--cache. What is complete stays") from error
