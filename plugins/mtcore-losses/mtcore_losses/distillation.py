"""Learning from what another model gives, besides the labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtcore.plugin import Batch, Loss, Named, ParameterError, Statistics, Task, framed, param

from .probability import Focal
from .regression import check_shape

__all__ = ["Distill"]

Rows = Callable[[Tensor, Any, Batch], Tensor]
SURE = -1e4
"""Logit of a label that is surely absent."""


@dataclass(frozen=True, kw_only=True)
class Distill(Loss):
    """share * soft + (1 - share) * hard, after Hinton, Vinyals and Dean (2015), Distilling the knowledge in a neural network,
    https://arxiv.org/abs/1503.02531.

    soft  temperature² times the Kullback-Leibler divergence of the output's distribution from the teacher's, both of logits over
          the temperature: a softmax (multiclass), or a sigmoid per label, mean over labels and frames that are no padding
          (binary, multilabel, events). Of regression and array the squared difference, in the target's scale
    hard  the nested loss, on the row's label

    Teachers give raw outputs of the output's shape for all rows of a batch (`Batch.teachers`); of events for each frame of the
    input, of which the maximum is taken as of targets.
    """

    kinds = ("binary", "multiclass", "multilabel", "events", "regression", "array")
    teacher: str = param(help="name of the teacher whose outputs of this task are learned from")
    temperature: float = param(2.0, minimum=1e-3, help="by which logits are divided: the higher, the more count unlikely labels")
    share: float = param(0.5, minimum=0, maximum=1, help="of the soft part")
    loss: Any = param(None, component="loss", help="the hard part; default: (binary) cross-entropy or squared difference")

    def build(self, task: Task, statistics: Statistics) -> Rows:
        hard, soft = self.hard(task, statistics), SOFT.get(task.kind, labels)

        def rows(output: Tensor, target: Any, batch: Batch) -> Tensor:
            found = self.share * soft(output, self.taught(output, batch, task), self.temperature, batch, task.name)
            return found + (1 - self.share) * hard(output, target, batch) if self.share < 1 else found

        return rows

    def hard(self, task: Task, statistics: Statistics) -> Rows:
        def squared(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            check_shape(output, target, task)
            return per_row((output - target) ** 2)

        if self.loss is None:
            return squared if task.kind in ("regression", "array") else Focal(gamma=0.0).build(task, statistics)
        loss = self.loss.component if isinstance(self.loss, Named) else self.loss
        if loss.kinds and task.kind not in loss.kinds:
            raise ParameterError(f"task {task.name}: the hard part serves {', '.join(loss.kinds)}, the task is {task.kind}; "
                                 "name a loss that serves it, or none for the usual one")
        return loss.build(task, statistics)

    def taught(self, output: Tensor, batch: Batch, task: Task) -> Tensor:
        """The teacher's outputs of the rows that have the task."""
        if task.name not in batch.teachers.get(self.teacher, {}):
            known = [f"{name} ({', '.join(tasks)})" for name, tasks in batch.teachers.items()]
            raise ParameterError(f"task {task.name}: expected outputs of the teacher {self.teacher!r} for this task, found "
                                 f"{', '.join(known) or 'no teachers'}; let the experiment's `teachers` name a run with the task")
        found = batch.teachers[self.teacher][task.name].detach().to(output)[batch.rows[task.name]]
        whole = output.shape if task.kind != "events" else (*output.shape[:2], batch.targets[task.name].shape[-1])
        if found.shape not in (output.shape, whole):
            raise ParameterError(f"task {task.name}: expected outputs of the teacher {self.teacher!r} of the shape "
                                 f"{tuple(output.shape)}, found {tuple(found.shape)}; both need the same labels")
        return found


def per_row(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def of_softmax(output: Tensor, teacher: Tensor, temperature: float, batch: Batch, task: str) -> Tensor:
    log_q, log_p = (one.div(temperature).log_softmax(1) for one in (output, teacher))
    return temperature ** 2 * F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def of_sigmoids(output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Of each value, in logarithms: p log(p / q) + (1 - p) log((1 - p) / (1 - q))."""
    y, x = output / temperature, teacher / temperature
    present, absent = F.logsigmoid(x) - F.logsigmoid(y), F.logsigmoid(-x) - F.logsigmoid(-y)
    return temperature ** 2 * (x.sigmoid() * present + (-x).sigmoid() * absent)


def labels(output: Tensor, teacher: Tensor, temperature: float, batch: Batch, task: str) -> Tensor:
    return per_row(of_sigmoids(output, teacher, temperature))


def events(output: Tensor, teacher: Tensor, temperature: float, batch: Batch, task: str) -> Tensor:
    valid = framed(output, batch.targets[task], batch, task)[1]
    if teacher.shape[-1] != output.shape[-1]:
        if batch.lengths is not None:  # a frame that is partly padding is what the rest of it is
            length = next(iter(batch.lengths.values()))[batch.rows[task]].reshape(-1, 1, 1)
            teacher = teacher.masked_fill(torch.arange(teacher.shape[-1], device=teacher.device) >= length, SURE)
        teacher = framed(output, teacher, batch, task)[0]
    return (of_sigmoids(output, teacher, temperature).mean(1) * valid).sum(1) / valid.sum(1)


def values(output: Tensor, teacher: Tensor, temperature: float, batch: Batch, task: str) -> Tensor:
    return per_row((output - teacher) ** 2)


SOFT = {"multiclass": of_softmax, "events": events, "regression": values, "array": values}
