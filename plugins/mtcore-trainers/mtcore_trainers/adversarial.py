"""What a representation shall not tell."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.nn import functional as F

from mtcore.plugin import Batch, ParameterError, Representation, Task, Trainer, param
from mtcore.training.evaluate import outputs_of
from mtcore.training.gradient import GradientRun

__all__ = ["Adversarial"]

CONFUSED = ("binary", "multiclass", "multilabel")
"""Kinds whose labels a head can give the same probability."""


@dataclass(frozen=True, kw_only=True)
class Adversarial(Trainer):
    """Trunks unlearn nuisance tasks such as speaker or device, whose heads learn to tell them. In both forms what these heads
    send back into the trunks is multiplied by factor * (2 / (1 + exp(-10 p)) - 1), where p goes from 0 to 1: here within `rise`
    epochs, not over the whole training, so that a run can be made longer. Nuisance tasks do not count in the mean loss that
    chooses the best checkpoint.

    reversal       gradient reversal (Ganin and Lempitsky 2015, https://arxiv.org/abs/1409.7495, whose curve the factor has): one
                   update for all, in which the trunks get the heads' gradient with its sign turned
    discriminator  domain confusion (Tzeng et al. 2015, https://arxiv.org/abs/1510.02192): each update first trains the nuisance
                   heads, `steps` times, on representations that stay as they are; then the trunks, with all other tasks, towards
                   what these heads give the same probability for all labels. That loss is the mean over labels of -log p
                   (multiclass), or the cross-entropy with 1/2 (binary; multilabel: mean over labels)
    """

    tasks: tuple[str, ...] = param(help="nuisance tasks; those that a variation leaves out are passed over")
    factor: float = param(1.0, minimum=0, help="of what nuisance heads send back into the trunks, in the end")
    rise: float = param(5.0, minimum=0, unit="epochs", help="over which the factor rises; 0: it is there from the start")
    form: Literal["reversal", "discriminator"] = param("reversal", help="heads and trunks in one update, or one after the other")
    steps: int = param(1, minimum=1, help="discriminator: how often nuisance heads are trained in each update")

    def __post_init__(self):
        if self.steps > 1 and self.form == "reversal":
            raise ParameterError("steps: expected 1 with form = \"reversal\", whose heads learn once in each update; found "
                                 f"{self.steps}; or say form = \"discriminator\"")

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


def confusion(task: Task, output: torch.Tensor) -> torch.Tensor:
    """[rows]: how far a nuisance head is from giving all labels the same probability."""
    if task.kind == "multiclass":
        return -output.log_softmax(1).mean(1)
    found = F.binary_cross_entropy_with_logits(output, torch.full_like(output, 0.5), reduction="none")
    return found if found.dim() == 1 else found.mean(1)


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
        for name in setup.heads:
            kind = data.tasks[name].kind
            if self.options.form == "discriminator" and name in self.options.tasks and kind not in CONFUSED:
                raise ParameterError(f"train.trainer.form: a discriminator tells tasks of kind {', '.join(CONFUSED)}; {name} is "
                                     f"of kind {kind}; use form = \"reversal\"")

    def run(self, model, data, folder, setup):
        self.check(model, data, setup)
        self.nuisances = [task for task in setup.heads if task in self.options.tasks]
        if len(self.nuisances) in (0, len(setup.heads)):
            which = "all" if self.nuisances else "no"
            folder.log(f"warning: nothing is unlearned: {', '.join(setup.heads)} are {which} nuisance tasks")
            self.nuisances = []
        self.discriminates = bool(self.nuisances) and self.options.form == "discriminator"
        turn = lambda head, given: (self.turned(given[0]), *given[1:])  # no method: a copy of the model would copy its owner
        hooks = [model.heads[task].register_forward_pre_hook(turn) for task in self.nuisances]
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

    def turned(self, one: Representation) -> Representation:
        factor = -self.factor() if self.discriminates else self.factor()
        turn = lambda values: None if values is None else Reverse.apply(values, factor)
        return one._replace(vector=turn(one.vector), frames=turn(one.frames))

    # Discriminators --------------------------------------------------------------------------------------------------

    def one_update(self, micro, total):
        if not self.discriminates:
            return super().one_update(micro, total)
        learned = [p for task in self.nuisances for p in self.model.heads[task].parameters() if p.requires_grad]
        self.discriminate(micro, total, learned)
        found: dict[str, list] = {}
        try:
            for parameter in learned:
                parameter.requires_grad_(False)
            super().one_update(micro, found)
        finally:
            for parameter in learned:
                parameter.requires_grad_()
        for name, entry in found.items():
            self._add(total, f"confusion/{name}" if name in self.nuisances else name, *entry)

    def discriminate(self, micro: Sequence[Batch], total: dict[str, list], learned: Sequence[torch.Tensor]) -> None:
        """Train the nuisance heads by the run's own optimizer, which leaves alone what has no gradient."""
        setup, statistics = self.setup, [(one, one.clone()) for one in self.model.buffers()]
        counts = self._added({task: sum(len(batch.targets[task]) for batch in micro if task in batch.targets)
                              for task in self.nuisances})
        having = [batch for batch in micro if any(task in batch.rows for task in self.nuisances)]
        heard = [(batch, task, one) for batch in having for task, one in self.heard(batch)]
        for step in range(self.options.steps):
            for parameter in self.parameters:
                parameter.grad = None
            for batch, task, one in heard:
                self._seed("discriminator", self.update + 1, step, task, *batch.place)
                rows = setup.losses[task](self.scaling.out(self.model.heads[task](one)), batch.targets[task], batch)
                if step == 0:
                    self._add(total, task, self._finite(task, rows, batch), len(rows))
                if rows.requires_grad:
                    (rows.sum() / counts[task]).backward()
            setup.processes.add_gradients(learned)
            if setup.clip:
                torch.nn.utils.clip_grad_norm_(learned, setup.clip)
            self.optimizer.step()
        with torch.no_grad():  # of normalisations: they count each batch once, when the trunks learn from it
            for one, before in statistics:
                one.copy_(before)

    def heard(self, batch: Batch) -> Iterator[tuple[str, Representation]]:
        """What the nuisance heads are about to get of a micro-batch, without the way back into the trunks."""
        rows, found = {task: rows for task, rows in batch.rows.items() if task in self.nuisances}, {}
        hooks = [self.model.heads[task].register_forward_pre_hook(lambda head, given, task=task: found.update({task: given[0]}))
                 for task in rows]
        self._seed("forward", self.epoch, *batch.place)
        usual, self.forward = self.forward, self.model  # a compiled one does not see hooks that come and go
        try:
            with torch.no_grad():
                super().compute(replace(batch, rows=rows))
        finally:
            self.forward = usual
            for hook in hooks:
                hook.remove()
        full = lambda values: None if values is None else values.float()
        return ((task, one._replace(vector=full(one.vector), frames=full(one.frames))) for task, one in found.items())

    def compute(self, batch):
        output, losses = super().compute(batch)
        for task in self.nuisances if self.discriminates else ():
            if task in losses:
                losses[task] = confusion(self.data.tasks[task], self.scaling.out(outputs_of(output)[task]))
        return output, losses

    def watched_value(self, found):
        if not self.setup.watched and self.nuisances:
            found = {part: {task: values for task, values in tasks.items() if task not in self.nuisances}
                     for part, tasks in found.items()}
        return super().watched_value(found)
