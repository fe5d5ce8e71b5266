"""Batches of similar lengths, so that little is padded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Sampler, SamplerIndex, param

__all__ = ["Bucketed"]


@dataclass(frozen=True, kw_only=True)
class Bucketed(Sampler):
    """One shuffle of all rows, cut into pools of several batches; each pool is sorted by length and cut into batches, and the batches of
    the epoch come in random order. Every row comes once."""

    pool: int = param(50, minimum=1, unit="batches", help="larger: less padding, but rows of a batch are more alike")

    def build(self, index: SamplerIndex, batch_size: int) -> Callable[[int, np.random.Generator], Iterator[list[int]]]:
        def batches(epoch, rng):
            order, size = rng.permutation(len(index.length)), self.pool * batch_size
            pools = [order[start:start + size] for start in range(0, len(order), size)]
            cut = []
            for rows in pools:
                rows = rows[np.argsort(index.length[rows], kind="stable")]
                cut += [rows[start:start + batch_size] for start in range(0, len(rows), batch_size)]
            for number in rng.permutation(len(cut)):
                yield cut[number].tolist()

        return batches
