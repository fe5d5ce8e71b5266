"""Tasks: what is learned. Only the standard library."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .errors import DataError

__all__ = ["KINDS", "LABELLED", "Event", "Task"]

KINDS = ("binary", "multiclass", "multilabel", "regression", "events", "array", "none")
LABELLED = ("binary", "multiclass", "multilabel", "events")
"""Kinds whose targets are labels out of an ordered list."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, order=True)
class Event:
    """A labelled stretch of a clip; onset and offset in seconds from the clip's start."""

    onset: float
    offset: float
    label: str


@dataclass(frozen=True)
class Task:
    """What is learned: a name, a kind and, for labelled kinds, the labels in the order of the model's outputs.

    A target is a label (`binary`, `multiclass`; `binary` also takes a bool), a set of labels (`multilabel`), a finite
    number (`regression`), a list of `Event` (`events`), an array or a `File` (`array`), or nothing (`none`). In a
    `binary` task the second label is the positive one. The last size of an array's shape is None where it has a value for each
    frame of the first input with a time axis.
    """

    name: str
    kind: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    shape: tuple[int | None, ...] | None = None

    def __post_init__(self):
        if not _NAME.fullmatch(self.name):
            raise DataError(f"a task's name is lower-case letters, digits and _, beginning with a letter; found {self.name!r}")
        if self.kind not in KINDS:
            raise DataError(f"task {self.name}: a kind is one of {', '.join(KINDS)}; found {self.kind!r}")
        object.__setattr__(self, "labels", tuple(self.labels))
        wrong = [label for label in self.labels if not isinstance(label, str) or not label]
        if wrong:
            raise DataError(f"task {self.name}: labels are non-empty strings; found {wrong[0]!r}")
        if len(set(self.labels)) != len(self.labels):
            twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
            raise DataError(f"task {self.name}: labels given twice: {', '.join(twice)}")
        if self.kind in LABELLED and not self.labels or self.kind == "binary" and len(self.labels) != 2:
            raise DataError(f"task {self.name}: {self.kind} needs {'two labels' if self.kind == 'binary' else 'labels'}; "
                            f"found {list(self.labels)}")
        if self.labels and self.kind not in LABELLED:
            raise DataError(f"task {self.name}: {self.kind} has no labels; found {list(self.labels)}")

    @classmethod
    def binary(cls, name: str, labels: Iterable[str] = ("no", "yes")) -> Task:
        return cls(name, "binary", tuple(labels))

    @classmethod
    def multiclass(cls, name: str, labels: Iterable[str]) -> Task:
        return cls(name, "multiclass", tuple(labels))

    @classmethod
    def multilabel(cls, name: str, labels: Iterable[str]) -> Task:
        return cls(name, "multilabel", tuple(labels))

    @classmethod
    def regression(cls, name: str, unit: str = "") -> Task:
        return cls(name, "regression", unit=unit)

    @classmethod
    def events(cls, name: str, labels: Iterable[str]) -> Task:
        return cls(name, "events", tuple(labels))

    @classmethod
    def array(cls, name: str, shape: tuple[int | None, ...] | None = None) -> Task:
        return cls(name, "array", shape=shape)

    @classmethod
    def none(cls, name: str) -> Task:
        return cls(name, "none")

    @property
    def framed(self) -> bool:
        """Whether the target has the frames of an input."""
        return self.kind == "events" or bool(self.shape) and self.shape[-1] is None

    def labels_of(self, target: Any) -> tuple[str, ...]:
        """The labels that one target holds, whatever its kind; () for kinds without labels."""
        if self.kind == "binary" and isinstance(target, bool):
            return (self.labels[target],)
        if self.kind in ("binary", "multiclass"):
            return (target,)
        if self.kind == "multilabel":
            return tuple(sorted(target))
        return tuple(sorted({event.label for event in target})) if self.kind == "events" else ()

    def check(self, target: Any) -> None:
        """Raise `DataError` unless `target` is a valid target of this task."""
        if self.kind in ("binary", "multiclass"):
            if not isinstance(target, str) and not (self.kind == "binary" and isinstance(target, bool)):
                raise DataError(f"task {self.name}: expected one label, found {target!r}")
        elif self.kind == "multilabel":
            if isinstance(target, str) or not isinstance(target, (set, frozenset, list, tuple)):
                raise DataError(f"task {self.name}: expected a set of labels, found {target!r}")
        elif self.kind == "regression":
            if isinstance(target, (bool, str)) or not math.isfinite(float(target)):
                raise DataError(f"task {self.name}: expected a finite number, found {target!r}")
        elif self.kind == "events":
            for event in target:
                if not isinstance(event, Event) or not 0 <= event.onset <= event.offset < math.inf:
                    raise DataError(f"task {self.name}: expected Event(onset, offset, label) with 0 <= onset <= offset, "
                                    f"found {event!r}")
        elif self.kind == "array" and self.shape is not None and (found := getattr(target, "shape", None)) is not None:
            if len(found) != len(self.shape) or any(size not in (None, one) for size, one in zip(self.shape, found)):
                raise DataError(f"task {self.name}: expected an array of shape {self.shape}, found {tuple(found)}")
        unknown = [label for label in self.labels_of(target) if label not in self.labels]
        if unknown:
            raise DataError(f"task {self.name}: unknown label {unknown[0]!r}; the task declares {', '.join(self.labels)}")

    def encode(self, target: Any) -> Any:
        """The target in numbers: an index, a tuple of indices, a float, tuples (onset, offset, index), or itself."""
        if self.kind in ("binary", "multiclass"):
            return int(target) if isinstance(target, bool) else self.labels.index(target)
        if self.kind == "multilabel":
            return tuple(sorted(self.labels.index(label) for label in set(target)))
        if self.kind == "regression":
            return float(target)
        if self.kind == "events":
            return tuple((event.onset, event.offset, self.labels.index(event.label)) for event in sorted(target))
        return target
