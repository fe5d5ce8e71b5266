"""Losses of one task. Each gives one value per row; the loop takes the mean over the rows that have the task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mtcore.plugin import Batch, Loss, ParameterError, Statistics, Task, TrainingError, framed, param

__all__ = ["BinaryCrossEntropy", "CrossEntropy", "MeanAbsoluteError", "MeanSquaredError"]

Rows = Callable[[Tensor, Any, Batch], Tensor]


@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """Softmax and negative log-likelihood of one label out of several; output [n, labels], target long [n].

    Balanced weights are rows / (labels * rows of the label) over the labels that the training part has: their mean over the
    training rows is 1, so the scale of the loss stays.
    """

    kinds = ("multiclass",)
    label_smoothing: float = param(0.0, minimum=0, maximum=1, help="share of the target spread evenly over all labels")
    class_weights: str = param("none", choices=("none", "balanced"), help="balanced: rare labels weigh more")

    def build(self, task: Task, statistics: Statistics) -> Rows:
        weight = balanced(task, statistics) if self.class_weights == "balanced" else None

        def rows(output, target, batch):
            return F.cross_entropy(output, target, weight=None if weight is None else weight.to(output),
                                   label_smoothing=self.label_smoothing, reduction="none")

        return rows


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy(Loss):
    """Sigmoid and binary cross-entropy, mean over labels and frames.

    binary: output and target [n]; multilabel: [n, labels]; events: output [n, labels, frames], target [n, labels, input frames],
    of which the maximum is taken over the input frames that one output frame stands for; padding counts nothing.

    Balanced weights are those of `cross_entropy`, for each label of the rows with and without it. Of events, whose frames are not
    counted, active frames weigh events / (labels * events of the label), others 1.
    """

    kinds = ("binary", "multilabel", "events")
    label_smoothing: float = param(0.0, minimum=0, maximum=1, help="share of each target that is one half instead")
    class_weights: str = param("none", choices=("none", "balanced"), help="balanced: what is rare weighs more")

    def build(self, task: Task, statistics: Statistics) -> Rows:
        absent = ratio = None
        if self.class_weights == "balanced":
            weights = balanced(task, statistics)
            absent, present = (torch.ones(()), weights.unsqueeze(1)) if task.kind == "events" else weights.clamp(min=1e-6)
            ratio = present / absent

        def costs(output, target):
            if self.label_smoothing:
                target = target * (1 - self.label_smoothing) + self.label_smoothing / 2
            here = lambda weight: None if weight is None else weight.to(output)  # noqa: E731
            return F.binary_cross_entropy_with_logits(output, target, here(absent), pos_weight=here(ratio), reduction="none")

        def events(output, target, batch):
            target, valid = framed(output, target, batch, task.name)
            return (costs(output, target).mean(1) * valid).sum(1) / valid.sum(1)

        return events if task.kind == "events" else lambda output, target, batch: per_row(costs(output, target))


def balanced(task: Task, statistics: Statistics) -> Tensor:
    """Rows / (labels * rows of the label), 0 where there are none: [labels]; multilabel [2, labels]: without, with it."""
    if statistics.counts is None:
        raise ParameterError(f"task {task.name}: class_weights = 'balanced' needs the training part's rows per label, found none")
    counts = torch.as_tensor(statistics.counts, dtype=torch.float32)
    if task.kind == "multilabel":
        counts = torch.stack([statistics.rows - counts, counts])
    return torch.where(counts > 0, counts.sum(0) / ((counts > 0).sum(0) * counts.clamp(min=1)), 0.0)


@dataclass(frozen=True, kw_only=True)
class MeanSquaredError(Loss):
    """Squared difference; of arrays the mean over all values that are not padding."""

    kinds = ("regression", "array")

    def build(self, task: Task, statistics: Statistics) -> Rows:
        return lambda output, target, batch: per_row(difference(output, target, task) ** 2, target)


@dataclass(frozen=True, kw_only=True)
class MeanAbsoluteError(Loss):
    """Absolute difference; of arrays the mean over all values that are not padding."""

    kinds = ("regression", "array")

    def build(self, task: Task, statistics: Statistics) -> Rows:
        return lambda output, target, batch: per_row(difference(output, target, task).abs(), target)


def per_row(values: Tensor, target: Tensor | None = None) -> Tensor:
    """Mean over all but the first dimension; of an array's values, 0 where its target is NaN, over the others."""
    if values.dim() < 2 or target is None:
        return values.flatten(1).mean(1) if values.dim() > 1 else values
    return values.flatten(1).sum(1) / (~target.isnan()).flatten(1).sum(1).clamp(min=1)


def difference(output: Tensor, target: Tensor, task: Task) -> Tensor:
    if task.framed:
        output = output[..., :target.shape[-1]]
    if output.shape != target.shape:  # [n, 1] - [n] would be [n, n]
        raise TrainingError(f"task {task.name}: expected an output of the target's shape {tuple(target.shape)}, "
                            f"found {tuple(output.shape)}; the head must give one value per target value")
    return torch.where(target.isnan(), 0.0, output - target) if task.kind == "array" else output - target
