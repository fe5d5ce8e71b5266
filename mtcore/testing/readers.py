"""Rules for readers, tried on the miniature that the example builds."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import socket
import sys
import tempfile
import tracemalloc
from fnmatch import fnmatch
from hashlib import blake2b
from pathlib import Path
from typing import Any, Iterator
from unittest import mock

from ..clip import Clip, File, Lazy
from ..errors import ClipError, MtcoreError
from ..plugin import Event, Reader
from ..plugin.building import build
from ..plugin.registry import resolve_target
from ..reading.dataset import read
from ..reading.decode import decode, probe
from .kit import CheckFailed, NotReached, Subject, expect, rule
from .plugins import run_apart

__all__ = ["told", "told_apart"]

INFLATED = 64 << 20
"""Bytes that recordings are made longer by (sparse) to see whether a reader reads them."""
MEMORY = 24 << 20
"""Bytes that reading the metadata of a miniature may take."""
CLIP = 64 << 10
"""Bytes that one clip may take: more is a recording in it."""
SEEDS = (1, 2, 3, 4)
"""Hash seeds: by chance, two labels have the same order under all of them in one of eight cases."""
SLACK = 0.02
"""Seconds: annotations are rounded to hundredths."""


def told(reader: Reader, root: Path) -> dict[str, Any]:
    """Everything a reader says, in its order, as JSON takes it; paths relative to the root."""
    return {"tasks": [[task.name, task.kind, list(task.labels), task.unit] for task in reader.tasks(root)],
            "clips": [_clip(clip, root) for clip in reader.clips(root)]}


def _clip(clip: Clip, root: Path) -> list[Any]:
    return [clip.id, _plain(clip.audio, root), {name: _plain(target, root) for name, target in clip.targets.items()},
            dict(clip.groups), dict(clip.parts)]


def _plain(value: Any, root: Path) -> Any:
    if isinstance(value, File):
        return [_plain(value.path, root), value.start, value.stop]
    if isinstance(value, Lazy):
        return [f"{value.load.__module__}:{value.load.__qualname__}", _plain(value.args, root), value.key]
    if isinstance(value, Path):
        return value.relative_to(root).as_posix() if value.is_relative_to(root) else str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Event):
        return [value.onset, value.offset, value.label]
    if isinstance(value, (list, tuple)):
        return [_plain(item, root) for item in value]
    if hasattr(value, "tobytes"):  # an array, or one of its numbers
        return [str(value.dtype), list(value.shape), blake2b(value.tobytes(), digest_size=8).hexdigest()]
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)


def told_apart() -> None:
    """In a fresh process: what the reader says whose target, parameters and root the arguments name, or the pickled one, whose clips'
    audio is loaded too."""
    if len(sys.argv) == 2:
        reader, root, clips = pickle.loads(Path(sys.argv[1]).read_bytes())
        loaded = [blake2b(decode(clip.audio)[0].tobytes(), digest_size=8).hexdigest() for clip in clips]
        print("\n" + json.dumps([told(reader, root), loaded]))
    else:
        target, parameters, root = sys.argv[1:]
        print("\n" + json.dumps(told(build(resolve_target(target), json.loads(parameters), target), Path(root))))


def _answer(process: Any, what: str) -> Any:
    out, err = process.communicate()
    expect(process.returncode == 0, f"{what} failed: {err.strip().splitlines()[-1] if err.strip() else 'no message'}")
    return json.loads(out.strip().splitlines()[-1])


_APART = "from mtcore.testing.readers import told_apart; told_apart()"


def _clips(subject: Subject) -> list[Clip]:
    return list(subject.component.clips(subject.root))


def _difference(one: Any, other: Any) -> str:
    """The first place where two answers of `told` differ."""
    for what in ("tasks", "clips"):
        for a, b in zip(one[what], other[what]):
            if a != b:
                return f"{a} and {b}"
        if len(one[what]) != len(other[what]):
            return f"{len(one[what])} and {len(other[what])} {what}"
    return ""


def _unordered(answer: dict[str, Any]) -> dict[str, Any]:
    """The same without its order, which is another rule's matter."""
    return {"tasks": sorted([name, kind, sorted(labels), unit] for name, kind, labels, unit in answer["tasks"]),
            "clips": sorted(answer["clips"], key=lambda clip: clip[0])}


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file()) if root.exists() else []


@contextlib.contextmanager
def _copy(subject: Subject) -> Iterator[Path]:
    """The example in a folder that may be changed."""
    subject.example
    with tempfile.TemporaryDirectory(prefix="mtcore-") as folder:
        root = Path(folder).resolve() / subject.root.name
        if subject.root.exists():
            shutil.copytree(subject.root, root)
        yield root


def _recordings(reader: Reader, root: Path) -> set[Path]:
    return {clip.audio.path for clip in reader.clips(root) if isinstance(clip.audio, File) and clip.audio.path.is_file()}


@rule("reader")
def same_order(subject: Subject) -> None:
    """Tasks, labels and clips come in the same order when the folder is read again."""
    reader, root = subject.component, subject.root
    found = _difference(told(reader, root), told(build(subject.cls, subject.example.parameters, subject.name), root))
    expect(not found, f"read twice, the first difference is {found}")


