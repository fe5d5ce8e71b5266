"""Methods of torchjd that keep no state, through one adapter."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Mapping

import numpy as np
import torch
from scipy.optimize import nnls
from torchjd import aggregation
from torchjd.linalg import DualConeProjector

from mtcore.plugin import Balancer, Balancing, param

from .gradients import ByGramian, OfGradients

__all__ = ["AlignedMtl", "DualProj", "FairGrad", "GradDrop", "ImtlG", "PcGrad", "UpGrad"]


class Weighed(ByGramian):
    """Weights from torchjd's `Weighting` of the Gramian."""

    def __init__(self, weights: Mapping[str, float], rule: Any):
        super().__init__(weights)
        self.rule = rule

    def solve(self, gramian, present):
        return self.rule(torch.from_numpy(gramian)).numpy()


class Aggregated(OfGradients):
    """A direction from torchjd's `Aggregator` of the matrix of gradients."""

    def __init__(self, weights: Mapping[str, float], rule: Any):
        super().__init__(weights)
        self.rule = rule

    def direction(self, jacobian, present):
        return self.rule(jacobian)


class Adapted(Balancer):
    """A method of torchjd by its `rule`."""

    @abstractmethod
    def rule(self) -> Any:
        """torchjd's `Weighting` or `Aggregator`, with the component's parameters."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        rule = self.rule()
        return (Weighed if isinstance(rule, aggregation.Weighting) else Aggregated)(weights, rule)


class DualCone(DualConeProjector):
    """min v^T G v with v >= u: v = u + x, and x >= 0 has the least |L^T (u + x)| for G = L L^T. Without a solver beside
    scipy."""

    def __call__(self, U, G):
        gramian = G.double().numpy()
        gramian = gramian / max(float(np.trace(gramian)), 1e-30)
        root = np.linalg.cholesky(gramian + 1e-8 * np.eye(len(gramian))).T
        project = lambda u: u + nnls(root, -root @ u)[0]
        return torch.from_numpy(np.apply_along_axis(project, -1, U.double().numpy())).to(G.dtype)


@dataclass(frozen=True, kw_only=True)
class PcGrad(Adapted):
    """Each gradient, made orthogonal to each other one that it opposes, in drawn order; their sum (Yu et al. 2020, "Gradient
    surgery for multi-task learning", algorithm 1)."""

    def rule(self):
        return aggregation.PCGradWeighting()


@dataclass(frozen=True, kw_only=True)
class GradDrop(Adapted):
    """For each value one sign is drawn by how much the gradients agree on it; those of that sign are added (Chen et al. 2020,
    "Just pick a sign", algorithm 1)."""

    def rule(self):
        return aggregation.GradDrop()


@dataclass(frozen=True, kw_only=True)
class AlignedMtl(Adapted):
    """The mean of the gradients after their principal components have been brought to one length (Senushkin et al. 2023,
    "Independent component alignment")."""

    scale: str = param("min", choices=("min", "median", "rmse"), help="that length: the smallest, median or root mean square")

    def rule(self):
        return aggregation.AlignedMTLWeighting(scale_mode=self.scale)


@dataclass(frozen=True, kw_only=True)
class ImtlG(Adapted):
    """Weights of sum 1 whose direction has equal projections on all unit gradients (Liu et al. 2021, "Towards impartial
    multi-task learning", gradient balance)."""

    def rule(self):
        return aggregation.IMTLGWeighting()


@dataclass(frozen=True, kw_only=True)
class FairGrad(Adapted):
    """Weights w with G w = w^(-1/alpha) (Ban and Ji 2024, "Fair resource allocation in multi-task learning")."""

    alpha: float = param(1.0, minimum=0, help="0: sum; 1: proportional fairness; large: the worst task decides")

    def rule(self):
        return aggregation.FairGradWeighting(self.alpha)


@dataclass(frozen=True, kw_only=True)
class UpGrad(Adapted):
    """The mean of the gradients after each was projected on the cone of directions that harm no task (Quinton and Rey 2024,
    "Jacobian descent for multi-objective optimization")."""

    def rule(self):
        return aggregation.UPGradWeighting(projector=DualCone())


@dataclass(frozen=True, kw_only=True)
class DualProj(Adapted):
    """The mean gradient, projected on the cone of directions that harm no task (Lopez-Paz and Ranzato 2017, "Gradient episodic
    memory")."""

    def rule(self):
        return aggregation.DualProjWeighting(projector=DualCone())
