"""Rules on what a reader says, tried on the miniature that the example builds."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..clip import File, Lazy
from ..errors import ClipError, MtcoreError
from ..plugin import Event
from ..plugin.building import build
from ..reading.decode import decode, probe
from .kit import CheckFailed, NotReached, Subject, expect, rule
from .plugins import run_apart
from .telling import APART, answer, clips_of, difference, files, told, unordered

__all__: list[str] = []

SEEDS = (1, 2, 3, 4)
"""Hash seeds: by chance, two labels have the same order under all of them in one of eight cases."""
SLACK = 0.02
"""Seconds: annotations are rounded to hundredths."""


@rule("reader")
def same_order(subject: Subject) -> None:
    """Tasks, labels and clips come in the same order when the folder is read again."""
    reader, root = subject.component, subject.root
    found = difference(told(reader, root), told(build(subject.cls, subject.example.parameters, subject.name), root))
    expect(not found, f"read twice, the first difference is {found}; sort by something that is always there, such as the path")


@rule("reader")
def same_under_hash_seeds(subject: Subject) -> None:
    """Tasks, labels and clips are the same in processes with different hash seeds: no order out of a set."""
    if difference(told(subject.component, subject.root), told(subject.component, subject.root)):
        raise NotReached("the order differs without that")
    parameters = json.dumps(dict(subject.example.parameters), default=list)
    processes = [run_apart(APART, subject.spec.target, parameters, str(subject.root), PYTHONHASHSEED=str(seed)) for seed in SEEDS]
    answers = [answer(process, "reading in a fresh process") for process in processes]
    for seed, other in zip(SEEDS, answers):
        found = difference(answers[0], other)
        expect(
            not found, f"with PYTHONHASHSEED {SEEDS[0]} and {seed}, the first difference is {found}; sort what comes out of a set"
        )


@rule("reader")
def survives_a_spawned_process(subject: Subject) -> None:
    """Reader and clips can be pickled, and a fresh process reads the same and loads the same audio."""
    reader, root = subject.component, subject.root
    clips = [clip for clip in clips_of(subject) if isinstance(clip.audio, Lazy)][:3]
    with tempfile.TemporaryDirectory(prefix="mtcore-") as folder:
        path = Path(folder) / "reader.pickle"
        try:
            path.write_bytes(pickle.dumps((reader, root, clips)))
        except Exception as error:
            raise CheckFailed(f"{type(error).__name__}: {error}; a Lazy's function must be importable, no lambda") from error
        there, loaded = answer(run_apart(APART, str(path)), "reading in a spawned process")
    found = difference(unordered(json.loads(json.dumps(told(reader, root)))), unordered(there))
    expect(not found, f"here and in a spawned process, the first difference is {found}")
    here = [blake2b(decode(clip.audio)[0].tobytes(), digest_size=8).hexdigest() for clip in clips]
    wrong = [clip.id for clip, a, b in zip(clips, here, loaded) if a != b]
    expect(not wrong, f"clip {wrong[0] if wrong else ''}: its Lazy loads something else in a spawned process than here")


@rule("reader")
def unique_ids(subject: Subject) -> None:
    """Every clip has an id of its own."""
    seen: dict[str, Any] = {}
    for clip in clips_of(subject):
        expect(clip.id not in seen, f"two clips have the id {clip.id!r}: {seen.get(clip.id)} and {clip.audio}")
        seen[clip.id] = clip.audio
    expect(seen, "the example holds no clip")


@rule("reader")
def paths_exist(subject: Subject) -> None:
    """Every file that is a clip's audio or target exists, below the root that was given."""
    for clip in clips_of(subject):
        for file in (value for value in (clip.audio, *clip.targets.values()) if isinstance(value, File)):
            expect(file.path.is_file(), f"clip {clip.id}: there is no file {file.path}")
            expect(
                file.path.resolve().is_relative_to(subject.root),
                f"clip {clip.id}: {file.path} is not below the root "
                f"{subject.root}; begin paths with the root that the reader is given",
            )