@rule("reader")
def same_under_hash_seeds(subject: Subject) -> None:
    """Tasks, labels and clips are the same in processes with different hash seeds: no order out of a set."""
    if _difference(told(subject.component, subject.root), told(subject.component, subject.root)):
        raise NotReached("the order differs without that")
    parameters = json.dumps(dict(subject.example.parameters))
    processes = [run_apart(_APART, subject.spec.target, parameters, str(subject.root), PYTHONHASHSEED=str(seed)) for seed in SEEDS]
    answers = [_answer(process, "reading in a fresh process") for process in processes]
    for seed, answer in zip(SEEDS, answers):
        found = _difference(answers[0], answer)
        expect(not found, f"with PYTHONHASHSEED {SEEDS[0]} and {seed}, the first difference is {found}; sort what comes out of a set")


@rule("reader")
def survives_a_spawned_process(subject: Subject) -> None:
    """Reader and clips can be pickled, and a fresh process reads the same and loads the same audio."""
    reader, root = subject.component, subject.root
    clips = [clip for clip in _clips(subject) if isinstance(clip.audio, Lazy)][:3]
    with tempfile.TemporaryDirectory(prefix="mtcore-") as folder:
        path = Path(folder) / "reader.pickle"
        try:
            path.write_bytes(pickle.dumps((reader, root, clips)))
        except Exception as error:
            raise CheckFailed(f"{type(error).__name__}: {error}; a Lazy's function must be importable, no lambda") from error
        there, loaded = _answer(run_apart(_APART, str(path)), "reading in a spawned process")
    found = _difference(_unordered(json.loads(json.dumps(told(reader, root)))), _unordered(there))
    expect(not found, f"here and in a spawned process, the first difference is {found}")
    here = [blake2b(decode(clip.audio)[0].tobytes(), digest_size=8).hexdigest() for clip in clips]
    wrong = [clip.id for clip, a, b in zip(clips, here, loaded) if a != b]
    expect(not wrong, f"clip {wrong[0] if wrong else ''}: its audio is other in a spawned process")


@rule("reader")
def unique_ids(subject: Subject) -> None:
    """Every clip has an id of its own."""
    seen: dict[str, Any] = {}
    for clip in _clips(subject):
        expect(clip.id not in seen, f"two clips have the id {clip.id!r}: {seen.get(clip.id)} and {clip.audio}")
        seen[clip.id] = clip.audio
    expect(seen, "the example holds no clip")


@rule("reader")
def paths_exist(subject: Subject) -> None:
    """Every clip's file exists, below the root that was given."""
    for clip in _clips(subject):
        if isinstance(clip.audio, File):
            expect(clip.audio.path.is_file(), f"clip {clip.id}: there is no file {clip.audio.path}")
            expect(clip.audio.path.resolve().is_relative_to(subject.root), f"clip {clip.id}: {clip.audio.path} is not below the root")


@rule("reader")
def every_file_reached(subject: Subject) -> None:
    """Every file of the example is some clip's audio or target, or its pattern is in the reader's `ignored`."""
    reached = set()
    for clip in _clips(subject):
        for value in (clip.audio, *clip.targets.values()):
            if isinstance(value, File):
                reached.add(value.path.resolve())
            elif isinstance(value, Lazy):
                reached.update(Path(item).resolve() for item in value.args if isinstance(item, (str, Path)))
    ignored = subject.component.ignored
    lost = [name for path in _files(subject.root) if path not in reached
            and not any(fnmatch(name := path.relative_to(subject.root).as_posix(), pattern) for pattern in ignored)]
    expect(not lost, f"{len(lost)} files are neither read nor in ignored = {ignored!r}: {', '.join(lost[:5])}")


@rule("reader")
def times_within_file(subject: Subject) -> None:
    """Stretches and events lie within the recording."""
    for clip in _clips(subject):
        lasts = None
        if isinstance(clip.audio, File):
            if not clip.audio.path.is_file():
                raise NotReached(f"there is no file {clip.audio.path}")
            try:
                lasts = probe(clip.audio).seconds
            except ClipError as error:
                raise CheckFailed(f"clip {clip.id}: {error}") from error
        events = [event for target in clip.targets.values() if isinstance(target, (list, tuple)) for event in target
                  if isinstance(event, Event)]
        if events and lasts is None:
            array, rate = decode(clip.audio)
            lasts = array.shape[-1] / rate if rate else None
        late = [event for event in events if lasts is not None and event.offset > lasts + SLACK]
        expect(not late, f"clip {clip.id} lasts {lasts or 0:g} s; found {late[0] if late else ''} (times are relative to the clip)")


@rule("reader")
def targets_declared(subject: Subject) -> None:
    """Every target belongs to a declared task and is one of its values; every declared task has a target somewhere."""
    reader, root = subject.component, subject.root
    tasks = {task.name: task for task in reader.tasks(root)}
    labelled = set()
    for clip in _clips(subject):
        for name, target in clip.targets.items():
            expect(name in tasks, f"clip {clip.id}: target for {name!r}; declared are {', '.join(tasks)}")
            try:
                tasks[name].check(target)
            except MtcoreError as error:
                raise CheckFailed(f"clip {clip.id}: {error}") from error
            labelled.add(name)
    bare = [name for name, task in tasks.items() if name not in labelled and task.kind != "none"]
    expect(not bare, f"no clip of the example has a target for {', '.join(bare)}")


