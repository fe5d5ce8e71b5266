"""Gradient methods that torchjd lacks, solves with a heavy solver, or whose state it forgets. G is J J^T, g_k row k of J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

import numpy as np
import torch
from scipy.optimize import minimize, nnls
from torch import Tensor

from mtcore.plugin import Balancer, Balancing, ExperimentError, param

from .gradients import ByGramian, OfGradients, simplex

__all__ = ["CaGrad", "Config", "CrMogm", "DbMtl", "ExcessMtl", "GradNorm", "GradVac", "Mgda", "Moco", "Modo", "NashMtl", "Pcd", "SdmGrad"]


class ConflictAverse(ByGramian):
    def __init__(self, weights: Mapping[str, float], c: float):
        super().__init__(weights)
        self.c = c

    def solve(self, gramian, present):
        n = len(gramian)
        scaled, mean = gramian / max(np.trace(gramian), 1e-30), np.full(n, 1 / n)
        radius = self.c * np.sqrt(mean @ scaled @ mean)
        norm = lambda w: np.sqrt(max(w @ scaled @ w, 1e-24))
        w = minimize(lambda w: (mean @ scaled @ w + radius * norm(w), scaled @ mean + radius * scaled @ w / norm(w)), mean, jac=True,
                     method="SLSQP", bounds=[(0, 1)] * n, options={"ftol": 1e-12, "maxiter": 200},
                     constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(n)}).x
        return mean + (radius / norm(w) * w if norm(w) > 1e-9 else 0)


@dataclass(frozen=True, kw_only=True)
class CaGrad(Balancer):
    """max_d min_k g_k·d with |d - g_0| <= c |g_0|, g_0 the mean gradient: d = g_0 + c |g_0| g_w / |g_w| where w of the simplex minimises
    g_w·g_0 + c |g_0| |g_w| (Liu et al. 2021, "Conflict-averse gradient descent", algorithm 1)."""

    c: float = param(0.4, minimum=0, help="radius in units of the mean gradient's norm; 0: the mean")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return ConflictAverse(weights, self.c)


class EqualAngles(ByGramian):
    def solve(self, gramian, present):
        norms = np.sqrt(np.diag(gramian))
        inverse = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
        weights = inverse * (np.linalg.pinv(gramian * np.outer(inverse, inverse), hermitian=True) @ np.ones(len(norms)))
        square = weights @ gramian @ weights
        return weights * (gramian @ weights).sum() / square if square > 0 else 0 * weights


@dataclass(frozen=True, kw_only=True)
class Config(Balancer):
    """Equal cosines to all gradients, as long as the sum of their projections: with unit gradients U the direction of U^+ 1 = U^T (U U^T)^+
    1, which needs no more than inner products (Liu et al. 2024, "ConFIG", equations 2 and 3)."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return EqualAngles(weights)


class Bargaining(ByGramian):
    def __init__(self, weights: Mapping[str, float], longest: float):
        super().__init__(weights)
        self.longest = longest

    def solve(self, gramian, present):
        n, scale = len(gramian), max(np.trace(gramian) / len(gramian), 1e-30)
        scaled = gramian / scale + 1e-8 * np.eye(n)
        alpha = 1 / np.sqrt(np.diag(scaled))
        for _ in range(100):  # damped Newton on alpha G alpha / 2 - sum log alpha, which is self-concordant
            slope = scaled @ alpha - 1 / alpha
            step = np.linalg.solve(scaled + np.diag(alpha**-2), slope)
            decrement = np.sqrt(slope @ step)
            alpha = alpha - step / (1 + decrement if decrement > 0.25 else 1)
            if decrement < 1e-9:
                break
        alpha = alpha / np.sqrt(scale)
        length = np.sqrt(alpha @ gramian @ alpha)
        return alpha * (min(1, self.longest / length) if length and self.longest else 1)


@dataclass(frozen=True, kw_only=True)
class NashMtl(Balancer):
    """Weights a > 0 with G a = 1 / a (Navon et al. 2022, "Multi-task learning as a bargaining game", claim 3.1). The solution minimises
    a G a / 2 - sum log a, which is convex, so it is found exactly and nothing has to be remembered."""

    max_norm: float = param(1.0, minimum=0, help="longest direction; without a limit (0) its length is the root of the number of tasks")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Bargaining(weights, self.max_norm)


