"""A dataset as an experiment sees it: what the reader declares, renamed, mapped and checked once."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..clip import Clip
from ..errors import DataError, ExperimentError, MtcoreError, at
from ..plugin import Named, Task

__all__ = ["Dataset", "TaskUse", "join_tasks", "read"]


@dataclass(frozen=True, kw_only=True)
class TaskUse:
    """How an experiment uses one task of a reader: under which name (None: its own), with which labels ("" removes a label)."""

    as_: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """Clips in reading order with the targets of the chosen tasks; `dropped` says what was left out and why, `mapped`
    names the tasks whose labels the experiment mapped."""

    name: str
    reader: Named
    root: Path
    tasks: Mapping[str, Task]
    clips: tuple[Clip, ...]
    dropped: tuple[str, ...] = ()
    mapped: frozenset[str] = frozenset()

    def key(self, index: int) -> str:
        """The clip's name among all datasets."""
        return f"{self.name}/{self.clips[index].id}"

    def group(self, index: int, name: str | None) -> str | None:
        return self.clips[index].groups.get(name) if name else None

    def labels(self, index: int, task: str) -> tuple[str, ...]:
        """The labels of a task that a clip has; () where the dataset lacks the task or the clip a target."""
        targets = self.clips[index].targets
        return self.tasks[task].labels_of(targets[task]) if task in self.tasks and task in targets else ()


def read(name: str, reader: Named, root: Path, tasks: Iterable[str] | Mapping[str, TaskUse] | None = None) -> Dataset:
    """All clips of a dataset, with ids, targets and task names checked; `tasks` None takes every declared one as it is.

    Raises `DataError` for what the reader got wrong or the folder lacks, `ExperimentError` for a task it does not declare.
    """
    if not root.exists() and not reader.component.generated:
        raise DataError(f"dataset {name}: expected recordings below {root}, found nothing there; "
                        f"`mtcore info {reader.name}` says how to get them")
    declared = {}
    for task in _told(reader, "tasks", name, root):
        if task.name in declared:
            raise DataError(f"dataset {name}: {reader.name} declares task {task.name!r} twice")
        declared[task.name] = task
    uses = tasks if isinstance(tasks, Mapping) else dict.fromkeys(declared if tasks is None else tasks, TaskUse())
    for source in uses:
        if source not in declared:
            raise ExperimentError(f"datasets.{name}.tasks: {reader.name} declares {', '.join(declared) or 'no task'}; "
                                  f"found {source!r}")
    used = {source: _mapped(name, declared[source], use) for source, use in uses.items()}
    twice = [task.name for task in used.values() if [one.name for one in used.values()].count(task.name) > 1]
    if twice:
        raise ExperimentError(f"datasets.{name}.tasks: two tasks are called {twice[0]!r}; give one another name with `as`")
    clips, seen, removed = [], set(), Counter()
    for clip in _told(reader, "clips", name, root):
        if clip.id in seen:
            raise DataError(f"dataset {name}: two clips have the id {clip.id!r}")
        seen.add(clip.id)
        targets = {}
        for source, task in used.items():
            if source in clip.targets:
                with at(f"dataset {name}, clip {clip.id}"):
                    declared[source].check(clip.targets[source])
                target = _map_target(declared[source], clip.targets[source], uses[source].labels)
                if target is None:
                    removed[task.name] += 1
                else:
                    targets[task.name] = target
        unknown = set(clip.targets) - set(declared)
        if unknown:
            raise DataError(f"dataset {name}, clip {clip.id}: target for task {sorted(unknown)[0]!r}, which {reader.name} does not "
                            f"declare ({', '.join(declared)})")
        clips.append(clip if targets == clip.targets else replace(clip, targets=targets))
    if not clips:
        raise DataError(f"dataset {name}: {reader.name} found no clip below {root}")
    dropped = [f"dataset {name}: {count} targets of task {task} removed by the experiment's labels" for task, count in removed.items()]
    unlabelled = sum(1 for clip in clips if not clip.targets) if any(task.kind != "none" for task in used.values()) else 0
    if unlabelled:
        dropped.append(f"dataset {name}: {unlabelled} clips have no target of the chosen tasks and are not used")
        clips = [clip for clip in clips if clip.targets]
    if not clips:
        raise DataError(f"dataset {name}: no clip has a target of {', '.join(task.name for task in used.values())}")
    mapped = frozenset(task.name for source, task in used.items() if uses[source].labels)
    return Dataset(name, reader, root, {task.name: task for task in used.values()}, tuple(clips), tuple(dropped), mapped)


