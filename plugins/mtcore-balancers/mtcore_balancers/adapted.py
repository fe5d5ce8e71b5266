"""Methods of torchjd, through one adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torchjd import aggregation

from mtcore.plugin import Balancer, Balancing

from .gradients import OfGradients

__all__ = ["GradDrop"]


class Aggregated(OfGradients):
    """A direction from torchjd's `Aggregator` of the matrix of gradients."""

    def __init__(self, weights: Mapping[str, float], rule: Any):
        super().__init__(weights)
        self.rule = rule

    def direction(self, jacobian, present):
        return self.rule(jacobian)


@dataclass(frozen=True, kw_only=True)
class GradDrop(Balancer):
    """For each value one sign is drawn by how much the gradients agree on it; those of that sign are added (Chen et al. 2020,
    "Just pick a sign", algorithm 1)."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Aggregated(weights, aggregation.GradDrop())
