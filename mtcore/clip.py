"""Clips: labelled stretches of sound (or of anything else that is an array). Only the standard library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import DataError

__all__ = ["PARTS", "Clip", "File", "Lazy"]

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class File:
    """A file, or the stretch of it from `start` to `stop` (seconds; `stop` None: to the end)."""

    path: Path
    start: float = 0.0
    stop: float | None = None

    def __post_init__(self):
        if not isinstance(self.path, Path):
            object.__setattr__(self, "path", Path(self.path))
        if not 0 <= self.start < (float("inf") if self.stop is None else self.stop):
            raise DataError(f"{self.path}: expected 0 <= start < stop in seconds, found start {self.start}, stop {self.stop}")

    def __str__(self):
        if self.start or self.stop is not None:
            return f"{self.path} [{self.start:g} s to {'end' if self.stop is None else f'{self.stop:g} s'}]"
        return str(self.path)


@dataclass(frozen=True)
class Lazy:
    """Data that does not lie in a file of its own.

    `load(*args)` is an importable function that gives `(array, rate in Hz or None)`; sound is float32 [channels, n].
    `key` names the content: equal keys promise equal arrays. Without a key the samples are digested, which costs a pass.
    """

    load: Callable[..., tuple[Any, float | None]]
    args: tuple = ()
    key: str | None = None

    def __str__(self):
        return f"{self.load.__module__}:{self.load.__qualname__}{self.args}"


@dataclass(frozen=True)
class Clip:
    """One labelled stretch of sound.

    id       unique in its dataset
    audio    `File` or `Lazy`
    targets  by task name; an absent key means: not labelled for that task
    groups   by group name, values that carry their source ("youtube:…"): what must not lie in two parts
    parts    by scheme: "given" holds in every fold, "fold1" … "foldN" are the dataset's own folds; values of `PARTS`
    """

    id: str
    audio: File | Lazy
    targets: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.id, str) or not self.id:
            raise DataError(f"a clip's id is a non-empty string, found {self.id!r}")
        for scheme, part in self.parts.items():
            if part not in PARTS:
                raise DataError(f"clip {self.id}: part of scheme {scheme!r} is one of {', '.join(PARTS)}; found {part!r}")
