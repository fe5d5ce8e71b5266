"""Digests of audio: what a store's rows, joint splits and runs know a recording by. Taken by reading, not by decoding."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Iterable, Sequence

from ..clip import File, Lazy
from ..errors import ClipError
from ..progress import Progress

__all__ = ["Digests"]

_CHUNK = 64
"""Files per task of a worker: less would cost more in dispatch than small files cost to read."""

Key = tuple[bytes, int, int]
"""Path, size in bytes, modification time in nanoseconds."""


class Digests:
    """Digests (blake2b, 128 bits, in hex), remembered in `cache`/digests.sqlite by path, size and modification time."""

    def __init__(self, cache: Path):
        self.cache = Path(cache)

    def of(self, audios: Sequence[File | Lazy], jobs: int = 1,
           progress: Progress = Progress()) -> tuple[list[str | None], dict[int, ClipError]]:
        """Digest of each audio, None where there is none, and by position why not.

        Of a file: of all its bytes, whatever the stretch, once however many stretches it has. Of a `Lazy`: of its function and key, or,
        without a key, of its samples, shape and rate. `jobs` is joblib's `n_jobs`.
        """
        found: dict[int | str, str | ClipError] = {}
        paths, keys = self._keys(audios, found)
        memory = _Memory(self.cache / "digests.sqlite", progress)
        known = memory.recall(set(keys.values()))
        missing = [path for path, key in keys.items() if key not in known]
        lazies = [position for position, audio in enumerate(audios) if isinstance(audio, Lazy)]
        chunks = [missing[i:i + _CHUNK] for i in range(0, len(missing), _CHUNK)]
        for chunk, digests in progress.track(_each(_digest_files, chunks, jobs), len(chunks), "digests"):
            found.update(zip(chunk, digests))
            memory.remember({keys[path]: digest for path, digest in zip(chunk, digests) if isinstance(digest, str)})
