"""One run: a variation and fold, from its data to a trained network."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..clip import PARTS
from ..errors import ExperimentError, at
from ..plugin import Context
from ..plugin.registry import Registry
from ..preparing.data import RunData
from ..progress import Progress
from ..reporting.fanout import Reporters
from ..runfolder import RunFolder
from ..streams import derive
from ..training.model import build_model
from ..training.processes import device_of
from ..training.setup import Setup
from .build import Builder
from .file import Config
from .finding import save_trained, stretch, trained_on
from .stored import task_info
from .vary import Variation

if TYPE_CHECKING:
    from .plan import Experiment

__all__ = ["Run"]


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
        watched = [] if watched == ["loss"] else watched or [""]
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
                folder.log("interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {error}")
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
                "primary": {name: metric for name, (metric, _) in setup.primary.items()}, "versions": versions(self.experiment.registry),
                "threads": config.train.threads, "processes": setup.processes.count,
                "parameters": sum(p.numel() for p in model.parameters())}


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
