"""The plan of an experiment and running it: what is missing is made, what exists is kept, what was cut off is continued."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import platformdirs

from ..clip import PARTS, File, Lazy
from ..errors import DataError, ExperimentError, MtcoreError
from ..extracting.chain import Chain
from ..extracting.fill import WORKER_LOST, Wanted, fill
from ..extracting.store import Store
from ..plugin.registry import Registry, get_registry
from ..preparing.data import RunData
from ..preparing.inputs import Input, Material, target_input
from ..progress import Progress, in_parallel
from ..reading.dataset import Dataset
from ..reading.digests import Digests
from ..runfolder import RunFolder
from ..streams import stream
from ..training.optimizers import depends_on_length
from ..training.processes import Processes
from .build import Builder
from .check import check_experiment, mixed_rates
from .corpus import Corpus, read_corpus
from .file import Config, check_among, load, parse, resolve_path
from .finding import find_run, stretch
from .run import Run
from .vary import Variation, expand

__all__ = ["Experiment"]


@dataclass
class Experiment:
    """One experiment: a dict with the words of the experiment file (or `Experiment.from_file`), and where its files lie.

    folder  what relative paths are relative to; runs: where run folders go; cache: where feature stores lie
    """

    content: Mapping[str, Any]
    folder: Path = field(default_factory=Path.cwd)
    runs_folder: Path | None = None
    cache: Path | None = None
    jobs: int | None = None
    sample: int | None = None
    registry: Registry = field(default_factory=get_registry)
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self):
        self.config = parse(self.content)
        self.folder = Path(self.folder)
        self.runs_folder = Path(self.runs_folder) if self.runs_folder else self.folder / "runs"
        self.cache = Path(self.cache) if self.cache else Path(platformdirs.user_cache_dir("mtcore"))
        self._stores: dict[str, Store] = {}
        self.processes = Processes()
        if self.processes.rank:
            self.progress = Progress()

    @classmethod
    def from_file(cls, path: Path | str, overrides: Mapping[str, str] | None = None, **options: Any) -> Experiment:
        content, folder = load(path, overrides)
        return cls(content, folder, **options)

    @cached_property
    def corpus(self) -> Corpus:
        """All datasets, read, digested and split."""
        vary = self.config.vary.get("tasks", [])
        required = {name for item in (vary if isinstance(vary, list) else []) if isinstance(item, list) for name in item}
        corpus = read_corpus(self.config, self.registry, self.folder, self.cache, self.jobs, self.progress, sorted(required))
        for name, dataset in self.config.datasets.items():
            for task, limits in dataset.max_per_label.items():
                if task not in corpus.tasks or not isinstance(limits, dict) or set(limits) - set(corpus.tasks[task].labels) \
                        or any(type(most) is not int or most < 0 for most in limits.values()):
                    raise ExperimentError(f"datasets.{name}.max_per_label.{task}: expected a number per label of a task out of "
                                          f"{', '.join(corpus.tasks)}; found {limits!r}")
        return corpus

    @property
    def tasks(self) -> dict[str, Any]:
        return self.corpus.tasks

    def variations(self) -> list[Variation]:
        """Combinations out of [vary]; a dataset left without tasks is dropped from its run."""
        found, has = [], {d.name: set(d.tasks) for d in self.corpus.datasets}
        for one in expand(self.content, list(has), list(self.tasks)):
            datasets = tuple(name for name in one.datasets if has[name] & set(one.tasks))
            tasks = tuple(name for name in one.tasks if any(name in has[d] for d in datasets))
            if tasks:
                found.append(replace(one, datasets=datasets, tasks=tasks))
        return found

    def runs(self) -> list[Run]:
        """All runs: variations times folds."""
        found = []
        for variation in self.variations():
            config = parse(variation.data)
            config.split = self.config.split  # drawn once, whatever seed varies
            tasks, builder = {name: self.tasks[name] for name in variation.tasks}, None
            for fold in range(len(self.corpus.parts.folds)):
                if builder is None or builder.runs:  # which stored runs may be used, each fold says
                    builder = Builder(config, self.registry, self.folder, partial(self._stored_run, fold, variation.datasets))
                    described = builder.described(variation.datasets, tasks)
                    self._check_inputs(builder, tasks)
                identity = self._identity(described, config, variation, fold)
                safe = "".join(c if c.isalnum() or c in "+-_.=" else "-" for c in variation.name)[:80]
                folder = RunFolder(self.runs_folder / config.name / f"{safe}-fold{fold + 1}-{identity[:6]}", self.processes.rank > 0)
                found.append(Run(self, variation, fold, config, builder, folder, identity, tasks))
        return found

    def _stored_run(self, fold: int, datasets: Sequence[str], text: str, path: str) -> Path:
        """The folder of the run that a text in the file means for a fold: one that has trained on nothing that is held back there."""
        held = {d.key(int(c)): stretch(digest, d.clips[c].audio) for d in self.corpus.datasets if d.name in datasets
                for c in np.flatnonzero(self.corpus.parts.folds[fold][d.name] > 0) if (digest := self.corpus.digests[d.name][c])}
        return find_run(resolve_path(text, self.folder), fold, held, path)

    def _check_inputs(self, builder: Builder, tasks: Mapping[str, Any]) -> None:
        for name in builder.config.teachers:
            stored = builder.teacher(name).component.stored
            if not stored.tasks.keys() & self.tasks.keys():
                raise ExperimentError(f"teachers.{name}: {stored.folder.path} has the tasks {', '.join(stored.tasks)}; expected one out of "
                                      f"{', '.join(self.tasks)}")
        for name, one in builder.config.inputs.items():
            if not one.task:
                continue
            check_among([one.task], self.tasks, f"inputs.{name}.task")
            if self.tasks[one.task].kind in ("events", "array", "none"):
                raise ExperimentError(f"inputs.{name}.task: expected a task with labels or numbers for whole clips; {one.task} is of the kind "
                                      f"{self.tasks[one.task].kind}")
            trunks, takes = ({}, {}) if builder.config.model.module else builder.trunks()
            if one.task in tasks and (not trunks or any(name in takes[trunk] for trunk in builder.wiring(tasks, trunks)[one.task])):
                raise ExperimentError(f"inputs.{name}.task: task {one.task} is learned, too, and would see its own targets; name the tasks to "
                                      f"learn in vary.tasks, or in tasks.{one.task}.trunks trunks without this input")

    def _identity(self, described: Mapping[str, Any], config: Config, variation: Variation, fold: int) -> str:
        digest = blake2b(digest_size=16)
        train = config.train
        length = [train.epochs, train.updates] if depends_on_length(described["train"]["scheduler"]) else None
        seen = {one.task: self.tasks[one.task].labels for one in config.inputs.values() if one.task}
        further = [one for one in (seen, self.processes.count if self.processes.count > 1 else None) if one]
        text = json.JSONEncoder(sort_keys=True, default=str).encode
        digest.update(json.dumps([described, fold, length, self.sample, *further], sort_keys=True, default=list).encode())
        for dataset in self.corpus.everything:
            if dataset.name in (*variation.datasets, *config.materials):
                parts = self.corpus.parts.folds[fold][dataset.name]
                for c, (clip, key, part) in enumerate(zip(dataset.clips, self.corpus.keys(dataset), parts)):
                    encoded = {name: self._arrays.get((dataset.name, c, name)) or self.tasks[name].encode(target)
                               for name, target in clip.targets.items()
                               if (name in variation.tasks or name in seen) and name in dataset.tasks}
                    row = [clip.id, key, int(part), encoded, dict(clip.groups)]
                    digest.update(text(row).encode())
        return digest.hexdigest()

    @cached_property
    def _arrays(self) -> dict[tuple[str, int, str], Any]:
        """What arrays to learn hold, by dataset, clip and task: a digest, of files with the stretch."""
        found = {(dataset.name, c, name): clip.targets[name] for dataset in self.corpus.datasets for name, task in dataset.tasks.items()
                 if task.kind == "array" for c, clip in enumerate(dataset.clips) if name in clip.targets}
        given = {place: target for place, target in found.items() if isinstance(target, (File, Lazy))}
        digests, _ = Digests(self.cache).of(list(given.values()), self.jobs, self.progress)
        told = {place: [digest, getattr(given[place], "start", 0), getattr(given[place], "stop", None)] for place, digest in zip(given, digests)}
        for place in found.keys() - given.keys():
            array = np.ascontiguousarray(found[place], np.float32)
            told[place] = [blake2b(array, digest_size=16).hexdigest(), array.shape]
        return told

    # Data -------------------------------------------------------------------------------------------------------------

    def _parts(self, run: Run, dataset: Dataset) -> np.ndarray:
        """Parts of one dataset in a run's fold, after `--sample` and the label limits, which act on training only."""
        name = dataset.name
        parts = self.corpus.parts.folds[run.fold][name].copy()
        if self.sample:
            rng = stream(run.config.seed, "sample", name)
            for code in range(len(PARTS)):
                members = np.flatnonzero(parts == code)
                parts[rng.permutation(members)[self.sample:]] = -1
        for task, limits in run.config.datasets[name].max_per_label.items():
            for label, most in limits.items():
                having = [c for c in range(len(parts)) if parts[c] == 0 and label in dataset.labels(c, task)]
                parts[stream(run.config.seed, "limit", name, task, label).permutation(np.array(having, int))[most:]] = -1
        return parts

    def store(self, chain) -> Store:
        if chain.key not in self._stores:
            self._stores[chain.key] = Store(self.cache / "features" / chain.key, chain.prefix)
        return self._stores[chain.key]

    def _data(self, run: Run, given: Callable[[Dataset, Chain, np.ndarray], Input] | None = None) -> RunData:
        """Rows of the feature stores, or what is `given` for a dataset, a chain and the parts of its clips."""
        corpus, given, inputs = self.corpus, given or self._input, {}
        materials: dict[str, dict[str, Material]] = {part: {} for part in PARTS}
        for one in corpus.materials:
            parts = corpus.parts.folds[run.fold][one.name]
            rows = given(one, run.builder.material(one.name), parts)
            for code, part in enumerate(PARTS):
                usable = [int(c) for c in np.flatnonzero(parts == code) if rows.keys[c]]
                materials[part][one.name] = Material(one.name, part, rows, usable)
        chosen = {d.name: d for d in corpus.datasets if d.name in run.variation.datasets}
        parts = {name: self._parts(run, dataset) for name, dataset in chosen.items()}
        for name, dataset in chosen.items():
            lessons, places = run.builder.lessons(name, run.tasks)
            chains = run.builder.chains(name) | lessons
            for chain in chains.values():
                chain.materials = materials
            inputs[name] = {key: target_input(dataset, chain, self.tasks[chain.task]) if chain.task else given(dataset, chain, parts[name])
                            for key, chain in chains.items()}
        live = {name: run.builder.teacher(name).component.stored for name in places if run.config.teachers[name].live}
        return RunData(list(chosen.values()), run.tasks, inputs, parts, {name: corpus.groups[name] for name in chosen},
                       run.config.seed, teachers=places, live=live)

    def _input(self, dataset: Dataset, chain: Chain, parts: np.ndarray) -> Input:
        store = self.store(chain)
        return Input(chain, store, [key if key in store.rows else None for key in self.corpus.keys(dataset)])

    def wanted(self, runs: list[Run]) -> list[Wanted]:
        """What these runs need of the feature stores; one entry per store."""
        found: dict[str, Wanted] = {}
        for run in runs:
            for dataset in self.corpus.everything:
                if dataset.name in run.config.materials:
                    chains, parts = [run.builder.material(dataset.name)], None
                elif dataset.name in run.variation.datasets:
                    chains = [*run.builder.chains(dataset.name).values(), *run.builder.lessons(dataset.name, run.tasks)[0].values()]
                    parts = self._parts(run, dataset) if self.sample else None
                else:
                    continue
                for chain in (one for one in chains if not one.task):
                    want = found.setdefault(chain.key, Wanted(chain, self.store(chain)))
                    for c, key in enumerate(self.corpus.keys(dataset)):
                        if key and (parts is None or parts[c] >= 0):
                            want.clips.setdefault(key, (dataset.key(c), dataset.clips[c].audio))
        return list(found.values())

    def extract(self, runs: list[Run] | None = None) -> None:
        """Fill the feature stores. Raises `DataError` that lists all clips that cannot be used, unless they may be skipped."""
        wanted = self.wanted(self.runs() if runs is None else runs)
        failed = {key: str(error) for key, error in fill(wanted, self.jobs, self.progress).items()}
        self.processes.wait()
        for line in dict.fromkeys(f"warning: {line}" for one in wanted for line in mixed_rates(one.chain.rates)):
            if line not in self.corpus.notes:
                self.progress.say(line)
                self.corpus.notes.append(line)
        self._refuse(self.corpus.bad | {message: message for message in failed.values()})
        told = list(self.corpus.bad.values()) + list(failed.values())
        if told:
            self.progress.say(f"{len(told)} clip{'s cannot be used and are' if len(told) > 1 else ' cannot be used and is'} skipped:")
            for line in told:
                self.progress.say(f"  {line}")
            self.corpus.notes += [f"clip skipped: {line}" for line in told if f"clip skipped: {line}" not in self.corpus.notes]

    def _refuse(self, bad: Mapping[str, str]) -> None:
        if bad and self.config.extract.on_error == "stop":
            lines = [f"  {clip}: {why}" if clip not in why else f"  {why}" for clip, why in bad.items()]
            raise DataError(f"{len(bad)} clip{'s' * (len(bad) != 1)} cannot be used:\n" + "\n".join(lines)
                            + "\nMend or remove them, or say on_error = \"skip\" in [extract] to go on without them")

    def run(self) -> list[Run]:
        """Do what is missing; skip what is done; continue what was cut off. With `jobs` above 1 so many runs at a time, each in a process of
        its own, or wherever `joblib.parallel_config` says."""
        runs = self.runs()
        missing = [run for run in runs if not run.done]
        if missing:
            self.extract(missing)
        if (self.jobs or 1) > 1 and len(missing) > 1 and self.processes.count == 1:
            return self._run_apart(runs, missing)
        failed: dict[str, MtcoreError] = {}
        for number, run in enumerate(runs, 1):
            state = "is done" if run.done else f"continues after epoch {run.folder.info['epoch']}" if run.folder.info.get("epoch") else "starts"
            self.progress.say(f"[{number}/{len(runs)}] {run.name} {state}")
            if not run.done:
                try:
                    run.execute(self.progress)
                except MtcoreError as error:
                    if len(runs) == 1 or self.processes.count > 1:
                        raise
                    failed[run.name] = error
                    self.progress.say(f"{run.name} failed: {error}")
        return self._told(runs, failed)

    def _told(self, runs: list[Run], failed: Mapping[str, MtcoreError]) -> list[Run]:
        """The runs, or an error that names those that failed."""
        if failed:
            lines = [f"  {error}" if name in str(error) else f"  {name}: {error}" for name, error in failed.items()]
            raise type(next(iter(failed.values())))(f"{len(failed)} of {len(runs)} runs failed:\n" + "\n".join(lines))
        return runs

    def _run_apart(self, runs: list[Run], missing: list[Run]) -> list[Run]:
        from joblib import delayed

        options = {key: getattr(self, key) for key in ("folder", "runs_folder", "cache", "sample")}
        token = uuid4().hex
        tasks = (delayed(_execute_apart)(token, self.content, options, run.name) for run in missing)
        failed = {}
        try:
            for name, error in self.progress.track(in_parallel(tasks, self.jobs, prefer=None), len(missing), "runs"):
                self.progress.say(f"{name} failed: {error}" if error else f"{name} is done")
                failed |= {name: error} if error else {}
        except BrokenProcessPool as error:
            raise DataError(WORKER_LOST) from error
        return self._told(runs, failed)

    # Checking ---------------------------------------------------------------------------------------------------------

    def check(self, clips: int = 4) -> list[str]:
        """Everything that can go wrong, found early: a few clips of each dataset and part go through to the loss; no features are stored."""
        return check_experiment(self, clips)


_APART: dict[str, Experiment] = {}
"""In a worker process: the experiment that it has read already."""


PARENT = os.getppid()


class _Watching(Progress):
    """Ends a worker whose parent has gone: its run is continued by whoever runs the experiment again."""

    def track(self, items, total, label):
        for item in items:
            if os.getppid() != PARENT:
                os._exit(1)
            yield item


def _execute_apart(token: str, content: Mapping[str, Any], options: Mapping[str, Any], name: str) -> tuple[str, MtcoreError | None]:
    """One run of an experiment, by its name, and the error that it ended with."""
    if token not in _APART:
        _APART.clear()
        _APART[token] = Experiment(content, **options)
    try:
        next(run for run in _APART[token].runs() if run.name == name).execute(_Watching())
    except MtcoreError as error:
        return name, error
    return name, None
