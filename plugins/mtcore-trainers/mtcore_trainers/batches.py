"""Parts of a batch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch

from mtcore.plugin import Batch

__all__ = ["only"]


def only(batch: Batch, tasks: Collection[str]) -> Batch | None:
    """The rows that have one of these tasks, with these tasks alone; None where no row has."""
    every = torch.arange(len(batch.clips))
    having = {task: every[rows] for task, rows in batch.rows.items() if task in tasks}
    if not having:
        return None
    chosen = torch.cat(list(having.values())).unique()
    place = torch.empty_like(every)
    place[chosen] = torch.arange(len(chosen))
    pick = lambda values: {name: value[chosen] for name, value in values.items()}
    return replace(batch, inputs=pick(batch.inputs),
                   targets={task: batch.targets[task] for task in having if task in batch.targets},
                   rows={task: place[rows] for task, rows in having.items()}, clips=[batch.clips[row] for row in chosen.tolist()],
                   lengths=None if batch.lengths is None else pick(batch.lengths),
                   teachers={teacher: pick(outputs) for teacher, outputs in batch.teachers.items()})
