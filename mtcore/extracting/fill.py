"""Filling feature stores: what is missing is decoded, run through the prefix and written, a shard per chunk of clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Sequence

from ..clip import File, Lazy
from ..errors import ClipError, DataError, MtcoreError
from ..progress import Progress
from ..reading.decode import decode
from .chain import Array, Chain
from .store import Store, row_key

__all__ = ["Wanted", "array_of", "fill", "rows_of"]

CHUNK = 64
"""Clips per shard: large enough for threads to scale, small enough that little is redone after a kill."""


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


def fill(wanted: Sequence[Wanted], jobs: int = 1, progress: Progress | None = None) -> dict[str, ClipError]:
    """Compute and store what is missing. Gives the clips that cannot be used, by row key; everything else is stored.

    Threads over chunks of clips; each chunk is one shard, so a kill loses at most one shard per worker.
    """
    from joblib import Parallel, delayed

    progress, failed = progress or Progress(), {}
    for want in wanted:
        missing = want.missing()
        chunks = [missing[i:i + CHUNK] for i in range(0, len(missing), CHUNK)]
        if not chunks:
            continue
        label = f"extracting {want.chain.steps[want.chain.extractor].id}"
        work = Parallel(n_jobs=jobs, prefer="threads", return_as="generator_unordered")(
            delayed(_shard)(want, keys) for keys in chunks)
        for bad in progress.track(work, len(chunks), label):
            failed |= bad
        want.store.refresh()
    return failed


def _shard(want: Wanted, keys: list[str]) -> dict[str, ClipError]:
    rows, failed = [], {}
    for key in keys:
        name, audio = want.clips[key]
        try:
            rows.append((key, array_of(want.chain, audio)))
        except ClipError as error:
            failed[key] = ClipError(f"{name}: {error}")
        except MtcoreError as error:
            raise type(error)(f"clip {name}: {error}") from error
    try:
        want.store.write(rows)
    except OSError as error:
        raise DataError(f"{want.store.folder}: cannot write features: {error.strerror or error}; free space or choose another folder with "
                        "--cache. What is complete stays") from error
    return failed
