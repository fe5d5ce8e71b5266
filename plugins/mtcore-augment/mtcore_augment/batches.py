"""Steps on whole batches: rows mixed with rows of the same batch, and their targets with them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtcore.plugin import Batch, Context, Preparer, param


@dataclass(frozen=True, kw_only=True)
class Mixing(Preparer):
    """Every row gets a partner in the batch and keeps a share of itself, drawn from Beta(alpha, alpha) once per batch.

    A target of one label becomes a share of each label. A task stays with the rows whose partner has it too: the mean of a task is
    over rows with a target, and half a target is none.
    """

    acts_on = "batch"
    random = True
    alpha: float = param(0.2, minimum=1e-3, help="of the Beta distribution: near 0 rows stay almost whole, at 1 every share is as likely")

    @abstractmethod
    def inputs(self, x: Tensor, y: Tensor, first: float, share: float) -> Tensor:
        """Rows and their partners [batch, …, time], mixed; `share` is the rows' own, `first` where a cut begins, as a share of time."""

    @abstractmethod
    def events(self, x: Tensor, y: Tensor, first: float, share: float) -> Tensor:
        """Likewise activities [n, labels, frames]."""

    def prepare(self, context: Context) -> Any:
        labels = {name: len(task.labels) for name, task in context.tasks.items() if task.kind == "multiclass"}
        framed = {name for name, task in context.tasks.items() if task.kind == "events"}

        def apply(batch: Batch, state: dict, rng: np.random.Generator) -> Batch:
            size = len(batch.clips)
            share, first = float(rng.beta(self.alpha, self.alpha)), float(rng.random())
            partner = torch.from_numpy(rng.permutation(size))
            inputs = {name: self.inputs(x, x[partner], first, share) for name, x in batch.inputs.items()}
            targets, rows = {}, {}
            for name, target in batch.targets.items():
                own = torch.arange(size)[batch.rows[name]]
                place = torch.full((size,), -1).index_copy_(0, own, torch.arange(len(own)))  # of each row among those with the task
                other = place[partner[own]]
                both = other >= 0
                if not both.any():
                    continue
                if name in labels:
                    target = torch.nn.functional.one_hot(target, labels[name]).float()
                one, two = target[both], target[other[both]]
                targets[name] = self.events(one, two, first, share) if name in framed else share * one + (1 - share) * two
                rows[name] = own[both]
            lengths = batch.lengths and {name: torch.maximum(length, length[partner]) for name, length in batch.lengths.items()}
            teachers = {teacher: {name: (self.events(y, y[partner], first, share) if name in framed else
                                         share * y + (1 - share) * y[partner]) for name, y in outputs.items()}
                        for teacher, outputs in batch.teachers.items()}
            return replace(batch, inputs=inputs, targets=targets, rows=rows, lengths=lengths, teachers=teachers)

        return context.then(apply)


@dataclass(frozen=True, kw_only=True)
class Mixup(Mixing):
    """Weighted means of two rows and of their targets, after Zhang et al. (2018), https://arxiv.org/abs/1710.09412."""

    def inputs(self, x, y, first, share):
        return share * x + (1 - share) * y

    def events(self, x, y, first, share):
        return share * x + (1 - share) * y


@dataclass(frozen=True, kw_only=True)
class Cutmix(Mixing):
    """A stretch of time is the partner's, after Yun et al. (2019), https://arxiv.org/abs/1905.04899, whose boxes are stretches here.
    Targets are shared by the stretch's length; events are those that are heard."""

    def inputs(self, x, y, first, share):
        frames = x.shape[-1]
        width = round((1 - share) * frames)
        begin = round(first * (frames - width))
        return torch.cat([x[..., :begin], y[..., begin:begin + width], x[..., begin + width:]], -1)

    def events(self, x, y, first, share):
        return self.inputs(x, y, first, share)
