"""All datasets of an experiment: read, digested and split, once for all variations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..clip import File
from ..errors import ExperimentError
from ..extracting.fill import Wanted, fill, rows_of
from ..extracting.store import Store
from ..plugin import Task
from ..preparing.similar import find_similar
from ..preparing.split import Parts, SplitDataset, check_leaks, draw_parts, joined_groups, labels_in_one_group
from ..progress import Progress
from ..reading.dataset import Dataset, join_tasks, read
from ..reading.digests import Digests
from ..streams import derive
from .build import Builder
from .file import Config, DatasetConfig, MaterialConfig, resolve_path

__all__ = ["Corpus", "read_corpus"]


@dataclass
class Corpus:
    """`digests` and `groups` (component numbers) per dataset and clip; `bad` says which clips cannot be used; `notes` go to the log."""

    datasets: list[Dataset]
    materials: list[Dataset]
    tasks: dict[str, Task]
    digests: dict[str, list[str | None]]
    groups: dict[str, np.ndarray]
    parts: Parts
    bad: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def everything(self) -> list[Dataset]:
        return self.datasets + self.materials

    def keys(self, dataset: Dataset) -> list[str | None]:
        """Its clips' row keys in feature stores; None for clips that cannot be used."""
        return _keys(dataset, self.digests[dataset.name])


def read_corpus(config: Config, registry, folder: Path, cache: Path, jobs: int = 1, progress: Progress | None = None,
                required: Sequence[str] = ()) -> Corpus:
    """Read, digest, split. Raises `DataError`, `ExperimentError` and `LeakError`; unreadable files (`bad`) are left to extraction."""
    progress = progress or Progress()

    def found(kind: str) -> Iterator[Dataset]:
        for name, one in getattr(config, kind).items():
            reader = registry.make("reader", one.reader, path=f"{kind}.{name}.reader", search=folder)
            yield read(name, reader, resolve_path(one.root, folder), getattr(one, "tasks", ()))  # materials have none

    datasets, materials = list(found("datasets")), list(found("materials"))
    tasks = join_tasks(datasets, {name: task.labels for name, task in config.tasks.items() if task.labels})
    for name in config.tasks:
        if name not in tasks:
            raise ExperimentError(f"tasks.{name}: no dataset has this task; found {', '.join(tasks)}")
    if config.split.stratify and not (tasks.get(config.split.stratify) and tasks[config.split.stratify].labels):
        raise ExperimentError(f"split.stratify: expected a task with labels out of "
                              f"{', '.join(name for name, task in tasks.items() if task.labels) or 'none'}; found {config.split.stratify!r}")
    digests, bad, split = {}, {}, []
    keeper = Digests(cache)
    for dataset in datasets + materials:
        digests[dataset.name], errors = keeper.of([clip.audio for clip in dataset.clips], jobs=jobs, progress=progress)
        bad |= {dataset.key(index): str(error) for index, error in errors.items()}
        same = digests[dataset.name]
        if config.split.identical == "samples":
            same, _ = Digests(cache, samples=True).of([clip.audio for clip in dataset.clips], jobs=jobs, progress=progress)
        split.append(_split_dataset(dataset, config, same))
    alike, notes = _similar(config, registry, folder, cache, datasets + materials, digests, jobs, progress)
    split = [replace(one, alike=alike.get(one.name)) for one in split]
    joined = joined_groups(split)
    how = config.split
    drawn = [draw_parts(split, folds=how.folds, test=how.test, validation=how.validation, accept=how.accept_leaks,
                        seed=derive(how.seed, "repeat", repeat) if repeat else how.seed) for repeat in range(how.repeats)]
    parts = Parts([fold for one in drawn for fold in one.folds], list(dict.fromkeys(note for one in drawn for note in one.notes)))
    check_leaks(split, parts, how.accept_leaks)
    if idle := [name for name in how.accept_leaks if not any(name in one.accepted for one in drawn)]:
        raise ExperimentError(f"split.accept_leaks: no leak goes by the name {', '.join(map(repr, idle))}; take it out")
    corpus = Corpus(datasets, materials, tasks, digests, {d.name: g for d, g in zip(datasets + materials, joined)}, parts, bad,
                    [line for dataset in datasets for line in dataset.dropped] + notes + list(parts.notes))
    _drop_tasks_fixed_by_groups(corpus, config, required)
    return corpus


def _keys(dataset: Dataset, digests: Sequence[str | None]) -> list[str | None]:
    return [digest and rows_of(digest, clip.audio) for digest, clip in zip(digests, dataset.clips)]


