"""Rules on how a reader reads: from any folder of any machine, leaving everything as it was, and nothing but metadata."""

from __future__ import annotations

import builtins
import contextlib
import gc
import glob
import io
import os
import pickle
import socket
import tempfile
import tracemalloc
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any
from unittest import mock

from ..errors import MtcoreError
from .kit import CheckFailed, NotReached, Subject, expect, rule
from .telling import clips_of, copied, difference, files, recordings, told, unordered

__all__: list[str] = []

INFLATED = 64 << 20
"""Bytes that recordings are made longer by (sparse) to see whether a reader reads them."""
MEMORY = 24 << 20
"""Bytes that reading the metadata of a miniature may take."""
CLIP = 64 << 10
"""Bytes that the audio and the array targets of one clip may take: more is a recording in it."""


@rule("reader")
def same_elsewhere(subject: Subject) -> None:
    """A copy of the dataset in another folder, read from another working folder, gives the same clips with the paths there:
    ids, groups and keys do not hold the folder's name, and nothing is remembered of the folder read before."""
    before = told(subject.component, subject.root)
    with copied(subject) as root, tempfile.TemporaryDirectory(prefix="mtcore-") as folder, contextlib.chdir(folder):
        root = root.rename(root.with_name("elsewhere")) if root.exists() else root
        after = told(subject.component, root)
    found = difference(unordered(before), unordered(after))
    expect(not found, f"of a copy in another folder, the first difference is {found}")


@rule("reader")
def any_listing_order(subject: Subject) -> None:
    """Tasks, labels and clips come in the same order when the file system lists folders in another one."""
    before = told(subject.component, subject.root)
    if difference(before, told(subject.component, subject.root)):
        raise NotReached("the order differs without that")
    with _listing(reverse=False):
        forwards = told(subject.component, subject.root)
    with _listing(reverse=True):
        backwards = told(subject.component, subject.root)
    found = difference(forwards, backwards) or difference(before, forwards)
    expect(
        not found,
        f"with folders listed in another order, the first difference is {found}; sort what os.listdir, glob or iterdir "
        "give, or use scan",
    )


@contextlib.contextmanager
def _listing(reverse: bool) -> Iterator[None]:
    """Folders are listed by name, forwards or backwards."""
    listdir, scandir = os.listdir, os.scandir
    globbers = [cls for cls in vars(glob).values() if getattr(cls, "scandir", None) is scandir]  # Python 3.13 holds it there
    entries = lambda path=".": _Entries(scandir(path), reverse)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(os, "listdir", lambda path=".": sorted(listdir(path), reverse=reverse)))
        stack.enter_context(mock.patch.object(os, "scandir", entries))
        for cls in globbers:
            stack.enter_context(mock.patch.object(cls, "scandir", staticmethod(entries)))
        yield


class _Entries(contextlib.AbstractContextManager):
    """What os.scandir gives, in order."""

    def __init__(self, found: Any, reverse: bool):
        with found:
            self._found = iter(sorted(found, key=lambda entry: entry.name, reverse=reverse))

    def __iter__(self) -> Iterator[os.DirEntry]:
        return self._found

    def __next__(self) -> os.DirEntry:
        return next(self._found)

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        self._found = iter(())


@rule("reader")
def names_encodings(subject: Subject) -> None:
    """Text files are opened with an encoding, for the one taken without it depends on the machine."""
    subject.component
    opened, without = open, set()

    def watched(file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *rest: Any, **others: Any) -> Any:
        if "b" not in mode and encoding in (None, "locale") and isinstance(file, (str, os.PathLike)):
            path = Path(os.fsdecode(file)).absolute()
            without.update([path.relative_to(subject.root).as_posix()] if path.is_relative_to(subject.root) else [])
        return opened(file, mode, buffering, None if encoding == "locale" else encoding, *rest, **others)

    def named(encoding: str | None, stacklevel: int = 2) -> str:  # pathlib's, which says "utf-8" where Python runs in its UTF-8 mode
        return encoding or "locale"

    with (mock.patch.object(builtins, "open", watched), mock.patch.object(io, "open", watched),
          mock.patch.object(io, "text_encoding", named)):
        told(subject.component, subject.root)
    expect(not without, f'opened without an encoding: {", ".join(sorted(without)[:5])}; write encoding="utf-8", or use table')


