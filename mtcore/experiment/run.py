"""The plan of an experiment and running it: what is missing is made, what exists is kept, what was cut off is continued."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence
from uuid import uuid4

import numpy as np
import platformdirs
import torch

from ..clip import PARTS, File, Lazy
from ..errors import DataError, ExperimentError, MtcoreError, at
from ..extracting.chain import Chain
from ..extracting.fill import WORKER_LOST, Wanted, fill
from ..extracting.store import Store
from ..plugin import Context
from ..plugin.registry import Registry, get_registry
from ..preparing.data import RunData
from ..preparing.inputs import Input, Material, target_input
from ..progress import Progress, in_parallel
from ..reading.dataset import Dataset
from ..reading.digests import Digests
from ..reporting.fanout import Reporters
from ..runfolder import RunFolder
from ..streams import derive, stream
from ..training.model import build_model
from ..training.optimizers import depends_on_length
from ..training.processes import Processes, device_of
from ..training.setup import Setup
from .build import Builder
from .check import check_experiment
from .corpus import Corpus, read_corpus
from .file import Config, check_among, load, parse, resolve_path
from .finding import find_run, save_trained, stretch, trained_on
from .stored import task_info
from .vary import Variation, expand

__all__ = ["Experiment", "Run"]


@dataclass
class Run:
    """One variation and fold: its configuration, data and folder."""

    experiment: Experiment
    variation: Variation
    fold: int
    config: Config
    builder: Builder
    folder: RunFolder
    identity: str
    tasks: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.path.name

    @property
    def length(self) -> dict[str, int | None]:
        train, trainer = self.config.train, self.builder.training("trainer")
        own = trainer.component.length()
        if own and (train.updates or train.epochs not in (None, own)):
            raise ExperimentError(f"train.{'updates' if train.updates else 'epochs'}: {trainer.name} has {own} epochs by its own parameters, found "
                                  f"{train.updates or train.epochs}; leave it out")
        return {"epochs": own or (train.epochs if train.epochs or train.updates else 10), "updates": train.updates}

    @property
    def done(self) -> bool:
        info = self.folder.info
        return info.get("status") == "done" and info.get("length") == self.length and info.get("stop") == self._stop()

    def _stop(self) -> dict[str, Any]:
        return dict(vars(self.config.train.stop))

    def data(self) -> RunData:
        """Rows of the feature stores (what is missing is extracted first), parts of this fold, and its state, fitted now."""
        self.experiment.extract([self])
        return self._fitted()

    def _fitted(self) -> RunData:
        data = self.experiment._data(self)
        data.fit()
        return data

    def model(self, data: RunData) -> torch.nn.Module:
        """The network, with its initial values drawn from the run's seed."""
        shapes, builder = data.check_shapes(), self.builder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.config.seed, "parameters") % 2**63)
            if self.config.model.module:
                return builder.module()(shapes, data.tasks)
            trunks, takes = builder.trunks()
            heads = {name: one.component for name, one in builder.heads(data.tasks).items()}
            return build_model({name: one.component for name, one in trunks.items()}, takes, shapes, data.tasks, heads,
                               builder.wiring(data.tasks, trunks))

    def setup(self, data: RunData, progress: Progress) -> Setup:
        builder, train = self.builder, self.config.train
        statistics = data.statistics()
        metrics = builder.metrics({**self.experiment.tasks, **data.tasks})
        for name, task in data.tasks.items():  # an extra that is missing is missed now, not after an epoch
            for metric in metrics[name]:
                metric.component.build(task)
        primary = {name: (found[0].component.primary, found[0].component.higher_is_better) if found else ("loss", False)
                   for name, found in metrics.items()}
        reporters = [builder.make("reporter", value, f"report.reporters[{i}]")
                     for i, value in enumerate(self.config.report.reporters)]
        watched = [train.stop.on] if isinstance(train.stop.on, str) else train.stop.on
        watched = [] if watched == ["loss"] else watched
        for one in watched:
            if one.partition(".")[0] not in self.experiment.tasks or not one.partition(".")[2]:
                raise ExperimentError(f"train.stop.on: expected loss, or TASK.FIGURE (or a list of some) with a task out of "
                                      f"{', '.join(self.experiment.tasks)}; found {one!r}")
        with (device := device_of(train.device)):  # what they keep is made there
            losses = {name: one.component.build(data.tasks[name], statistics[name]) for name, one in builder.losses(data.tasks).items()}
            balancing = builder.training("balancer").component.build(builder.weights(data.tasks))
        sampler = builder.training("sampler").component
        with at("train.sampler"):
            batches = sampler.build(data.rows("train").sampler_index(), train.batch_size)
        return Setup(
            heads={name: one.component for name, one in builder.heads(data.tasks).items()},
            losses=losses,
            metrics=metrics, primary=primary,
            balancing=balancing,
            batches=batches,
            reporters=Reporters({} if self.folder.silent else {one.name: one.component.build(self.folder.path) for one in reporters},
                                self.folder.log), processes=self.experiment.processes, device=device,
            optimizer=builder.optimizer(), scheduler=builder.scheduler(), progress=progress,
            seed=self.config.seed, **self.length,
            **{key: getattr(train, key) for key in ("batch_size", "accumulate", "clip", "parameters", "precision", "compile", "average",
                                                    "inspect", "on_memory")},
            watched=[one for one in watched if one.partition(".")[0] in data.tasks], patience=train.stop.patience, workers=train.workers,
            save_updates=train.save.updates, save_minutes=train.save.minutes,
            each_window=self.config.evaluation.windows == "each",
            batch_steps=[(step, step.component.prepare(Context((), tasks=data.tasks))) for step in builder.batch_steps()])

    def execute(self, progress: Progress) -> None:
        """Train, or continue, until done."""
        with self.folder.locked():
            self._execute(progress)

    def _execute(self, progress: Progress) -> None:
        start, folder = time.monotonic(), self.folder
        threads = torch.get_num_threads()
        torch.set_num_threads(self.config.train.threads)
        device = device_of(self.config.train.device)
        _deterministic("error" if device.type == "cpu" else "warn", self.config.train.compile)  # not all devices have such a form of everything
        try:
            data = self._fitted()
            for line in _absent_labels(data):
                folder.log(line)
            save_trained(folder, self._trained(data))
            folder.save_state({(step, scope or "shared"): state for (step, scope), state in data.states.items()})
            setup, model = self.setup(data, progress), self.model(data)
            before = self._continued()
            self.experiment.processes.wait()  # until all have looked at what is about to change
            folder.write_info({**self._info(data, setup, model), "epoch": before.get("epoch", 0), "best_epoch": before.get("best_epoch", 0)})
            folder.log(f"{'continue' if before else 'train'} {self.name} on {', '.join(d.name for d in data.datasets)}")
            for line in self.experiment.corpus.notes:
                folder.log(line)
            self.builder.training("trainer").component.build().run(model, data, folder, setup)
            folder.update_info(status="done", seconds=round(before.get("seconds", 0) + time.monotonic() - start, 2))
            setup.reporters.run_ended(folder.info)
        except BaseException as error:
            if folder.info:
                folder.update_info(status="interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
                folder.log(f"{'interrupted' if isinstance(error, KeyboardInterrupt) else 'failed'}: {error}")
            raise
        finally:
            torch.set_num_threads(threads)
            _deterministic("default", self.config.train.compile)

    def _trained(self, data: RunData) -> Iterator[tuple[str, float, float]]:
        """All audio that the run learns from, that of materials, teachers and of runs whose outputs it takes included."""
        corpus = self.experiment.corpus
        clips = [(data.datasets[d], c) for d, c in data.clips("train")]
        clips += [(one, int(c)) for one in corpus.materials for c in np.flatnonzero(corpus.parts.folds[self.fold][one.name] == 0)]
        yield from (stretch(digest, one.clips[c].audio) for one, c in clips if (digest := corpus.digests[one.name][c]))
        for place in self.builder.runs.values():
            yield from trained_on(place)

    def _continued(self) -> dict[str, Any]:
        """What the folder says of a run that may be continued; {} (and no checkpoint) where other rules for its length held: only more
        epochs than have ended, under the same stop rule, give what an uninterrupted run gives (the checkpoint may lie within the next)."""
        info = self.folder.info
        length, before = self.length, info.get("length") or {}
        same = info.get("stop") == self._stop() and (before == length or (
            length["epochs"] is not None and before.get("updates") is None and length["epochs"] > info.get("epoch", 0)))
        if info and not same:
            self.folder.log("the rules for the run's length have changed: trained anew")
            for checkpoint in () if self.folder.silent else self.folder.path.glob("checkpoints/*.pt"):
                checkpoint.unlink()
            return {}
        return info

    def _info(self, data: RunData, setup: Setup, model: torch.nn.Module) -> dict[str, Any]:
        config, corpus = self.config, self.experiment.corpus
        digests = {part: blake2b("\n".join(sorted(corpus.digests[data.datasets[d].name][c] or "" for d, c in data.clips(part))).encode(),
                                 digest_size=16).hexdigest() for part in PARTS}
        return {"status": "running", "experiment": config.name, "run": self.name, "variation": dict(self.variation.labels),
                "fold": self.fold + 1, "folds": len(corpus.parts.folds), "seed": config.seed, "identity": self.identity,
                "length": self.length, "stop": self._stop(), "config": self.builder.described(self.variation.datasets, data.tasks),
                "shapes": data.shapes, "scaling": data.scaling,
                "runs": {digest: [os.path.relpath(place, self.folder.path), str(place)] for digest, place in self.builder.runs.items()},
                "tasks": {name: {**task_info(task), "metric": setup.primary[name][0],
                                 "higher_is_better": setup.primary[name][1],
                                 "report": self.builder.task(name).report} for name, task in data.tasks.items()},
                "datasets": [d.name for d in data.datasets], "clips": {part: len(data.clips(part)) for part in PARTS}, "digests": digests,
                "primary": {name: metric for name, (metric, _) in setup.primary.items()}, "versions": versions(self.experiment.registry), "threads": config.train.threads, "processes": setup.processes.count,
                "parameters": sum(p.numel() for p in model.parameters())}


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


def _deterministic(mode: str, compiled: bool) -> None:
    """`use_deterministic_algorithms` tells torch's compiler too, and imports it for that, which takes a second."""
    if compiled:
        torch.use_deterministic_algorithms(mode != "default", warn_only=mode == "warn")
    else:
        torch.set_deterministic_debug_mode(mode)


def _absent_labels(data: RunData) -> Iterator[str]:
    """Warnings of labels that training or test lacks."""
    for name, task in data.tasks.items():
        trained, tested = ({label for d, c in data.clips(part) for label in data.datasets[d].labels(c, name)}
                           for part in ("train", "test"))
        for absent, line in ((tested - trained, "absent from training but tested; they count as recall 0"),
                             (set(task.labels) - tested, "absent from test; they are left out of its macro mean")):
            if absent:
                yield f"warning: task {name}: {', '.join(label for label in task.labels if label in absent)}: {line}"


def versions(registry: Registry) -> dict[str, str]:
    """Of Python and of every distribution that bears on figures: plugins that are well, none that is merely installed."""
    found = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "soundfile", "scikit-learn")}
    return {"python": platform.python_version(), **found} | {p.distribution: p.version for p in registry.plugins if p.loaded}
