"""Which rows make up the next batch. Each sampler gives every row once per epoch; the last, smaller batch is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Sampler, SamplerIndex

__all__ = ["Alternating", "Mixed", "Proportional"]

Batches = Callable[[int, np.random.Generator], Iterator[list[int]]]


def by_dataset(index: SamplerIndex) -> list[np.ndarray]:
    """Row numbers per dataset; datasets without rows are left out."""
    order = np.argsort(index.dataset, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(index.dataset[order])) + 1) if len(order) else []


@dataclass(frozen=True, kw_only=True)
class Mixed(Sampler):
    """One shuffle of all rows, whatever dataset they come from."""

    def build(self, index: SamplerIndex, batch_size: int) -> Batches:
        def batches(epoch, rng):
            order = rng.permutation(len(index.dataset))
            for start in range(0, len(order), batch_size):
                yield order[start:start + batch_size].tolist()

        return batches


@dataclass(frozen=True, kw_only=True)
class Proportional(Sampler):
    """Each batch keeps the ratio of what is left of the datasets, rounded up or down at random (systematic sampling)."""

    def build(self, index: SamplerIndex, batch_size: int) -> Batches:
        rows = by_dataset(index)

        def batches(epoch, rng):
            orders = [rng.permutation(part) for part in rows]
            taken, left = np.zeros(len(rows), int), np.array([len(part) for part in rows], int)
            while total := int(left.sum()):
                size = min(batch_size, total)
                # whole numbers throughout: each share is size * left / total rounded down or up, and they add up to size
                counts = np.diff((size * np.cumsum(left) + rng.integers(total)) // total, prepend=0)
                yield np.concatenate([o[a:a + n] for o, a, n in zip(orders, taken, counts)]).tolist()
                taken, left = taken + counts, left - counts

        return batches


@dataclass(frozen=True, kw_only=True)
class Alternating(Sampler):
    """One dataset per batch; the next one is drawn in proportion to the batches that are left of each."""

    def build(self, index: SamplerIndex, batch_size: int) -> Batches:
        rows = by_dataset(index)

        def batches(epoch, rng):
            orders = [rng.permutation(part) for part in rows]
            starts = [iter(range(0, len(part), batch_size)) for part in rows]
            for which in rng.permutation(np.repeat(np.arange(len(rows)), [-(-len(part) // batch_size) for part in rows])):
                start = next(starts[which])
                yield orders[which][start:start + batch_size].tolist()

        return batches