@rule("reader")
def closes_files(subject: Subject) -> None:
    """Every file that reading opens is closed by it."""
    subject.component
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        told(subject.component, subject.root)
        gc.collect(1)  # what is that young
    told_of = {str(one.message) for one in caught if issubclass(one.category, ResourceWarning)}
    left = sorted(message for message in told_of if str(subject.root) in message)
    expect(not left, f"{', '.join(left[:3])}; write `with open(…) as file:`, or use table")


@rule("reader", applies=lambda subject: not subject.cls.generated)
def missing_root(subject: Subject) -> None:
    """Where nothing of the dataset lies, reading is an error that names the folder, or finds no clip."""
    reader = subject.component
    with tempfile.TemporaryDirectory(prefix="mtcore-") as folder:
        root = Path(folder).resolve()  # that it exists, the core sees to
        try:
            clips = list(reader.clips(root)) if reader.tasks(root) else []
        except MtcoreError as error:
            expect(str(root) in str(error), f"the error for an empty root does not name it: {error}")
        except Exception as error:
            raise CheckFailed(f"expected a DataError for an empty root (table and scan raise one), found {type(error).__name__}: "
                              f"{error}") from error
        else:
            expect(not clips, f"{len(clips)} clips were found in an empty folder; a reader of generated data says "
                              "`generated = True`")


@rule("reader")
def root_unchanged(subject: Subject) -> None:
    """Reading creates, changes and deletes nothing below the root."""
    folders = lambda: {path: () for path in subject.root.rglob("*") if path.is_dir()}
    state = (
        lambda: {path: (path.stat().st_mtime_ns, blake2b(path.read_bytes()).digest()) for path in files(subject.root)} | folders()
    )
    subject.component
    before = state()
    told(subject.component, subject.root)
    after = state()
    changed = sorted(
        str(path.relative_to(subject.root)) for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    )
    expect(not changed, f"changed by reading: {', '.join(changed[:5])}")


@rule("reader")
def no_network(subject: Subject) -> None:
    """Reading opens no connection; downloading is a command of its own."""
    subject.component
    asked: list[str] = []

    def refuse(name: str) -> Any:
        def refused(*arguments: Any, **_: Any) -> None:
            asked.append(f"{name}{arguments[-2:] if name == 'connect' else arguments[:2]}")
            raise OSError("reading has no network")
        return refused

    with (
        mock.patch.object(socket.socket, "connect", refuse("connect")),
        mock.patch.object(socket, "getaddrinfo", refuse("getaddrinfo")),
        mock.patch.object(socket, "gethostbyname", refuse("gethostbyname")),
    ):
        try:
            told(subject.component, subject.root)
        except Exception:
            if not asked:
                raise
    expect(not asked, f"reading asked for the network: {', '.join(asked[:3])}")


@rule("reader")
def metadata_only(subject: Subject) -> None:
    """Clips are the same when the recordings hold nothing but zeros: reading decodes neither sound nor headers."""
    reader = subject.component
    with copied(subject) as root:
        before = told(reader, root)
        for path in recordings(reader, root):
            size = path.stat().st_size  # some readers leave out empty files
            os.truncate(path, 0)
            os.truncate(path, size)
        try:
            after = told(reader, root)
        except Exception as error:
            raise CheckFailed(
                f"with zeros in place of recordings, reading fails with {type(error).__name__}: {error}; leave the sound to "
                "the core, which knows where a recording ends"
            ) from error
    found = difference(unordered(before), unordered(after))
    expect(not found, f"with zeros in place of recordings, the first difference is {found}")


@rule("reader")
def constant_memory(subject: Subject) -> None:
    """Memory does not grow with the recordings' length: nothing of them is held or read."""
    reader = subject.component
    with copied(subject) as root:
        for path in recordings(reader, root):
            os.truncate(path, path.stat().st_size + INFLATED)
        started = tracemalloc.is_tracing()
        if not started:
            tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in reader.clips(root):
                pass
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            if not started:
                tracemalloc.stop()
    expect(peak < MEMORY, f"reading {len(recordings(reader, subject.root))} clips with recordings of {INFLATED >> 20} MB took "
                          f"{peak >> 20} MB; read metadata, not recordings")
    for clip in clips_of(subject):
        try:
            size = len(pickle.dumps([clip.audio, *(target for target in clip.targets.values() if hasattr(target, "tobytes"))]))
        except Exception:
            continue  # another rule's matter
        expect(
            size < CLIP, f"clip {clip.id} carries {size} bytes; let a Lazy load what is large, and name a File as a large target"
        )
