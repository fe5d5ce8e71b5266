"""Losses of numbers. Targets of a regression task are standardised on the training part when they come here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mtcore.plugin import Batch, Loss, Statistics, Task, TrainingError, param

__all__ = ["Concordance", "Huber"]

Rows = Callable[[Tensor, Tensor, Batch], Tensor]


def check_shape(output: Tensor, target: Tensor, task: Task) -> None:
    """`TrainingError` where broadcasting would make [n, n] of [n, 1] and [n]."""
    if output.shape != target.shape:
        raise TrainingError(f"task {task.name}: expected an output of the target's shape {tuple(target.shape)}, found "
                            f"{tuple(output.shape)}; the head must give one value per target value")


@dataclass(frozen=True, kw_only=True)
class Huber(Loss):
    """Half the squared difference up to delta, beyond it delta * (difference - delta / 2), after Huber (1964), Robust estimation
    of a location parameter; of arrays the mean over all values that are not padding."""

    kinds = ("regression", "array")
    delta: float = param(1.0, minimum=1e-6, help="where it turns linear; of regression in deviations of the training part")

    def build(self, task: Task, statistics: Statistics) -> Rows:
        def rows(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            output = output[..., :target.shape[-1]] if task.framed else output
            check_shape(output, target, task)
            there = ~target.isnan()
            output, target = torch.where(there, output, 0.0), torch.where(there, target, 0.0)
            values = F.huber_loss(output, target, reduction="none", delta=self.delta)
            return values.flatten(1).sum(1) / there.flatten(1).sum(1).clamp(min=1) if values.dim() > 1 else values

        return rows


@dataclass(frozen=True, kw_only=True)
class Concordance(Loss):
    """1 - concordance correlation coefficient over the batch's rows that have the task (Lin 1989, A concordance correlation
    coefficient to evaluate reproducibility, Biometrics 45).

    The mean squared difference is var(x) + var(y) + (mean(x) - mean(y))² - 2 cov(x, y), so 1 - CCC is that mean over its first
    three terms, and a row's value is its squared difference over them. The coefficient is that of a batch, or micro-batch, not of
    all rows: a mean over batches is no coefficient of them together. Take large batches; the loss of a single row is always 1 and
    teaches nothing.
    """

    kinds = ("regression",)

    def build(self, task: Task, statistics: Statistics) -> Rows:
        def rows(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            check_shape(output, target, task)
            spread = output.var(correction=0) + target.var(correction=0) + (output.mean() - target.mean()) ** 2
            return (output - target) ** 2 / spread.clamp(min=torch.finfo(output.dtype).tiny)  # 0 of equal constants

        return rows
