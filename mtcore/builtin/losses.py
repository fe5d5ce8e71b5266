"""Losses of one task. Each gives one value per row; the loop takes the mean over the rows that have the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mtcore.plugin import Batch, Loss, ParameterError, Statistics, Task, TrainingError, param

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
        weight = None
        if self.class_weights == "balanced":
            if statistics.counts is None:
                raise ParameterError(f"task {task.name}: class_weights = 'balanced' needs the training part's rows per "
                                     "label, found none")
            counts = torch.as_tensor(statistics.counts, dtype=torch.float32)
            weight = torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)

        def rows(output, target, batch):
            return F.cross_entropy(output, target, weight=None if weight is None else weight.to(output),
                                   label_smoothing=self.label_smoothing, reduction="none")

        return rows


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy(Loss):
    """Sigmoid and binary cross-entropy, mean over labels and frames.

    binary: output and target [n]; multilabel: [n, labels]; events: output [n, labels, frames], target [n, labels, input frames],
    of which the maximum is taken over the input frames that one output frame stands for.
    """

    kinds = ("binary", "multilabel", "events")

    def build(self, task: Task, statistics: Statistics) -> Rows:
        if task.kind == "events":
            return lambda output, target, batch: event_rows(output, target, batch, task.name)
        return lambda output, target, batch: per_row(F.binary_cross_entropy_with_logits(output, target, reduction="none"))


def event_rows(output: Tensor, target: Tensor, batch: Batch, task: str) -> Tensor:
    """Binary cross-entropy of each row, mean over labels and the frames that are not padding."""
    n_in, n_out = target.shape[-1], output.shape[-1]
    stride = -(-n_in // n_out)
    if -(-n_in // stride) == n_out:  # a trunk with a whole stride
        target = F.max_pool1d(target, stride, ceil_mode=True)
    else:
        target = F.adaptive_max_pool1d(target, n_out)
    losses = F.binary_cross_entropy_with_logits(output, target, reduction="none").mean(1)
    if batch.lengths is None:
        return losses.mean(1)
    length = next(iter(batch.lengths.values()))[batch.rows[task]]
    valid = torch.arange(n_out, device=output.device) * stride < length.unsqueeze(1)
    return (losses * valid).sum(1) / valid.sum(1)


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
