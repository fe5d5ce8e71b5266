"""Samplers that draw from several sources in fixed shares, with a rule for where an epoch ends.

A source is a dataset or a label's rows. Each is gone through in a shuffle of its own; one that ends before the epoch does begins anew
in another shuffle. So the rows of a large source are covered once where the epoch ends with it, whatever the shares are; one that the
epoch leaves unfinished goes on in the next epoch where it stopped.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import ParameterError, Sampler, SamplerIndex, param

__all__ = ["Balanced", "Temperature", "Weighted"]

Batches = Callable[[int, np.random.Generator], Iterator[list[int]]]


@dataclass(frozen=True, kw_only=True)
class Shares(Sampler):
    """Sources by name with their rows and shares; an epoch ends with the source that `until` names."""

    until: str = param("longest", help="where an epoch ends: with the source that takes longest to go through, the shortest, or the one of "
                                       "this name")
    batches: int | None = param(None, minimum=1, help="instead: so many batches an epoch")

    @abstractmethod
    def sources(self, index: SamplerIndex) -> dict[str, tuple[np.ndarray, float]]:
        """Rows (at least one) and weight (above 0) of each source."""

    def build(self, index: SamplerIndex, batch_size: int) -> Batches:
        sources = self.sources(index)
        rows = [part for part, _ in sources.values()]
        shares = np.array([weight for _, weight in sources.values()])
        shares = shares / shares.sum()
        number = self.batches or self._batches(sources, shares, batch_size)

        totals = [np.zeros(len(rows), int)]
        for total in range(batch_size, number * batch_size + 1, batch_size):
            totals.append(_apportioned(shares * total, total, shares, totals[-1]))
        counts, drawn = np.diff(totals, axis=0), totals[-1]
        # rows of an epoch: those drawn or, where that is every row, whole shuffles
        steps = [count if count < len(part) else -(-count // len(part)) * len(part) for part, count in zip(rows, drawn.tolist())]

        def batches(epoch, rng):
            walks = [_walk(part, epoch * step, index.seed, source) for source, (part, step) in enumerate(zip(rows, steps))]
            for some in counts:
                yield [next(walk) for walk, count in zip(walks, some) for _ in range(count)]

        return batches

    def _batches(self, sources: dict[str, tuple[np.ndarray, float]], shares: np.ndarray, batch_size: int) -> int:
        needed = {name: len(part) / share for (name, (part, _)), share in zip(sources.items(), shares)}  # rows drawn until it is through
        if self.until not in ("longest", "shortest", *needed):
            raise ParameterError(f"until: expected longest, shortest or one of {', '.join(needed)}; found {self.until!r}")
        found = {"longest": max, "shortest": min}.get(self.until, lambda values: needed[self.until])(needed.values())
        return max(1, int(np.ceil(found / batch_size - 1e-9)))


def _apportioned(owed: np.ndarray, total: int, shares: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Whole numbers that add up to `total`, each `owed` rounded down or up and none below `before`. Up go those that will be owed the next
    row soonest: earliest deadline first, after Tijdeman (1980), The chairman assignment problem, Discrete Mathematics 32."""
    down = np.floor(owed + 1e-9).astype(int)
    soon = np.lexsort(((down + 1 - owed) / shares, before <= down))  # what was rounded up before stays up
    down[soon[:total - down.sum()]] += 1
    return down


def _walk(rows: np.ndarray, first: int, *key: int) -> Iterator[int]:
    """All rows in a shuffle, then again in another, without end, from the first-th on; what comes where follows from the key alone."""
    number, place = divmod(first, len(rows))
    while True:
        yield from np.random.default_rng([*key, number]).permutation(rows)[place:].tolist()
        number, place = number + 1, 0


def datasets(index: SamplerIndex) -> dict[str, np.ndarray]:
    """Rows of each dataset that has some."""
    return {name: found for number, name in enumerate(index.datasets) if len(found := np.flatnonzero(index.dataset == number))}


@dataclass(frozen=True, kw_only=True)
class Balanced(Shares):
    """As many rows of each dataset or, with a task, of each of its labels; rows without the task, or with several labels, are one more
    source."""

    task: str | None = param(None, help="balance this task's labels instead of datasets")

    def sources(self, index):
        if self.task is None:
            return {name: (rows, 1.0) for name, rows in datasets(index).items()}
        if self.task not in index.labels:
            raise ParameterError(f"task: expected one of {', '.join(index.labels)}; found {self.task!r}")
        labels = index.labels[self.task]
        return {"none" if label < 0 else str(label): (np.flatnonzero(labels == label), 1.0) for label in np.unique(labels)}


@dataclass(frozen=True, kw_only=True)
class Temperature(Shares):
    """Datasets by their size to a power: 1 is proportional, 0 balanced; 0.5 is usual for languages of very different sizes (Arivazhagan et
    al. 2019, https://arxiv.org/abs/1907.05019, where the power is 1/T)."""

    power: float = param(0.5, minimum=0, maximum=1, help="of a dataset's number of rows")

    def sources(self, index):
        return {name: (rows, float(len(rows)) ** self.power) for name, rows in datasets(index).items()}


@dataclass(frozen=True, kw_only=True)
class Weighted(Shares):
    """Datasets in given shares; those that are not named have the weight 1."""

    weights: dict[str, float] = param({}, minimum=1e-6, help="of datasets, relative to each other")

    def sources(self, index):
        found = datasets(index)
        unknown = sorted(set(self.weights) - set(index.datasets))
        if unknown:
            raise ParameterError(f"weights: expected datasets out of {', '.join(index.datasets)}; found {unknown[0]!r}")
        return {name: (rows, self.weights.get(name, 1.0)) for name, rows in found.items()}