def _similar(config: Config, registry, folder: Path, cache: Path, datasets: Sequence[Dataset], digests: Mapping[str, Sequence[str | None]],
             jobs: int, progress: Progress) -> tuple[dict[str, np.ndarray], list[str]]:
    """Per dataset, the set of alike clips that each lies in, and lines for the log; vectors lie in a feature store like any other."""
    if not (found := Builder(config, registry, folder).similar()):
        return {}, []
    chain, threshold = found
    keys = {dataset.name: _keys(dataset, digests[dataset.name]) for dataset in datasets}
    wanted = Wanted(chain, Store(cache / "features" / chain.key, chain.prefix))
    for dataset in datasets:
        for clip, key in enumerate(keys[dataset.name]):
            if key:
                wanted.clips.setdefault(key, (dataset.key(clip), dataset.clips[clip].audio))
    failed = fill([wanted], jobs, progress)
    similar = find_similar(wanted.store, {key: name for key, (name, _) in wanted.clips.items() if key not in failed}, threshold)
    pairs = ", ".join(f"{one} and {other} ({cosine:.3f})" for one, other, cosine in similar.told)
    notes = [f"{similar.pairs} pairs of different recordings are alike by {chain.steps[-1].name} (cosine of at least {threshold:g}) and split as "
             f"one{': ' if pairs else ''}{pairs}{', …' if similar.pairs > len(similar.told) else ''}"]
    notes += [f"warning: {len(failed)} clips are compared with no other: {', '.join(map(str, list(failed.values())[:3]))}"] if failed else []
    return {name: np.array([similar.sets.get(key, -1) for key in some], np.int64) for name, some in keys.items()}, notes


def group_name(dataset: Dataset, config: Config) -> str | None:
    return _config(dataset, config).group or dataset.reader.component.default_group


def _config(dataset: Dataset, config: Config) -> DatasetConfig | MaterialConfig:
    return config.datasets.get(dataset.name) or config.materials[dataset.name]


def grouping(dataset: Dataset, config: Config) -> str:
    """What holds the dataset's split together, in words."""
    name = group_name(dataset, config)
    number = len({clip.groups[name] for clip in dataset.clips if name in clip.groups})
    if number:
        return f"split by {name} ({number} groups)"
    others = sorted({other for clip in dataset.clips for other in clip.groups})
    return "no groups: every clip is independent" + (f"; could serve as group: {', '.join(others)}" if others else "")


def _split_dataset(dataset: Dataset, config: Config, digests: Sequence[str | None]) -> SplitDataset:
    group, only = _config(dataset, config).group, getattr(_config(dataset, config), "parts", None)
    where = f"{'datasets' if dataset.name in config.datasets else 'materials'}.{dataset.name}"
    if group and not any(group in clip.groups for clip in dataset.clips):
        known = sorted({name for clip in dataset.clips for name in clip.groups})
        raise ExperimentError(f"{where}.group: {dataset.reader.name} gives the groups {', '.join(known) or 'none'}; found {group!r}")
    audio = [(digest or f"bad:{dataset.name}:{i}", *((clip.audio.start, clip.audio.stop) if isinstance(clip.audio, File) else (0.0, None)))
             for i, (digest, clip) in enumerate(zip(digests, dataset.clips))]
    return SplitDataset(dataset.name, [dataset.group(i, group_name(dataset, config)) for i in range(len(dataset.clips))], audio,
                        [clip.parts for clip in dataset.clips], _labels(dataset, config.split.stratify), only and tuple(only))


def _labels(dataset: Dataset, stratify: str | None) -> np.ndarray:
    """Counts to stratify by: of the task that the experiment names, else of the first with labels."""
    names = [stratify] if stratify in dataset.tasks else [name for name, task in dataset.tasks.items() if task.labels]
    return _counts(dataset, names[0]) if names else np.zeros((len(dataset.clips), 0))


def _counts(dataset: Dataset, task: str) -> np.ndarray:
    """[clips, labels]: 1 where a clip has a label."""
    labels = dataset.tasks[task].labels
    counts = np.zeros((len(dataset.clips), len(labels)))
    for row in range(len(counts)):
        counts[row, [labels.index(label) for label in dataset.labels(row, task)]] = 1
    return counts


def _drop_tasks_fixed_by_groups(corpus: Corpus, config: Config, required: Sequence[str]) -> None:
    """A label whose clips all lie in one group cannot be both trained and tested."""
    for dataset in list(corpus.datasets):
        group = group_name(dataset, config)
        for name, task in list(dataset.tasks.items()):
            if not task.labels or any(clip.parts for clip in dataset.clips):
                continue
            counts = _counts(dataset, name)
            single = labels_in_one_group(counts, corpus.groups[dataset.name])
            held = [label for label, one, count in zip(task.labels, single, counts.sum(0)) if one and count > 0]
            if not held or len(held) < np.count_nonzero(counts.sum(0)):
                if held:
                    corpus.notes.append(f"warning: dataset {dataset.name}, task {name}: all clips of {', '.join(held)} lie in one group "
                                        f"({group or 'clip'}), so that they cannot be both trained and tested")
                continue
            other = sorted({g for clip in dataset.clips for g in clip.groups} - {group, name})
            if config.datasets[dataset.name].tasks is not None or name in required or len(dataset.tasks) == 1:
                raise ExperimentError(f"dataset {dataset.name}: every label of task {name} lies in one group, since the split is by {group}: "
                                      f"it cannot be both trained and tested. Split by another group (datasets.{dataset.name}.group = "
                                      f"{' or '.join(map(repr, other)) or '…'}), or leave the task out")
            corpus.notes.append(f"dataset {dataset.name}: task {name} left out, since each of its labels lies in one group of {group}")
            replaced = replace(dataset, tasks={key: value for key, value in dataset.tasks.items() if key != name})
            corpus.datasets[corpus.datasets.index(dataset)] = dataset = replaced
    held_tasks = {name for dataset in corpus.datasets for name in dataset.tasks}
    corpus.tasks = {name: task for name, task in corpus.tasks.items() if name in held_tasks}
