"""What a reader says, in a form that can be compared: here, in a fresh process, and of a copy of the example."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..clip import Clip, File, Lazy
from ..plugin import Event, Reader
from ..plugin.building import build
from ..plugin.registry import resolve_target
from ..reading.decode import decode
from .kit import Subject, expect

__all__ = ["APART", "answer", "clips_of", "copied", "difference", "files", "recordings", "told", "told_apart", "unordered"]

APART = "from mtcore.testing.telling import told_apart; told_apart()"
"""What a fresh process runs."""


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
    if isinstance(value, dict):
        return {str(key): _plain(item, root) for key, item in value.items()}
    if hasattr(value, "tobytes"):  # an array, or one of its numbers
        return [str(value.dtype), list(value.shape), blake2b(value.tobytes(), digest_size=8).hexdigest()]
    if isinstance(value, (bool, int, float, type(None))):
        return value
    return (value if isinstance(value, str) else repr(value)).replace(str(root), "<root>")


def told_apart() -> None:
    """In a fresh process: what the reader says whose target, parameters and root the arguments name, or the pickled one, whose
    clips' audio is loaded too."""
    if len(sys.argv) == 2:
        reader, root, clips = pickle.loads(Path(sys.argv[1]).read_bytes())
        loaded = [blake2b(decode(clip.audio)[0].tobytes(), digest_size=8).hexdigest() for clip in clips]
        print("\n" + json.dumps([told(reader, root), loaded]))
    else:
        target, parameters, root = sys.argv[1:]
        print("\n" + json.dumps(told(build(resolve_target(target), json.loads(parameters), target), Path(root))))


def answer(process: Any, what: str) -> Any:
    out, err = process.communicate()
    expect(process.returncode == 0, f"{what} failed: {err.strip().splitlines()[-1] if err.strip() else 'no message'}")
    return json.loads(out.strip().splitlines()[-1])


def clips_of(subject: Subject) -> list[Clip]:
    return list(subject.component.clips(subject.root))


def difference(one: Any, other: Any) -> str:
    """The first place where two answers of `told` differ."""
    for what in ("tasks", "clips"):
        for a, b in zip(one[what], other[what]):
            if a != b:
                return f"{a} and {b}"
        if len(one[what]) != len(other[what]):
            return f"{len(one[what])} and {len(other[what])} {what}"
    return ""


def unordered(answer: dict[str, Any]) -> dict[str, Any]:
    """The same without its order, which is another rule's matter."""
    return {"tasks": sorted([name, kind, sorted(labels), unit] for name, kind, labels, unit in answer["tasks"]),
            "clips": sorted(answer["clips"], key=lambda clip: clip[0])}


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file()) if root.exists() else []


@contextlib.contextmanager
def copied(subject: Subject) -> Iterator[Path]:
    """The example in a folder that may be changed."""
    subject.example
    with tempfile.TemporaryDirectory(prefix="mtcore-") as folder:
        root = Path(folder).resolve() / subject.root.name
        if subject.root.exists():
            shutil.copytree(subject.root, root)
        yield root


def recordings(reader: Reader, root: Path) -> set[Path]:
    """Files that are clips' audio."""
    return {clip.audio.path for clip in reader.clips(root) if isinstance(clip.audio, File) and clip.audio.path.is_file()}
