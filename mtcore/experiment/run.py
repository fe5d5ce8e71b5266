"""The plan of an experiment and running it: what is missing is made, what exists is kept, what was cut off is continued."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Mapping

import numpy as np
import platformdirs
import torch

from ..clip import PARTS
from ..errors import ExperimentError, MtcoreError
from ..extracting.chain import Chain
from ..extracting.fill import Wanted, fill, rows_of
from ..extracting.store import Store
from ..plugin import Context
from ..plugin.registry import Registry, get_registry
from ..preparing.data import Input, Material, RunData
from ..progress import Progress
from ..reading.dataset import Dataset
from ..reporting.fanout import Reporters
from ..runfolder import RunFolder
from ..streams import derive, stream
from ..training.gradient import Setup
from ..training.model import build_model
from ..training.optimizers import depends_on_length
from .build import Builder
from .check import check_experiment
from .corpus import Corpus, bad_clips, read_corpus
from .file import Config, load, parse
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
        train = self.config.train
        return {"epochs": train.epochs if train.epochs or train.updates else 10, "updates": train.updates}

    @property
    def done(self) -> bool:
        info = self.folder.info
        return info.get("status") == "done" and info.get("length") == self.length and info.get("stop") == self._stop()

    def _stop(self) -> dict[str, Any]:
        return dict(vars(self.config.train.stop))

    def data(self) -> RunData:
        """Rows of the feature stores, parts of this fold, and its state, fitted now."""
        data = self.experiment._data(self)
        data.fit()
        return data

    def model(self, data: RunData) -> torch.nn.Module:
        """The network, with its initial values drawn from the run's seed."""
        shapes, builder = data.check_shapes(), self.builder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.config.seed, "parameters") % 2**63)
            if self.config.model.module:
                from ..plugin.registry import resolve_target

                return resolve_target(self.config.model.module, search=self.experiment.folder)(shapes, data.tasks)
            trunks, takes = builder.trunks()
            heads = {name: one.component for name, one in builder.heads(data.tasks).items()}
            return build_model({name: one.component for name, one in trunks.items()}, takes, shapes, data.tasks, heads,
                               builder.wiring(data.tasks, trunks))

    def setup(self, data: RunData, progress: Progress) -> Setup:
        builder, train = self.builder, self.config.train
        statistics = data.statistics()
        metrics = builder.metrics(data.tasks)
        primary = {name: (found[0].component.primary, found[0].component.higher_is_better) if found else ("loss", False)
                   for name, found in metrics.items()}
        sampler = builder.make("sampler", train.sampler, "train.sampler").component
        reporting = {}
        for i, value in enumerate(self.config.report.reporters):
            one = builder.make("reporter", value, f"report.reporters[{i}]")
            reporting[one.name] = one.component.build(self.folder.path)
        task, _, figure = train.stop.on.partition(".")
        if train.stop.on != "loss" and (task not in self.experiment.tasks or not figure):
            raise ExperimentError(f"train.stop.on: expected loss or TASK.FIGURE with a task out of {', '.join(self.experiment.tasks)}; "
                                  f"found {train.stop.on!r}")
        return Setup(
            heads={name: one.component for name, one in builder.heads(data.tasks).items()},
            losses={name: one.component.build(data.tasks[name], statistics[name]) for name, one in builder.losses(data.tasks).items()},
            metrics=metrics, primary=primary,
            balancing=builder.make("balancer", train.balancer, "train.balancer").component.build(builder.weights(data.tasks)),
            batches=sampler.build(data.rows("train").sampler_index(), train.batch_size),
            reporters=Reporters(reporting, self.folder.log), optimizer=builder.optimizer(), scheduler=builder.scheduler(), progress=progress,
            seed=self.config.seed, **self.length, batch_size=train.batch_size, accumulate=train.accumulate, clip=train.clip,
            watched=train.stop.on if train.stop.on != "loss" else "", patience=train.stop.patience, workers=train.workers,
            each_window=self.config.evaluation.windows == "each",
            batch_steps=[(step, step.component.prepare(Context((), tasks=data.tasks))) for step in builder.batch_steps()])

    def execute(self, progress: Progress) -> None:
        """Train, or continue, until done."""
        start, folder = time.monotonic(), self.folder
        threads = torch.get_num_threads()
        torch.set_num_threads(self.config.train.threads)
        torch.use_deterministic_algorithms(True)
        try:
            data = self.data()
            for name, task in data.tasks.items():
                self._warn_of_absent(data, name, task)
            folder.save_state({(step, scope or "shared"): state for (step, scope), state in data.states.items()})
            setup, model = self.setup(data, progress), self.model(data)
            before = self._continued()
            folder.write_info({**self._info(data, setup, model), "epoch": before.get("epoch", 0), "best_epoch": before.get("best_epoch", 0)})
            folder.log(f"{'continue' if before else 'train'} {self.name} on {', '.join(d.name for d in data.datasets)}")
            for line in self.experiment.corpus.notes:
                folder.log(line)
            trainer = self.builder.make("trainer", self.config.train.trainer, "train.trainer").component.build()
            trainer.run(model, data, folder, setup)
            folder.update_info(status="done", seconds=round(before.get("seconds", 0) + time.monotonic() - start, 2))
            setup.reporters.run_ended(folder.info)
        except BaseException as error:
            if folder.info:
                folder.update_info(status="interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
                folder.log(f"{'interrupted' if isinstance(error, KeyboardInterrupt) else 'failed'}: {error}")
            raise
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(False)

    def _continued(self) -> dict[str, Any]:
        """What the folder says of a run that may be continued; {} (and no checkpoint) where other rules for its length held: only more
        epochs under the same stop rule give what an uninterrupted run gives."""
        info = self.folder.info
        length, before = self.length, info.get("length") or {}
        same = info.get("stop") == self._stop() and (before == length or (
            length["epochs"] is not None and before.get("updates") is None and length["epochs"] >= info.get("epoch", 0)))
        if info and not same:
            self.folder.log("the rules for the run's length have changed: trained anew")
            for checkpoint in self.folder.path.glob("checkpoints/*.pt"):
                checkpoint.unlink()
            return {}
        return info

    def _warn_of_absent(self, data: RunData, name: str, task: Any) -> None:
        if not task.labels:
            return
        trained, tested = (self._labels_in(data, name, task, part) for part in ("train", "test"))
        for absent, line in ((tested - trained, "absent from training but tested; they count as recall 0"),
                             (set(task.labels) - tested, "absent from test; they are left out of its macro mean")):
            if absent:
                self.folder.log(f"warning: task {name}: {', '.join(label for label in task.labels if label in absent)}: {line}")

    @staticmethod
    def _labels_in(data: RunData, name: str, task: Any, part: str) -> set[str]:
        return {label for d, c in data.clips(part)
                if name in data.datasets[d].tasks and name in (targets := data.datasets[d].clips[c].targets)
                for label in task.labels_of(targets[name])}

    def _info(self, data: RunData, setup: Setup, model: torch.nn.Module) -> dict[str, Any]:
        config, corpus = self.config, self.experiment.corpus
        digests = {part: blake2b("\n".join(sorted(corpus.digests[data.datasets[d].name][c] or "" for d, c in data.clips(part))).encode(),
                                 digest_size=16).hexdigest() for part in PARTS}
        return {"format": 1, "status": "running", "experiment": config.name, "run": self.name, "variation": dict(self.variation.labels),
                "fold": self.fold + 1, "folds": corpus.folds, "seed": config.seed, "identity": self.identity, "length": self.length,
                "stop": self._stop(), "config": self.builder.described(self.variation.datasets, data.tasks),
                "tasks": {name: {"kind": task.kind, "labels": task.labels, "unit": task.unit, "metric": setup.primary[name][0],
                                 "higher_is_better": setup.primary[name][1],
                                 "report": config.tasks[name].report if name in config.tasks else True} for name, task in data.tasks.items()},
                "datasets": [d.name for d in data.datasets], "clips": {part: len(data.clips(part)) for part in PARTS}, "digests": digests,
                "versions": versions(self.experiment.registry), "threads": config.train.threads,
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
        self._corpus: Corpus | None = None
        self._stores: dict[str, Store] = {}

    @classmethod
    def from_file(cls, path: Path | str, overrides: Mapping[str, str] | None = None, **options: Any) -> Experiment:
        content, folder = load(path, overrides)
        return cls(content, folder, **options)

    @property
    def corpus(self) -> Corpus:
        """All datasets, read, digested and split."""
        if self._corpus is None:
            vary = self.config.vary.get("tasks", [])
            required = {name for item in (vary if isinstance(vary, list) else []) if isinstance(item, list) for name in item}
            self._corpus = read_corpus(self.config, self.registry, self.folder, self.cache, self.jobs, self.progress, sorted(required))
            for name, dataset in self.config.datasets.items():
                for task, limits in dataset.max_per_label.items():
                    if task not in self._corpus.tasks or not isinstance(limits, dict) or set(limits) - set(self._corpus.tasks[task].labels) \
                            or any(type(most) is not int or most < 0 for most in limits.values()):
                        raise ExperimentError(f"datasets.{name}.max_per_label.{task}: expected a number per label of a task out of "
                                              f"{', '.join(self._corpus.tasks)}; found {limits!r}")
        return self._corpus

    @property
    def tasks(self) -> dict[str, Any]:
        return self.corpus.tasks

    def variations(self) -> list[Variation]:
        """Combinations out of [vary]; a dataset left without tasks is dropped from its run."""
        names, found = [d.name for d in self.corpus.datasets], []
        for one in expand(self.content, names, list(self.tasks)):
            by_name = {d.name: d for d in self.corpus.datasets}
            datasets = tuple(name for name in one.datasets if set(by_name[name].tasks) & set(one.tasks))
            tasks = tuple(name for name in one.tasks if any(name in by_name[d].tasks for d in datasets))
            if tasks:
                found.append(Variation(one.labels, one.data, datasets, tasks))
        return found

    def runs(self) -> list[Run]:
        """All runs: variations times folds."""
        found = []
        for variation in self.variations():
            config = parse(variation.data)
            config.split = self.config.split  # drawn once, whatever seed varies
            builder = Builder(config, self.registry, self.folder)
            tasks = {name: self.tasks[name] for name in variation.tasks}
            described = builder.described(variation.datasets, tasks)
            for fold in range(self.corpus.folds):
                identity = self._identity(described, config, variation, fold)
                safe = "".join(c if c.isalnum() or c in "+-_.=" else "-" for c in variation.name)[:80]
                folder = RunFolder(self.runs_folder / config.name / f"{safe}-fold{fold + 1}-{identity[:6]}")
                found.append(Run(self, variation, fold, config, builder, folder, identity, tasks))
        return found

    def _identity(self, described: Mapping[str, Any], config: Config, variation: Variation, fold: int) -> str:
        digest = blake2b(digest_size=16)
        train = config.train
        length = [train.epochs, train.updates] if depends_on_length(Builder.use(train.scheduler, "constant")) else None
        digest.update(json.dumps([described, fold, length, self.sample], sort_keys=True, default=list).encode())
        for dataset in self.corpus.everything:
            if dataset.name in (*variation.datasets, *config.materials):
                parts = self.corpus.parts.folds[fold][dataset.name]
                for clip, key, part in zip(dataset.clips, self.corpus.digests[dataset.name], parts):
                    chosen = {name: clip.targets[name] for name in sorted(clip.targets) if name in variation.tasks and name in dataset.tasks}
                    row = [clip.id, key and rows_of(key, clip.audio), int(part), {n: self.tasks[n].encode(v) for n, v in chosen.items()
                                                                               if self.tasks[n].kind != "array"}, dict(clip.groups)]
                    digest.update(json.dumps(row, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    # Data -------------------------------------------------------------------------------------------------------------

    def _parts(self, run: Run, name: str) -> np.ndarray:
        """Parts of one dataset in a run's fold, after `--sample` and the label limits, which act on training only."""
        dataset = next(d for d in self.corpus.datasets if d.name == name)
        parts = self.corpus.parts.folds[run.fold][name].copy()
        if self.sample:
            rng = stream(run.config.seed, "sample", name)
            for code in range(len(PARTS)):
                members = np.flatnonzero(parts == code)
                parts[rng.permutation(members)[self.sample:]] = -1
        for task, limits in run.config.datasets[name].max_per_label.items():
            for label, most in limits.items():
                having = [c for c, clip in enumerate(dataset.clips) if parts[c] == 0 and task in clip.targets and task in dataset.tasks
                          and label in self.tasks[task].labels_of(clip.targets[task])]
                parts[stream(run.config.seed, "limit", name, task, label).permutation(np.array(having, int))[most:]] = -1
        return parts

    def store(self, chain) -> Store:
        if chain.key not in self._stores:
            self._stores[chain.key] = Store(self.cache / "features" / chain.key, chain.prefix)
        return self._stores[chain.key]

    def _data(self, run: Run) -> RunData:
        corpus, inputs = self.corpus, {}
        chosen = [d for d in corpus.datasets if d.name in run.variation.datasets]
        materials: dict[str, dict[str, Material]] = {part: {} for part in PARTS}
        for one in corpus.materials:
            stored = self._input(one, run.builder.material(one.name))
            parts = self.corpus.parts.folds[run.fold][one.name]
            for code, part in enumerate(PARTS):
                usable = [int(c) for c in np.flatnonzero(parts == code) if stored.keys[c]]
                materials[part][one.name] = Material(one.name, part, stored, usable)
        for dataset in chosen:
            inputs[dataset.name] = {name: self._input(dataset, run.builder.chain(dataset.name, name)) for name in run.config.inputs}
            for one in inputs[dataset.name].values():
                one.chain.materials = materials if corpus.materials else {}
        return RunData(chosen, run.tasks, inputs, {d.name: self._parts(run, d.name) for d in chosen},
                       {d.name: corpus.groups[d.name] for d in chosen}, run.config.seed)

    def _input(self, dataset: Dataset, chain: Chain) -> Input:
        store = self.store(chain)
        keys = [key and rows_of(key, clip.audio) for key, clip in zip(self.corpus.digests[dataset.name], dataset.clips)]
        return Input(chain, store, [key if key in store.rows else None for key in keys])

    def wanted(self, runs: list[Run]) -> list[Wanted]:
        """What these runs need of the feature stores; one entry per store."""
        found: dict[str, Wanted] = {}
        for run in runs:
            for dataset in self.corpus.everything:
                if dataset.name in run.config.materials:
                    chains, parts = [run.builder.material(dataset.name)], None
                elif dataset.name in run.variation.datasets:
                    chains = [run.builder.chain(dataset.name, name) for name in run.config.inputs]
                    parts = self._parts(run, dataset.name) if self.sample else None
                else:
                    continue
                for chain in chains:
                    want = found.setdefault(chain.key, Wanted(chain, self.store(chain)))
                    for c, (digest, clip) in enumerate(zip(self.corpus.digests[dataset.name], dataset.clips)):
                        if digest and (parts is None or parts[c] >= 0):
                            want.clips.setdefault(rows_of(digest, clip.audio), (dataset.key(c), clip.audio))
        return list(found.values())

    def extract(self, runs: list[Run] | None = None) -> None:
        """Fill the feature stores. Raises `DataError` that lists all clips that cannot be used, unless they may be skipped."""
        wanted = self.wanted(self.runs() if runs is None else runs)
        failed = {key: str(error) for key, error in fill(wanted, self.jobs, self.progress).items()}
        self._refuse(self.corpus.bad | {message: message for message in failed.values()})
        told = list(self.corpus.bad.values()) + list(failed.values())
        if told:
            self.progress.say(f"{len(told)} clips cannot be used and are skipped:")
            for line in told:
                self.progress.say(f"  {line}")
            self.corpus.notes += [f"clip skipped: {line}" for line in told if f"clip skipped: {line}" not in self.corpus.notes]

    def _refuse(self, bad: Mapping[str, str]) -> None:
        if bad and self.config.extract.on_error == "stop":
            raise bad_clips(bad)

    def run(self) -> list[Run]:
        """Do what is missing; skip what is done; continue what was cut off."""
        runs = self.runs()
        missing = [run for run in runs if not run.done]
        if missing:
            self.extract(missing)
        for number, run in enumerate(runs, 1):
            state = "is done" if run.done else f"continues after epoch {run.folder.info['epoch']}" if run.folder.info.get("epoch") else "starts"
            self.progress.say(f"[{number}/{len(runs)}] {run.name} {state}")
            if not run.done:
                run.execute(self.progress)
        return runs

    # Checking ---------------------------------------------------------------------------------------------------------

    def check(self, clips: int = 4) -> list[str]:
        """Everything that can go wrong, found early: a few clips of each dataset and part go through to the loss, nothing is stored."""
        return check_experiment(self, clips)


def versions(registry: Registry) -> dict[str, str]:
    """Of Python and of every distribution that bears on figures: plugins that are well, none that is merely installed."""
    found = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "soundfile", "scikit-learn")}
    return {"python": platform.python_version(), **found} | {p.distribution: p.version for p in registry.plugins if p.loaded}