class Vaccine(ByGramian):
    def __init__(self, weights: Mapping[str, float], beta: float):
        super().__init__(weights)
        self.beta = beta
        self.state["cosines"] = torch.zeros(len(weights), len(weights), dtype=torch.float64)

    def solve(self, gramian, present):
        goal, norms, n = self.state["cosines"].numpy(), np.sqrt(np.diag(gramian)), len(gramian)
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
    """Where the cosine of two tasks' gradients is below its running mean, one is moved towards the other until it is reached; their sum
    (Wang et al. 2021, "Gradient vaccine", equation 6, algorithm 1)."""

    beta: float = param(0.01, minimum=0, maximum=1, help="share of the new cosine in the running mean")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Vaccine(weights, self.beta)


class OnSimplex(ByGramian):
    """Keeps weights of all tasks that add up to 1; an update moves those of its tasks among each other."""

    def __init__(self, weights: Mapping[str, float]):
        super().__init__(weights)
        self.state["weights"] = torch.full((len(weights),), 1 / len(weights), dtype=torch.float64)

    def moved(self, present: list[int], new: np.ndarray) -> np.ndarray:
        self.state["weights"][present] = torch.from_numpy(new)
        return new

    def kept(self, present: list[int]) -> np.ndarray:
        return self.state["weights"][present].numpy()


def shortest(gramian: np.ndarray) -> np.ndarray:
    """The weights of the simplex with the least w G w: the shares of the x >= 0 with the least x G x + (sum x - 1)^2, since for x = s w
    the best s gives w G w / (w G w + 1), which falls with w G w."""
    n, scaled = len(gramian), gramian / max(np.trace(gramian), 1e-30)
    values, vectors = np.linalg.eigh(scaled)
    root = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T
    found = nnls(np.vstack([root, np.ones(n)]), np.append(np.zeros(n), 1.0))[0]
    return found / found.sum()


class Shortest(ByGramian):
    def solve(self, gramian, present):
        return shortest(gramian)


