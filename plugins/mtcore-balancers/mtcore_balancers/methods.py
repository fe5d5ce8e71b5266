"""Methods of the Gramian G = J J^T. g_k is row k of J. torchjd has most of them; here they cost a small part of an update, and
keep their state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from operator import add, mul
from statistics import fmean

import numpy as np
import torch

from mtcore.plugin import Balancer, Balancing, ExperimentError, param

from .gradients import ByGramian
from .solvers import averse, bargained, definite, dot, harmless, least, norms, shortest, spectrum, through, times
from .state import COUNTED

__all__ = ["AlignedMtl", "CaGrad", "Config", "CrMogm", "DualProj", "FairGrad", "GradNorm", "GradVac", "ImtlG", "Mgda", "NashMtl",
           "OnSimplex", "PcGrad", "Pcd", "UpGrad"]


class Surgery(ByGramian):
    def solve(self, gramian, present):
        made, n = [0.0] * len(present), len(present)
        for i in range(n):
            one = [float(i == j) for j in range(n)]
            for j in torch.randperm(n).tolist():
                inner = dot(gramian[j], one)
                if j != i and inner < 0:
                    one[j] -= inner / gramian[j][j]
            made = list(map(add, made, one))
        return made


@dataclass(frozen=True, kw_only=True)
class PcGrad(Balancer):
    """Each gradient, made orthogonal to each other one that it opposes, in drawn order; their sum (Yu et al. 2020, "Gradient
    surgery for multi-task learning", algorithm 1)."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Surgery(weights)


class Aligned(ByGramian):
    def __init__(self, weights: Mapping[str, float], scale: str):
        super().__init__(weights)
        self.length = {"min": min, "median": lambda found: found[(len(found) - 1) // 2], "rmse": fmean}[scale]

    def solve(self, gramian, present):
        pairs, uniform = spectrum(gramian), [1 / len(present)] * len(present)
        if not pairs:
            return uniform
        length = self.length([value for value, _ in pairs])
        return through(pairs, lambda value: sqrt(length / value), uniform)


@dataclass(frozen=True, kw_only=True)
class AlignedMtl(Balancer):
    """The mean of the gradients after their principal components have been brought to one length (Senushkin et al. 2023,
    "Independent component alignment")."""

    scale: str = param("min", choices=("min", "median", "rmse"), help="that length: the smallest, median or root mean square")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Aligned(weights, self.scale)


class Impartial(ByGramian):
    def solve(self, gramian, present):
        weights = through(spectrum(gramian), lambda value: 1 / value, norms(gramian))
        total = sum(weights)
        return [weight / total if abs(total) > 1e-12 else 0.0 for weight in weights]


@dataclass(frozen=True, kw_only=True)
class ImtlG(Balancer):
    """Weights of sum 1 whose direction has equal projections on all unit gradients (Liu et al. 2021, "Towards impartial
    multi-task learning", gradient balance)."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Impartial(weights)


class EachHarmless(ByGramian):
    def solve(self, gramian, present):
        n = len(present)
        return list(map(sum, zip(*harmless(gramian, [[(i == j) / n for j in range(n)] for i in range(n)]))))


@dataclass(frozen=True, kw_only=True)
class UpGrad(Balancer):
    """The mean of the gradients after each was projected on the cone of directions that harm no task (Quinton and Rey 2024,
    "Jacobian descent for multi-objective optimization")."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return EachHarmless(weights)


class MeanHarmless(ByGramian):
    def solve(self, gramian, present):
        return harmless(gramian, [[1 / len(present)] * len(present)])[0]


@dataclass(frozen=True, kw_only=True)
class DualProj(Balancer):
    """The mean gradient, projected on the cone of directions that harm no task (Lopez-Paz and Ranzato 2017, "Gradient episodic
    memory")."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return MeanHarmless(weights)


class ConflictAverse(ByGramian):
    def __init__(self, weights: Mapping[str, float], c: float):
        super().__init__(weights)
        self.c = c

    def solve(self, gramian, present):
        return averse(gramian, self.c)


@dataclass(frozen=True, kw_only=True)
class CaGrad(Balancer):
    """max_d min_k g_k·d with |d - g_0| <= c |g_0|, g_0 the mean gradient: d = g_0 + c |g_0| g_w / |g_w| where w of the simplex
    minimises g_w·g_0 + c |g_0| |g_w| (Liu et al. 2021, "Conflict-averse gradient descent", algorithm 1)."""

    c: float = param(0.4, minimum=0, help="radius in units of the mean gradient's norm; 0: the mean")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return ConflictAverse(weights, self.c)


class EqualAngles(ByGramian):
    def solve(self, gramian, present):
        inverse = [1 / norm if norm else 0.0 for norm in norms(gramian)]
        cosines = [[value * a * b for value, b in zip(row, inverse)] for row, a in zip(gramian, inverse)]
        weights = list(map(mul, inverse, through(spectrum(cosines), lambda value: 1 / value, [1.0] * len(inverse))))
        products = times(gramian, weights)
        square = dot(weights, products)
        return [weight * sum(products) / square if square > 0 else 0.0 for weight in weights]


@dataclass(frozen=True, kw_only=True)
class Config(Balancer):
    """Equal cosines to all gradients, as long as the sum of their projections: with unit gradients U the direction of U^+ 1 =
    U^T (U U^T)^+ 1, which needs no more than inner products (Liu et al. 2024, "ConFIG", equations 2 and 3)."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return EqualAngles(weights)


class Fair(ByGramian):
    def __init__(self, weights: Mapping[str, float], alpha: float):
        super().__init__(weights)
        self.alpha = alpha

    def solve(self, gramian, present):
        return bargained(gramian, 1 / self.alpha) if self.alpha else [1 / len(present)] * len(present)


@dataclass(frozen=True, kw_only=True)
class FairGrad(Balancer):
    """Weights w with G w = w^(-1/alpha) (Ban and Ji 2024, "Fair resource allocation in multi-task learning")."""

    alpha: float = param(1.0, minimum=0, help="0: mean; 1: proportional fairness; large: the worst task decides")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Fair(weights, self.alpha)


class Bargaining(ByGramian):
    def __init__(self, weights: Mapping[str, float], longest: float):
        super().__init__(weights)
        self.longest = longest

    def solve(self, gramian, present):
        alpha = bargained(gramian, 1)
        length = sqrt(max(dot(alpha, times(gramian, alpha)), 0))
        return [one * min(1, self.longest / length) for one in alpha] if length and self.longest else alpha


@dataclass(frozen=True, kw_only=True)
class NashMtl(Balancer):
    """Weights a > 0 with G a = 1 / a (Navon et al. 2022, "Multi-task learning as a bargaining game", claim 3.1). The solution
    minimises a G a / 2 - sum log a, which is convex, so it is found exactly and nothing has to be remembered."""

    max_norm: float = param(1.0, minimum=0, help="longest direction; 0: no limit, the length is the root of the number of tasks")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Bargaining(weights, self.max_norm)


class Vaccine(ByGramian):
    def __init__(self, weights: Mapping[str, float], beta: float):
        super().__init__(weights)
        self.beta = beta
        self.state["cosines"] = torch.zeros(len(weights), len(weights), **COUNTED)

    def solve(self, gramian, present):
        gramian, goal, n = np.array(gramian), self.state["cosines"].numpy(), len(gramian)
        norms = np.sqrt(np.diag(gramian))
        made = np.eye(n)
        for i in range(n):
            for j in torch.randperm(n).tolist():
                length = np.sqrt(max(made[i] @ gramian @ made[i], 0))
                if j == i or not norms[j] or not length:
                    continue
                a, b = present[i], present[j]
                cosine, wanted = np.clip(made[i] @ gramian[:, j] / (length * norms[j]), -1, 1), goal[a, b]
                if cosine < wanted:
                    sine, target = np.sqrt(1 - cosine**2), np.sqrt(max(1 - wanted**2, 1e-12))
                    made[i, j] += length * (wanted * sine - cosine * target) / (norms[j] * target)
                goal[a, b] += self.beta * (cosine - wanted)
        return made.sum(0)


@dataclass(frozen=True, kw_only=True)
class GradVac(Balancer):
    """Where the cosine of two tasks' gradients is below its running mean, one is moved towards the other until it is reached;
    their sum (Wang et al. 2021, "Gradient vaccine", equation 6, algorithm 1)."""

    beta: float = param(0.01, minimum=0, maximum=1, help="share of the new cosine in the running mean")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Vaccine(weights, self.beta)


class OnSimplex(ByGramian):
    """Keeps weights of all tasks that add up to 1; an update moves those of its tasks among each other."""

    def __init__(self, weights: Mapping[str, float]):
        super().__init__(weights)
        self.state["weights"] = torch.full((len(weights),), 1 / len(weights), **COUNTED)

    def moved(self, present: list[int], new: np.ndarray) -> np.ndarray:
        self.state["weights"][present] = torch.from_numpy(new)
        return new

    def kept(self, present: list[int]) -> np.ndarray:
        return self.state["weights"][present].numpy()


class Shortest(ByGramian):
    def solve(self, gramian, present):
        return shortest(gramian)


@dataclass(frozen=True, kw_only=True)
class Mgda(Balancer):
    """The shortest vector in the convex hull of the gradients (Désidéri 2012, "Multiple-gradient descent algorithm"; Sener and
    Koltun 2018, "Multi-task learning as multi-objective optimization", equation 4), found exactly."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Shortest(weights)


class Smoothed(OnSimplex):
    def __init__(self, weights: Mapping[str, float], alpha: float):
        super().__init__(weights)
        self.alpha = alpha

    def solve(self, gramian, present):
        old = self.kept(present)
        return self.moved(present, self.alpha * old + (1 - self.alpha) * old.sum() * np.array(shortest(gramian)))


@dataclass(frozen=True, kw_only=True)
class CrMogm(Balancer):
    """w = alpha w + (1 - alpha) w' with the weights w' of MGDA (Zhou et al. 2022, "On the convergence of stochastic
    multi-objective gradient manipulation and beyond", algorithm 1)."""

    alpha: float = param(0.9, minimum=0, maximum=1, help="share of the old weights")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Smoothed(weights, self.alpha)


class Normed(ByGramian):
    def __init__(self, weights: Mapping[str, float], alpha: float, lr: float):
        super().__init__(weights)
        self.alpha, self.lr = alpha, lr
        self.state = {"weights": torch.ones(len(weights), **COUNTED),
                      "first": torch.full((len(weights),), torch.nan, **COUNTED)}

    def _at_once(self, losses, shared, representation, rows):
        self.values = torch.zeros(len(self.tasks))
        for task, loss in losses.items():
            self.values[self.index[task]] = self.weights[task] * loss.detach()
        return super()._at_once(losses, shared, representation, rows)

    def solve(self, gramian, present):
        kept, first = self.state["weights"].numpy(), self.state["first"].numpy()
        values = self.values.double().numpy()[present]
        first[present] = np.where(np.isnan(first[present]), values, first[present])
        w, norms = kept[present], np.sqrt(np.diag(gramian))
        left = values / np.where(first[present] == 0, 1, first[present])
        rate = np.maximum(left / max(left.mean(), 1e-12), 0)
        wanted = (w * norms).mean() * rate**self.alpha
        new = np.maximum(w - self.lr * np.sign(w * norms - wanted) * norms, 1e-3)
        kept[present] = new * w.sum() / new.sum()
        return w


@dataclass(frozen=True, kw_only=True)
class GradNorm(Balancer):
    """sum_k w_k g_k; w takes a step down the gradient of sum_k | |w_k g_k| - m r_k^alpha |, m the mean of |w_k g_k| and r_k
    the share of task k's first loss that is left, over the mean of these shares; then the weights have the old sum again (Chen
    et al. 2018, "GradNorm", equations 1 and 2). The norms are of all shared parameters. Weights stay above 0.001."""

    alpha: float = param(1.5, minimum=0, help="how strongly tasks that learn slowly are preferred")
    lr: float = param(0.025, minimum=0, help="step of the weights")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Normed(weights, self.alpha, self.lr)


class Constrained(ByGramian):
    def __init__(self, weights: Mapping[str, float], primary: int, tau: float, beta: float):
        super().__init__(weights)
        self.primary, self.tau, self.beta = primary, tau, beta
        self.state = {name: torch.zeros(len(weights), **COUNTED) for name in ("squares", "updates")}

    def solve(self, gramian, present):
        gramian, squares, updates = np.array(gramian), self.state["squares"].numpy(), self.state["updates"].numpy()
        updates[present] += 1
        squares[present] = self.beta * squares[present] + (1 - self.beta) * np.diag(gramian)
        scales = 1 / np.sqrt(squares[present] / (1 - self.beta ** updates[present]) + 1e-8)
        if self.primary not in present:
            return np.full(len(present), 1 / len(present))
        first = present.index(self.primary)
        others = [i for i in range(len(present)) if i != first]
        scaled = gramian * np.outer(scales, scales)
        weights = np.eye(len(present))[first]
        if others and scaled[first, first] > 0:
            inner = scaled[np.ix_(others, others)]
            matrix, trace = definite(inner.tolist())
            # the dual problem: mu >= 0 with the least mu G mu / 2 - mu·lacking
            weights[others] = least(matrix, (self.tau * np.diag(inner) - scaled[others, first]) / trace)
            if (scaled[others] @ weights < self.tau * np.diag(inner) - 1e-5 * np.trace(scaled)).any():
                weights[others] = 0  # no direction serves all
        length = weights @ scaled @ weights
        return weights * scales * np.sqrt(gramian[first, first] / length) if length > 1e-12 else 0 * weights


@dataclass(frozen=True, kw_only=True)
class Pcd(Balancer):
    """The direction next to the primary task's gradient on which every other task makes at least the share tau of the progress
    that its own gradient gives, all gradients scaled by the running mean of their squared norms; as long as the primary one
    (priority-constrained descent, arXiv 2606.29521). An update without the primary task takes the mean."""

    primary: str = param("", help="the primary task; empty: the first one")
    tau: float = param(0.02, minimum=0, maximum=1, help="share of progress guaranteed to the others")
    beta: float = param(0.999, minimum=0, maximum=0.999999, help="share of the old mean of squared norms")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        if self.primary and self.primary not in weights:
            raise ExperimentError(f"train.balancer.primary: expected one of {', '.join(weights)}; found {self.primary!r}")
        return Constrained(weights, list(weights).index(self.primary) if self.primary else 0, self.tau, self.beta)
