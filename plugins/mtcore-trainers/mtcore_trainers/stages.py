"""Tasks and frozen layers in stages."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import chain, islice
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from mtcore.plugin import ParameterError, Trainer, param
from mtcore.training.gradient import GradientRun, load_checkpoint
from mtcore.training.optimizers import build_optimizer, build_schedule, freeze

from .batches import only

__all__ = ["PretrainFinetune"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """`tasks`: those learned, where none is named all; `freeze`: patterns of names of parameters that stay as they are; `rate`:
    factor of the learning rate."""

    epochs: int
    tasks: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    rate: float = 1.0


TYPES = {"epochs": (int, "a whole number above 0"), "rate": ((int, float), "a number above 0"),
         "tasks": (list, "a list of tasks"), "freeze": (list, "a list of patterns")}


def read(table: dict[str, Any], path: str) -> Stage:
    if unknown := set(table) - set(TYPES):
        raise ParameterError(f"{path}.{min(unknown)}: a stage has {', '.join(TYPES)}")
    for key, (kind, expected) in TYPES.items():
        value = table.get(key, 1 if key == "rate" else [])
        if kind is list:
            good = isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
        else:
            good = isinstance(value, kind) and not isinstance(value, bool) and value > 0
        if not good:
            raise ParameterError(f"{path}.{key}: expected {expected}; found {repr(value) if key in table else 'nothing'}")
    return Stage(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


@dataclass(frozen=True, kw_only=True)
class PretrainFinetune(Trainer):
    """Stages one after the other, each with its tasks, its frozen layers, and optimizer, schedule and balancer anew: pre-training
    on one task and fine-tuning on another, as a whole or layer by layer (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146,
    unfreeze from the top).

    An epoch goes once through the rows that have one of the stage's tasks. The best checkpoint is one of the last stage, by its
    tasks' losses unless train.stop.on names another figure; patience ends that stage only.
    """

    stages: list[dict[str, Any]] = param(
        help="tables of epochs, tasks (all), freeze (patterns such as \"trunks.*\"; none), rate (1.0)")

    def __post_init__(self):
        if not self.stages:
            raise ParameterError("stages: expected at least one table with epochs; found none")
        self.read()

    def read(self) -> list[Stage]:
        return [read(table, f"stages[{number}]") for number, table in enumerate(self.stages)]

    def length(self) -> int:
        return sum(stage.epochs for stage in self.read())

    def build(self) -> StagesRun:
        return StagesRun(self.read())


class StagesRun(GradientRun):
    """The epoch's number says the stage, so that a checkpoint needs no more than others."""

    def __init__(self, stages: list[Stage]):
        super().__init__()
        self.stages = stages

    def check(self, model, data, setup):
        names = [name for name, _ in model.named_parameters()]
        known = {task for dataset in data.datasets for task in dataset.tasks} | set(setup.heads)
        for number, stage in enumerate(self.stages):
            path = f"train.trainer.stages[{number}]"
            if unknown := [task for task in stage.tasks if task not in known]:
                raise ParameterError(f"{path}.tasks: expected tasks out of {', '.join(sorted(known))}; found {unknown[0]!r}")
            if not set(self.tasks(stage, setup)) & set(setup.heads):
                raise ParameterError(f"{path}.tasks: this run has only {', '.join(setup.heads)}, and none is in this stage; "
                                     "leave the stage out, or do not vary tasks with this trainer")
            for pattern in stage.freeze:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise ParameterError(f"{path}.freeze: {pattern!r} is the name of no parameter; there are {', '.join(names)}")
            if all(frozen(name, stage) for name in names):
                raise ParameterError(f"{path}.freeze: nothing is left to train; leave something out of {', '.join(stage.freeze)}")

    def run(self, model, data, folder, setup):
        self.check(model, data, setup)
        rows = data.rows("train")
        has = [[set(encoded) for encoded in data.encoded[dataset.name]] for dataset in data.datasets]
        free = {name for name, task in data.tasks.items() if task.kind == "none"}
        self.has, self.batches, self.stage = [has[d][c] | free for d, c, _ in rows.index], setup.batches, None
        self.patterns, self.unused = setup.parameters, None
        self.learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        epochs = sum(stage.epochs for stage in self.stages)
        super().run(model, data, folder, replace(setup, batches=self.drawn, epochs=epochs, updates=None))

    @staticmethod
    def tasks(stage: Stage, setup) -> list[str]:
        return list(stage.tasks or setup.heads)

    def of(self, epoch: int) -> Stage:
        for stage in self.stages:
            if epoch <= stage.epochs:
                return stage
            epoch -= stage.epochs
        return self.stages[-1]

    def drawn(self, epoch, rng):
        """The sampler's rows, in its order, as far as they have the stage's tasks; batches are as large as ever."""
        stage = self.of(epoch)
        if not stage.tasks:
            return self.batches(epoch, rng)
        wanted = set(stage.tasks)
        rows = (row for row in chain.from_iterable(self.batches(epoch, rng)) if self.has[row] & wanted)
        return iter(lambda: list(islice(rows, self.setup.batch_size)), [])

    def first(self, stage: Stage) -> int:
        """Its first epoch."""
        return 1 + sum(one.epochs for one in self.stages[:self.stages.index(stage)])

    def updates(self, stage: Stage) -> int:
        """Of one epoch."""
        return max(1, -(-sum(1 for _ in self.drawn(self.first(stage), np.random.default_rng(0))) // self.micro_batches))

    def enter(self, stage: Stage) -> None:
        """Freeze, and begin with an optimizer, a schedule and a balancer that have no past."""
        self.stage, self.per_epoch = stage, self.updates(stage)
        if self.unused is None:
            self.unused = self.setup.balancing
        self.setup.balancing = deepcopy(self.unused, {id(self.setup.processes): self.setup.processes})
        self.setup.parameters = {**dict.fromkeys(stage.freeze, SimpleNamespace(frozen=True, lr=None)), **self.patterns}
        for parameter in self.learning:  # what the network itself keeps frozen stays so
            parameter.requires_grad_(True)
        freeze(self.model, self.setup.parameters, self.first(stage))
        self.still = [module for name, module in self.model.named_modules() if isinstance(module, nn.modules.batchnorm._NormBase)
                      and frozen(f"{name}.running_mean", stage)]
        self.optimizer = build_optimizer(self.setup.optimizer, self.model, self.setup.balancing.parameters(), self.patterns)
        for group in self.optimizer.param_groups:
            group["lr"] *= stage.rate
        self.schedule = build_schedule(self.setup.scheduler, self.optimizer, stage.epochs * self.per_epoch)

    def resume(self):
        self.limit = sum(stage.epochs * self.updates(stage) for stage in self.stages)
        path, epoch = self.folder.checkpoint("last"), 1
        if path.exists():  # what the optimizer holds is that of the last update's stage
            saved = load_checkpoint(path)
            epoch = saved["epoch"] + (saved["partial"][0] is not None)
        self.enter(self.of(epoch))
        super().resume()

    def train_epoch(self):
        stage = self.of(self.epoch)
        if stage is not self.stage:
            self.enter(stage)
        if self.epoch == self.first(stage) and not self.partial:
            self.best = None
            self.folder.log(f"stage {self.stages.index(stage) + 1}: {', '.join(self.tasks(stage, self.setup))}"
                            + (f", without {', '.join(stage.freeze)}" if stage.freeze else ""))
        super().train_epoch()

    def one_update(self, micro, total):
        for module in self.still:
            module.eval()
        super().one_update([only(batch, self.stage.tasks) for batch in micro] if self.stage.tasks else micro, total)

    def watched_value(self, found):
        if not self.setup.watched:
            learned = self.tasks(self.stage, self.setup)
            found = {part: {task: values for task, values in tasks.items() if task in learned} for part, tasks in found.items()}
        return super().watched_value(found)

    def stop_now(self):
        return self.of(self.epoch) is self.stages[-1] and super().stop_now()


def frozen(name: str, stage: Stage) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in stage.freeze)