def _told(reader: Named, what: str, name: str, root: Path) -> Iterator[Any]:
    """What a reader yields. What it raises by accident (a file that is not as it expects) is an error with its place in the reader."""
    last = ""
    try:
        for item in getattr(reader.component, what)(root):
            yield item
            last = f" after clip {item.id}" if what == "clips" else ""
    except (MtcoreError, KeyboardInterrupt, MemoryError, GeneratorExit):
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = f" ({place.filename}, line {place.lineno})"
        raise DataError(f"dataset {name}: {reader.name} failed{last}: {type(error).__name__}: {error}{line}; is everything below {root} as "
                        "it expects?") from error


def _mapped(dataset: str, task: Task, use: TaskUse) -> Task:
    """The task under its new name with its new labels, in the order in which the old ones stand."""
    for label in use.labels:
        if label not in task.labels:
            raise ExperimentError(f"datasets.{dataset}.tasks.{task.name}.labels: {label!r} is no label of the task; "
                                  f"found {', '.join(task.labels)}")
    labels = tuple(dict.fromkeys(new for new in (use.labels.get(old, old) for old in task.labels) if new))
    return replace(task, name=use.as_ or task.name, labels=labels)


def _map_target(task: Task, target: Any, labels: Mapping[str, str]) -> Any:
    """The target in the new labels; None where nothing is left of it."""
    if not labels:
        return task.labels_of(target)[0] if isinstance(target, bool) else target
    if task.kind in ("binary", "multiclass"):
        label = task.labels_of(target)[0]
        return labels.get(label, label) or None
    if task.kind == "multilabel":
        return frozenset(new for new in (labels.get(old, old) for old in target) if new)
    if task.kind == "events":
        return [type(event)(event.onset, event.offset, new) for event in target
                if (new := labels.get(event.label, event.label))]
    return target


def join_tasks(datasets: Iterable[Dataset], labels: Mapping[str, Sequence[str]]) -> dict[str, Task]:
    """One task per name over all datasets: same kind, and equal labels unless `labels` lists them or one dataset's are a subset
    of the first one's because a mapping or `labels` says so. Raises `ExperimentError` that shows both lists."""
    joined: dict[str, Task] = {}
    first: dict[str, str] = {}
    for dataset in datasets:
        for name, task in dataset.tasks.items():
            if name in labels and task.labels:
                unlisted = [label for label in task.labels if label not in labels[name]]
                if unlisted:
                    raise ExperimentError(f"tasks.{name}.labels lists {', '.join(labels[name])}; dataset {dataset.name} also has "
                                          f"{', '.join(unlisted)}: add them, or map or remove them in datasets.{dataset.name}.tasks.{name}.labels")
                task = replace(task, labels=tuple(labels[name]))
            if name not in joined:
                joined[name], first[name] = task, dataset.name
                continue
            known = joined[name]
            if known.kind != task.kind:
                raise ExperimentError(f"task {name} is {known.kind} in dataset {first[name]} and {task.kind} in {dataset.name}; rename one "
                                      f"with datasets.{dataset.name}.tasks.{name}.as")
            if set(known.labels) != set(task.labels) and not (name in dataset.mapped and set(task.labels) <= set(known.labels)):
                raise ExperimentError(
                    f"task {name} has different labels: dataset {first[name]}: {', '.join(known.labels)}; dataset {dataset.name}: "
                    f"{', '.join(task.labels)}; list all of them in tasks.{name}.labels, or map them in datasets.{dataset.name}.tasks.{name}.labels")
    return joined