@rule("reader")
def groups_within_parts(subject: Subject) -> None:
    """Clips with groups have the default one, and none of its values lies in two parts of one of the dataset's own schemes."""
    group, clips = subject.component.default_group, _clips(subject)
    if group is None:
        return
    known = sorted({name for clip in clips for name in clip.groups})
    expect(group in known or not known, f"default_group is {group!r}, but the clips' groups are {', '.join(known)}")
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for clip in clips:
        for scheme, part in clip.parts.items() if group in clip.groups else ():
            before, other = seen.setdefault((scheme, clip.groups[group]), (part, clip.id))
            expect(before == part, f"{group} {clip.groups[group]!r} lies in {before} ({other}) and {part} ({clip.id}) of {scheme}")


@rule("reader")
def group_values(subject: Subject) -> None:
    """Values of groups carry their source ("birds:site 3"), for equal values of different datasets are one group."""
    for clip in _clips(subject):
        for name, value in clip.groups.items():
            expect(isinstance(value, str) and ":" in value.strip(":"), f"clip {clip.id}: expected {name} as \"source:value\", found {value!r}")


@rule("reader")
def schemes(subject: Subject) -> None:
    """Parts are given by the schemes `given` and fold1 … foldN, none left out."""
    found = {scheme for clip in _clips(subject) for scheme in clip.parts}
    folds = {scheme for scheme in found if scheme != "given"}
    wanted = {f"fold{number}" for number in range(1, len(folds) + 1)}
    expect(folds == wanted, f"expected {', '.join(sorted(wanted))}, found {', '.join(sorted(folds))}")


@rule("reader", applies=lambda subject: not subject.cls.generated)
def missing_root(subject: Subject) -> None:
    """A root without the dataset, missing or empty, is an error that names it."""
    reader = subject.named
    with tempfile.TemporaryDirectory(prefix="mtcore-") as folder:
        root = Path(folder).resolve() / "empty"
        for what in ("missing", "empty"):
            try:
                read("dataset", reader, root)
            except MtcoreError as error:
                expect(str(root) in str(error), f"the error for a {what} root does not name it: {error}")
            except Exception as error:
                raise CheckFailed(f"expected an mtcore error for a {what} root (table and scan raise one), found "
                                  f"{type(error).__name__}: {error}") from error
            else:
                raise CheckFailed(f"clips were found below a root that is {what}; a reader of generated data says `generated = True`")
            root.mkdir(exist_ok=True)


@rule("reader")
def root_unchanged(subject: Subject) -> None:
    """Reading creates, changes and deletes nothing below the root."""
    state = lambda: {path: (path.stat().st_mtime_ns, blake2b(path.read_bytes()).digest()) for path in _files(subject.root)}
    subject.component
    before = state()
    told(subject.component, subject.root)
    after = state()
    changed = sorted(str(path.relative_to(subject.root)) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
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

    with mock.patch.object(socket.socket, "connect", refuse("connect")), mock.patch.object(socket, "getaddrinfo", refuse("getaddrinfo")), \
            mock.patch.object(socket, "gethostbyname", refuse("gethostbyname")):
        try:
            told(subject.component, subject.root)
        except Exception:
            if not asked:
                raise
    expect(not asked, f"reading asked for the network: {', '.join(asked[:3])}")


@rule("reader")
def metadata_only(subject: Subject) -> None:
    """Clips are the same when the recordings are empty files: reading does not decode."""
    reader = subject.component
    with _copy(subject) as root:
        before = told(reader, root)
        for path in _recordings(reader, root):
            os.truncate(path, 0)
        try:
            after = told(reader, root)
        except Exception as error:
            raise CheckFailed(f"with empty recordings, reading fails with {type(error).__name__}: {error}") from error
    found = _difference(_unordered(before), _unordered(after))
    expect(not found, f"with empty recordings, the first difference is {found}")


@rule("reader")
def constant_memory(subject: Subject) -> None:
    """Memory does not grow with the recordings' length: nothing of them is held or read."""
    reader = subject.component
    with _copy(subject) as root:
        for path in _recordings(reader, root):
            os.truncate(path, path.stat().st_size + INFLATED)
        started = tracemalloc.is_tracing()
        if not started:
            tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for clip in reader.clips(root):
                pass
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            if not started:
                tracemalloc.stop()
    expect(peak < MEMORY, f"reading {len(_recordings(reader, subject.root))} clips with recordings of {INFLATED >> 20} MB took "
                          f"{peak >> 20} MB; read metadata, not recordings")
    for clip in _clips(subject):
        try:
            size = len(pickle.dumps(clip))
        except Exception:
            continue  # another rule's matter
        expect(size < CLIP, f"clip {clip.id} carries {size} bytes; let a Lazy load what is large")
