"""What a representation shall not tell."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mtcore.plugin import ParameterError, Representation, Trainer, param
from mtcore.training.gradient import GradientRun

__all__ = ["Adversarial"]


@dataclass(frozen=True, kw_only=True)
class Adversarial(Trainer):
    """Gradient reversal (Ganin and Lempitsky 2015, https://arxiv.org/abs/1409.7495): heads of nuisance tasks such as speaker or
    device learn as ever, and what they send back into the trunks is multiplied by -factor * (2 / (1 + exp(-10 p)) - 1), where p
    goes from 0 to 1. Here it does so within `rise` epochs, not over the whole training, so that a run can be made longer.
    Nuisance tasks do not count in the mean loss that chooses the best checkpoint.
    """

    tasks: tuple[str, ...] = param(help="nuisance tasks; those that a variation leaves out are passed over")
    factor: float = param(1.0, minimum=0, help="of the reversed gradient, in the end")
    rise: float = param(5.0, minimum=0, unit="epochs", help="over which the factor rises; 0: it is there from the start")

    def build(self) -> AdversarialRun:
        return AdversarialRun(self)


class Reverse(torch.autograd.Function):
    """Identity whose gradient is multiplied by -factor."""

    @staticmethod
    def forward(ctx, values, factor):
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx, gradient):
        return -ctx.factor * gradient, None


class AdversarialRun(GradientRun):
    def __init__(self, options: Adversarial):
        super().__init__()
        self.options = options

    def check(self, model, data, setup):
        known = {task for dataset in data.datasets for task in dataset.tasks} | set(setup.heads)
        if unknown := [task for task in self.options.tasks if task not in known]:
            raise ParameterError(f"train.trainer.tasks: expected tasks out of {', '.join(sorted(known))}; found {unknown[0]!r}")
        if not self.options.tasks:
            raise ParameterError("train.trainer.tasks: expected at least one nuisance task, found none; or use gradient")
        if not hasattr(model, "heads"):
            raise ParameterError("train.trainer: adversarial needs a model with `heads`, a module per task that takes a "
                                 f"Representation; found {type(model).__name__} without; use model.trunk")

    def run(self, model, data, folder, setup):
        self.check(model, data, setup)
        self.nuisances = [task for task in setup.heads if task in self.options.tasks]
        if len(self.nuisances) in (0, len(setup.heads)):
            which = "all" if self.nuisances else "no"
            folder.log(f"warning: nothing is reversed: {', '.join(setup.heads)} are {which} nuisance tasks")
            self.nuisances = []
        reverse = lambda head, given: (self.reversed(given[0]), *given[1:])  # no method: a copy of the model would copy its owner
        hooks = [model.heads[task].register_forward_pre_hook(reverse) for task in self.nuisances]
        try:
            super().run(model, data, folder, setup)
        finally:
            for hook in hooks:
                hook.remove()

    def factor(self) -> float:
        """Of the current update."""
        rise = self.options.rise * self.per_epoch
        p = min(1.0, (self.update - 1) / rise) if rise else 1.0
        return self.options.factor * (2 / (1 + math.exp(-10 * p)) - 1 if rise else 1.0)

    def reversed(self, one: Representation) -> Representation:
        turn = lambda values: None if values is None else Reverse.apply(values, self.factor())
        return one._replace(vector=turn(one.vector), frames=turn(one.frames))

    def watched_value(self, found):
        if not self.setup.watched and self.nuisances:
            found = {part: {task: values for task, values in tasks.items() if task not in self.nuisances}
                     for part, tasks in found.items()}
        return super().watched_value(found)
