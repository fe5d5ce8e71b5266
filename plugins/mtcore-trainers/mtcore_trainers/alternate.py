"""One task at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from mtcore.plugin import Trainer, param
from mtcore.training.gradient import GradientRun

from .batches import only

__all__ = ["Alternate"]


@dataclass(frozen=True, kw_only=True)
class Alternate(Trainer):
    """Each update learns one task, from those rows of its batches that have it (Dong et al. 2015, Multi-task learning for
    multiple language translation; Luong et al. 2016, https://arxiv.org/abs/1511.06114, draw tasks by a mixing ratio). The next
    task is the one that, among those the batches have, has learned from the fewest rows in this epoch: so shares are kept, and
    nothing is drawn.

    Rows of other tasks in a batch are passed over in that update: with `sampler = "alternating"` a batch is of one dataset.
    """

    order: Literal["turn", "proportional"] = param(
        "turn", help="turn: as many rows of each task; proportional: by their rows in training")

    def build(self) -> AlternateRun:
        return AlternateRun(self.order == "proportional")


class AlternateRun(GradientRun):
    def __init__(self, proportional: bool):
        super().__init__()
        self.proportional = proportional

    def run(self, model, data, folder, setup):
        counts = data.statistics()
        self.owed = {task: max(1, counts[task].rows) if self.proportional else 1 for task in setup.heads}
        super().run(model, data, folder, setup)

    def one_update(self, micro, total):
        task = self.next(micro, total)
        # without a row of the task the batch is empty, but for other processes' sake it is there
        super().one_update([one for batch in micro if (one := only(batch, [task]))]
                           or [replace(batch, targets={}, rows={}) for batch in micro[:1]], total)

    def next(self, micro, total) -> str:
        """Ties go in the experiment's order, which begins one task later in each epoch."""
        names = list(self.setup.heads)
        here = [[any(name in batch.rows for batch in micro), total.get(name, (0, 0))[1]] for name in names]
        there, done = self.setup.processes.total(torch.tensor(here, dtype=torch.float64)).T.tolist()
        order = sorted(range(len(names)), key=lambda i: (done[i] / self.owed[names[i]], (i - self.epoch) % len(names)))
        return names[next(i for i in order if there[i])]