@dataclass(frozen=True, kw_only=True)
class Mgda(Balancer):
    """The shortest vector in the convex hull of the gradients (Désidéri 2012, "Multiple-gradient descent algorithm"; Sener and Koltun
    2018, "Multi-task learning as multi-objective optimization", equation 4), found exactly."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Shortest(weights)


class Smoothed(OnSimplex):
    def __init__(self, weights: Mapping[str, float], alpha: float):
        super().__init__(weights)
        self.alpha = alpha

    def solve(self, gramian, present):
        old = self.kept(present)
        return self.moved(present, self.alpha * old + (1 - self.alpha) * old.sum() * shortest(gramian))


@dataclass(frozen=True, kw_only=True)
class CrMogm(Balancer):
    """w = alpha w + (1 - alpha) w' with the weights w' of MGDA (Zhou et al. 2022, "On the convergence of stochastic multi-objective
    gradient manipulation and beyond", algorithm 1)."""

    alpha: float = param(0.9, minimum=0, maximum=1, help="share of the old weights")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Smoothed(weights, self.alpha)


class Normed(ByGramian):
    def __init__(self, weights: Mapping[str, float], alpha: float, lr: float):
        super().__init__(weights)
        self.alpha, self.lr = alpha, lr
        self.state = {"weights": torch.ones(len(weights), dtype=torch.float64),
                      "first": torch.full((len(weights),), torch.nan, dtype=torch.float64)}

    def _at_once(self, losses, shared, representation, rows):
        for task, loss in losses.items():
            self.values[self.index[task]] = self.weights[task] * loss.detach()
        done = super()._at_once(losses, shared, representation, rows)
        if not done:
            self.values.zero_()
        return done

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
    """sum_k w_k g_k; w takes a step down the gradient of sum_k | |w_k g_k| - m r_k^alpha |, m the mean of |w_k g_k| and r_k the share
    of task k's first loss that is left, over the mean of these shares; then the weights have the old sum again (Chen et al. 2018,
    "GradNorm", equations 1 and 2). The norms are of all shared parameters. Weights stay above 0.001."""

    alpha: float = param(1.5, minimum=0, help="how strongly tasks that learn slowly are preferred")
    lr: float = param(0.025, minimum=0, help="step of the weights")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Normed(weights, self.alpha, self.lr)


class Tracked(OfGradients):
    """Keeps an average of each task's gradient."""

    def average(self, jacobian: Tensor, present: list[int], share: float) -> Tensor:
        """Of these tasks, after the new gradients have come in with this share."""
        if "mean" not in self.state:
            self.state["mean"] = torch.zeros(len(self.tasks), jacobian.shape[1], dtype=jacobian.dtype)
        mean = self.state["mean"]
        for row, i in zip(jacobian, present):  # in place: an index would copy all rows
            mean[i].lerp_(row, share)
        return mean if len(present) == len(mean) else mean[present]


class Corrected(Tracked):
    def __init__(self, weights: Mapping[str, float], beta: float, gamma: float, rho: float):
        super().__init__(weights)
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.state["weights"] = torch.full((len(weights),), 1 / len(weights), dtype=torch.float64)

    def direction(self, jacobian, present):
        mean = self.average(jacobian, present, self.beta)
        old = self.state["weights"][present].numpy()
        gramian = (mean @ mean.T).double().numpy()
        new = torch.from_numpy(simplex(old - self.gamma * (gramian @ old + self.rho * old), old.sum()))
        self.state["weights"][present] = new
        return new.to(mean.dtype) @ mean


@dataclass(frozen=True, kw_only=True)
class Moco(Balancer):
    """y_k = y_k - beta (y_k - g_k); w = the point of the simplex next to w - gamma (Y Y^T w + rho w); direction sum_k w_k y_k
    (Fernando et al. 2023, "Mitigating gradient bias in multi-objective learning", algorithm 1). Remembers a gradient per task."""

    beta: float = param(0.5, minimum=0, maximum=1, help="share of the new gradient in y")
    gamma: float = param(0.1, minimum=0, help="step of the weights")
    rho: float = param(0.0, minimum=0, help="pulls the weights towards equal ones")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Corrected(weights, self.beta, self.gamma, self.rho)


class Dual(Tracked):
    def __init__(self, weights: Mapping[str, float], beta: float, sigma: float):
        super().__init__(weights)
        self.beta, self.sigma = beta, sigma
        self.state["updates"] = torch.zeros((), dtype=torch.int64)

    def direction(self, jacobian, present):
        self.state["updates"] += 1
        share = 1 - self.beta / float(self.state["updates"]) ** self.sigma
        logarithmic = jacobian / (self.values[present, None] + 1e-8)
        mean = self.average(logarithmic, present, share)
        norms = mean.norm(dim=1)
        return (norms.max() / norms.clamp_min(1e-12)) @ mean


@dataclass(frozen=True, kw_only=True)
class DbMtl(Balancer):
    """Gradients of log L_k, averaged over the updates with the share beta / t^sigma of the old mean at update t, all brought to the
    length of the longest and added (Lin et al. 2023, "Dual-balancing for multi-task learning", algorithm 1)."""

    beta: float = param(0.9, minimum=0, maximum=1, help="share of the old mean at the first update")
    sigma: float = param(0.5, minimum=0, help="how fast that share falls")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Dual(weights, self.beta, self.sigma)


class Excess(OfGradients):
    def __init__(self, weights: Mapping[str, float], step: float):
        super().__init__(weights)
        self.step = step
        self.state = {"weights": torch.full((len(weights),), 1 / len(weights), dtype=torch.float64),
                      "first": torch.full((len(weights),), torch.nan, dtype=torch.float64)}

    def direction(self, jacobian, present):
        if "squares" not in self.state:
            self.state["squares"] = torch.zeros(len(self.tasks), jacobian.shape[1], dtype=jacobian.dtype)
        risk = torch.empty(len(present), dtype=torch.float64)
        for number, (row, i) in enumerate(zip(jacobian, present)):
            total, squares = self.state["squares"][i], row**2
            risk[number] = (squares / torch.sqrt(total.add_(squares) + 1e-7)).sum()
        first = self.state["first"]
        first[present] = torch.where(first[present].isnan(), risk.clamp_min(1e-12), first[present])
        old = self.state["weights"][present]
        new = old * torch.exp(self.step * (risk / first[present] - (risk / first[present]).max()))
        new = new * old.sum() / new.sum()
        self.state["weights"][present] = new
        return new.to(jacobian.dtype) @ jacobian


@dataclass(frozen=True, kw_only=True)
class ExcessMtl(Balancer):
    """w_k proportional to w_k exp(step E_k / E_k(1)) with the excess risk E_k = sum g_k^2 / sqrt(sum of its squares so far) (He et al.
    2024, "Robust multi-task learning with excess risks", equations 6, 7 and 9). Remembers a value per task and shared parameter."""

    step: float = param(0.01, minimum=0, help="of the weights")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Excess(weights, self.step)


class Independent(OnSimplex):
    """Weights from products of gradients of independent batches, J_1 J_2^T."""

    batches_per_update = 2

    def direction(self, jacobian, present):
        one, two = self.batches(present)[:2]
        return self.solved(one @ two.T, present) @ (self.batches(present)[2] if self.batches_per_update > 2 else jacobian)

    def _at_once(self, losses, shared, representation, rows):
        return False


class TwoBatches(Independent):
    def __init__(self, weights: Mapping[str, float], gamma: float, rho: float):
        super().__init__(weights)
        self.gamma, self.rho = gamma, rho

    def solve(self, gramian, present):
        old = self.kept(present)
        return self.moved(present, simplex(old - self.gamma * (gramian @ old + self.rho * old), old.sum()))


@dataclass(frozen=True, kw_only=True)
class Modo(Balancer):
    """w = the point of the simplex next to w - gamma (J_1 J_2^T w + rho w), J_1 and J_2 of independent batches; direction sum_k w_k g_k
    over both (Chen et al. 2023, "Three-way trade-off in multi-objective learning", equation 2.9). An update takes two batches."""

    gamma: float = param(0.1, minimum=0, help="step of the weights")
    rho: float = param(0.0, minimum=0, help="pulls the weights towards equal ones")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return TwoBatches(weights, self.gamma, self.rho)


class ThreeBatches(Independent):
    batches_per_update = 3

    def __init__(self, weights: Mapping[str, float], pull: float, lr: float, momentum: float, iterations: int):
        super().__init__(weights)
        self.pull, self.lr, self.momentum, self.iterations = pull, lr, momentum, iterations

    def solve(self, gramian, present):
        w, velocity = self.kept(present), 0.0
        mass, mean = w.sum(), np.full(len(w), w.sum() / len(w))
        scaled = gramian / (np.sqrt(np.clip(np.diag(gramian), 0, None)).mean() ** 2 + 1e-8)
        for _ in range(self.iterations):
            velocity = self.momentum * velocity + scaled @ (w + self.pull * mean)
            w = simplex(w - self.lr * velocity, mass)
        return (self.moved(present, w) + self.pull * mean) / (1 + self.pull)


@dataclass(frozen=True, kw_only=True)
class SdmGrad(Balancer):
    """Steps of stochastic descent on w (J_1 J_2^T) (w + pull u) over the simplex, u equal weights; direction sum_k (w + pull u)_k g_k /
    (1 + pull) of a third batch (Xiao et al. 2023, "Direction-oriented multi-objective learning", algorithm 1). An update takes three
    batches."""

    pull: float = param(0.3, minimum=0, help="towards the mean gradient")
    lr: float = param(10.0, minimum=0, help="step of the weights, for gradients of mean norm 1")
    momentum: float = param(0.5, minimum=0, maximum=1, help="of these steps")
    iterations: int = param(20, minimum=1, help="steps per update")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return ThreeBatches(weights, self.pull, self.lr, self.momentum, self.iterations)


class Constrained(ByGramian):
    def __init__(self, weights: Mapping[str, float], primary: int, tau: float, beta: float):
        super().__init__(weights)
        self.primary, self.tau, self.beta = primary, tau, beta
        self.state = {"squares": torch.zeros(len(weights), dtype=torch.float64), "updates": torch.zeros(len(weights), dtype=torch.float64)}

    def solve(self, gramian, present):
        squares, updates = self.state["squares"].numpy(), self.state["updates"].numpy()
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
            root = np.linalg.cholesky(inner + 1e-10 * max(np.trace(inner), 1e-12) * np.eye(len(others)))
            lacking = self.tau * np.diag(inner) - scaled[others, first]
            weights[others] = nnls(root.T, np.linalg.solve(root, lacking))[0]  # the dual: mu >= 0 of least mu G mu / 2 - mu·lacking
            if (scaled[others] @ weights < self.tau * np.diag(inner) - 1e-5 * np.trace(scaled)).any():
                weights[others] = 0  # no direction serves all
        length = weights @ scaled @ weights
        return weights * scales * np.sqrt(gramian[first, first] / length) if length > 1e-12 else 0 * weights


@dataclass(frozen=True, kw_only=True)
class Pcd(Balancer):
    """The direction next to the primary task's gradient on which every other task makes at least the share tau of the progress that its
    own gradient gives, all gradients scaled by the running mean of their squared norms; as long as the primary one (priority-constrained
    descent, arXiv 2606.29521). An update without the primary task takes the mean."""

    primary: str = param("", help="the primary task; empty: the first one")
    tau: float = param(0.02, minimum=0, maximum=1, help="share of progress guaranteed to the others")
    beta: float = param(0.999, minimum=0, maximum=0.999999, help="share of the old mean of squared norms")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        if self.primary and self.primary not in weights:
            raise ExperimentError(f"train.balancer.primary: expected one of {', '.join(weights)}; found {self.primary!r}")
        return Constrained(weights, list(weights).index(self.primary) if self.primary else 0, self.tau, self.beta)
