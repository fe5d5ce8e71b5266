"""Digests of audio: what a store's rows, joint splits and runs know a recording by. Taken by reading, not by decoding."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Any

from ..clip import File, Lazy
from ..errors import ClipError
from ..progress import Progress, in_parallel
from .decode import decode

__all__ = ["Digests"]

_CHUNK = 64
"""Audios per task of a worker: with fewer, handing out tasks costs more than reading small files."""
_QUERY = 900
"""Paths per query: SQLite may have been built to take 999 variables."""

Key = tuple[bytes, int, int]
"""Path, size in bytes, modification time in nanoseconds."""


class Digests:
    """Digests (BLAKE2b, 128 bits, in hex), remembered by path, size and modification time: of a file's bytes in `cache`/digests.sqlite or,
    with `samples`, of what it decodes to, whatever the format, in `cache`/samples.sqlite."""

    def __init__(self, cache: Path, samples: bool = False):
        self.cache, self.samples = Path(cache), samples

    def of(self, audios: Sequence[File | Lazy], jobs: int = 1,
           progress: Progress = Progress()) -> tuple[list[str | None], dict[int, ClipError]]:
        """Digest of each audio, None where there is none, and by position why not.

        Of a file: of all its bytes, whatever the stretch, read once however many stretches it has. Of a `Lazy`: of its function
        and key or, without a key, of its samples, shape and rate. `jobs` is joblib's `n_jobs`.
        """
        memory = _Memory(self.cache / ("samples.sqlite" if self.samples else "digests.sqlite"), progress)
        names = [str(audio.path) if isinstance(audio, File) else position for position, audio in enumerate(audios)]
        answers: dict[str | int, str | ClipError] = {}
        keys = {}
        paths = list(dict.fromkeys(name for name in names if isinstance(name, str)))
        for start in range(0, len(paths), _QUERY):
            found = _keys(paths[start:start + _QUERY], answers)
            known = memory.recall(found)
            answers |= known
            keys |= {path: key for path, key in found.items() if path not in known}
        work = {name: name if isinstance(name, str) else audio for name, audio in zip(names, audios) if name not in answers}
        fresh, saved = {}, monotonic()
        try:
            for name, answer in progress.track(_digests(work, jobs, self.samples), len(work), "digests"):
                answers[name] = answer
                if name in keys and isinstance(answer, str):
                    fresh[keys[name]] = answer
                if monotonic() - saved > 2:
                    memory.remember(fresh)
                    fresh, saved = {}, monotonic()
        finally:  # what was read before an interrupt is kept
            memory.remember(fresh)
        digests = [answers[name] for name in names]
        errors = {position: answer for position, answer in enumerate(digests) if isinstance(answer, ClipError)}
        return [answer if isinstance(answer, str) else None for answer in digests], errors


def _digests(work: dict[Any, str | Lazy], jobs: int, samples: bool) -> Iterator[tuple[Any, str | ClipError]]:
    if not work:
        return
    from joblib import delayed  # late: not needed where everything is remembered

    tasks = (delayed(_digest)(audio, samples) for audio in work.values())
    yield from zip(work, in_parallel(tasks, jobs, "generator", batch_size=_CHUNK))


def _digest(audio: str | Lazy, samples: bool) -> str | ClipError:
    try:
        if samples:
            return _digest_samples(File(Path(audio)) if isinstance(audio, str) else audio)
        return _digest_lazy(audio) if isinstance(audio, Lazy) else _digest_file(audio)
    except ClipError as error:
        return error


def _blake2b(*parts: Any) -> Any:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest


def _digest_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, _blake2b).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def _digest_lazy(audio: Lazy) -> str:
    if audio.key is not None:
        # ascii() of a tuple of strings is unambiguous and the same in every Python.
        return _blake2b(ascii(("lazy", f"{audio.load.__module__}:{audio.load.__qualname__}", audio.key)).encode()).hexdigest()
    return _digest_samples(audio)


def _digest_samples(audio: File | Lazy) -> str:
    samples, rate = decode(audio)
    return _blake2b(ascii((samples.shape, rate)).encode(), samples).hexdigest()


def _unreadable(path: str, error: OSError) -> ClipError:
    return ClipError(f"{path}: expected a file that can be read, but: {error.strerror}")


_folder = lru_cache(maxsize=4096)(os.path.realpath)


def _keys(paths: Sequence[str], answers: dict[str | int, str | ClipError]) -> dict[str, Key]:
    """What each file is remembered by; files that cannot be used go to `answers`."""
    keys = {}
    for path in paths:
        try:
            status = os.stat(path)
        except OSError as error:
            answers[path] = _unreadable(path, error)
            continue
        if status.st_size:
            # Only the folder is resolved (once): resolving a million names takes a minute, and stat follows a link anyway.
            name = os.path.join(_folder(os.path.dirname(path)), os.path.basename(path))
            keys[path] = os.fsencode(name), status.st_size, status.st_mtime_ns
        else:
            answers[path] = ClipError(f"{path}: expected a sound file, found an empty one (0 bytes)")
    return keys


class _Memory:
    """What was digested before, in an SQLite file that several processes may use at once. Without it work goes on, only slower.

    With a rollback journal, as write-ahead logging does not work on a file system that several machines share.
    """

    def __init__(self, path: Path, progress: Progress):
        self.path, self.progress, self.usable = path, progress, True

    def recall(self, keys: dict[str, Key]) -> dict[str, str]:
        """The digests that are known, by the keys' names."""
        query = f"SELECT path, size, time, digest FROM files WHERE path IN ({','.join('?' * len(keys))})"
        rows = self._use(lambda base: base.execute(query, [key[0] for key in keys.values()]).fetchall()) or ()
        known = {tuple(key): digest for *key, digest in rows}
        return {name: known[key] for name, key in keys.items() if key in known}

    def remember(self, digests: dict[Key, str]) -> None:
        if digests:
            rows = [(*key, digest) for key, digest in digests.items()]
            self._use(lambda base: base.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows))

    def _use(self, action: Callable[[sqlite3.Connection], Any], again: bool = True) -> Any:
        if not self.usable:
            return None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as base, base:
                base.execute("CREATE TABLE IF NOT EXISTS files (path BLOB PRIMARY KEY, size INTEGER, time INTEGER, digest TEXT)")
                return action(base)
        except (OSError, sqlite3.DatabaseError) as error:
            if again and not isinstance(error, (OSError, sqlite3.OperationalError)):  # what is left: the file is no database
                self.progress.say(f"{self.path}: put aside as {self.path.name}.broken and begun anew: {error}")
                for ending in ("", "-journal"):  # a journal left behind would be played into the new file
                    with suppress(OSError):
                        os.replace(f"{self.path}{ending}", f"{self.path}{ending}.broken")
                return self._use(action, again=False)
            self.usable = False
            self.progress.say(f"{self.path}: digests are not remembered: {error}")
        return None
