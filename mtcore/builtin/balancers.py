"""How all tasks' losses become one update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mtcore.plugin import Balancer, Balancing

__all__ = ["Sum"]


@dataclass(frozen=True, kw_only=True)
class Sum(Balancer):
    """Each task's weight times its loss, added up: one backward pass."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Summing(weights)


class Summing(Balancing):
    def __init__(self, weights: Mapping[str, float]):
        self.weights = dict(weights)

    def backward(self, losses, shared, representation, rows, last=True):
        if losses:
            sum(self.weights[task] * loss for task, loss in losses.items()).backward()