@rule("reader")
def every_file_reached(subject: Subject) -> None:
    """Every file of the example is some clip's audio or target, or its pattern is in the reader's `ignored`."""
    values = [value for clip in clips_of(subject) for value in (clip.audio, *clip.targets.values())]
    reached = {path.resolve() for value in values for path in _paths(value)}
    ignored = subject.component.ignored
    names = [path.relative_to(subject.root).as_posix() for path in files(subject.root) if path.resolve() not in reached]
    lost = [name for name in names if not any(fnmatch(name, pattern) for pattern in ignored)]
    expect(
        not lost,
        f"{len(lost)} files of the example are neither read nor in ignored = {ignored!r}: {', '.join(lost[:5])}; yield "
        "clips of them, or name them in `ignored` if they are none",
    )


def _paths(value: Any) -> Iterator[Path]:
    """Files that a clip's audio or target names, those among a Lazy's arguments included."""
    if isinstance(value, File):
        yield value.path
    elif isinstance(value, Lazy):
        yield from (path for item in value.args for path in _named(item))


def _named(item: Any) -> Iterator[Path]:
    if isinstance(item, (str, Path)):
        yield Path(item)
    elif isinstance(item, (list, tuple, dict)):
        yield from (path for inner in (item.values() if isinstance(item, dict) else item) for path in _named(inner))


@rule("reader")
def times_within_file(subject: Subject) -> None:
    """Stretches and events lie within the recording."""
    for clip in clips_of(subject):
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
        expect(not late, f"clip {clip.id} lasts {lasts or 0:g} s; found {late[0] if late else ''}; times count from the "
                          "clip's start, and what goes on behind its end is cut there")


@rule("reader")
def targets_declared(subject: Subject) -> None:
    """Every target belongs to a declared task and is one of its values; every declared task has a target somewhere."""
    reader, root = subject.component, subject.root
    tasks = {task.name: task for task in reader.tasks(root)}
    labelled = set()
    for clip in clips_of(subject):
        for name, target in clip.targets.items():
            expect(name in tasks, f"clip {clip.id}: target for {name!r}; declared are {', '.join(tasks)}")
            try:
                tasks[name].check(target)
            except MtcoreError as error:
                raise CheckFailed(f"clip {clip.id}: {error}") from error
            wanted, found = tasks[name].shape, getattr(target, "shape", None)
            fits = (
                wanted is None
                or found is None
                or len(wanted) == len(found)
                and all(a in (None, b) for a, b in zip(wanted, found))
            )
            expect(fits, f"clip {clip.id}: task {name} announces arrays of {wanted}, found {found}")
            labelled.add(name)
    bare = [name for name, task in tasks.items() if name not in labelled and task.kind != "none"]
    expect(not bare, f"no clip of the example has a target for {', '.join(bare)}; let the example hold one")


@rule("reader")
def groups_within_parts(subject: Subject) -> None:
    """Clips with groups have the default one, and none of its values lies in two parts of one of the dataset's own schemes."""
    group, clips = subject.component.default_group, clips_of(subject)
    if group is None:
        return
    known = sorted({name for clip in clips for name in clip.groups})
    expect(group in known or not known, f"default_group is {group!r}, but the clips' groups are {', '.join(known)}")
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for clip in clips:
        for scheme, part in clip.parts.items() if group in clip.groups else ():
            before, other = seen.setdefault((scheme, clip.groups[group]), (part, clip.id))
            expect(
                before == part,
                f"{group} {clip.groups[group]!r} lies in {before} ({other}) and {part} ({clip.id}) of {scheme}; if "
                "the dataset was published so, name this check among the expected failures",
            )


@rule("reader")
def group_values(subject: Subject) -> None:
    """Values of groups carry their source ("birds:site 3"), for equal values of different datasets are one group."""
    for clip in clips_of(subject):
        for name, value in clip.groups.items():
            expect(isinstance(value, str) and ":" in value.strip(":"), f"clip {clip.id}: expected {name} as \"source:value\", "
                                                                          f"found {value!r}")


@rule("reader")
def schemes(subject: Subject) -> None:
    """Parts are given by the schemes `given` and fold1 … foldN, none left out."""
    found = {scheme for clip in clips_of(subject) for scheme in clip.parts}
    folds = {scheme for scheme in found if scheme != "given"}
    wanted = {f"fold{number}" for number in range(1, len(folds) + 1)}
    expect(folds == wanted, f"expected folds to be called {', '.join(sorted(wanted))}, found {', '.join(sorted(folds))}")
