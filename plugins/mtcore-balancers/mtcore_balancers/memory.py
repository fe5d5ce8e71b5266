"""Methods beyond one Gramian: averages of the gradients themselves, and products of gradients of independent batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtcore.plugin import Balancer, Balancing, param

from .gradients import OfGradients, simplex
from .methods import OnSimplex
from .state import COUNTED

__all__ = ["DbMtl", "ExcessMtl", "Moco", "Modo", "SdmGrad"]


class Tracked(OfGradients):
    """Keeps an average of each task's gradient."""

    def average(self, jacobian: Tensor, present: list[int], share: float) -> Tensor:
        """Of these tasks, after the new gradients have come in with this share."""
        mean = self.kept_of_all("mean", jacobian)
        for row, i in zip(jacobian, present):  # in place: an index would copy all rows
            mean[i].lerp_(row, share)
        return mean if len(present) == len(mean) else mean[present]


class Corrected(Tracked):
    def __init__(self, weights: Mapping[str, float], beta: float, gamma: float, rho: float):
        super().__init__(weights)
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.state["weights"] = torch.full((len(weights),), 1 / len(weights), **COUNTED)

    def direction(self, jacobian, present):
        mean = self.average(jacobian, present, self.beta)
        old = self.state["weights"][present].numpy()
        gramian = (mean @ mean.T).numpy(force=True).astype(float)
        new = torch.from_numpy(simplex(old - self.gamma * (gramian @ old + self.rho * old), old.sum()))
        self.state["weights"][present] = new
        self.note(present, new.tolist())
        return new.to(mean) @ mean


@dataclass(frozen=True, kw_only=True)
class Moco(Balancer):
    """y_k = y_k - beta (y_k - g_k); w = the point of the simplex next to w - gamma (Y Y^T w + rho w); direction sum_k w_k y_k
    (Fernando et al. 2023, "Mitigating gradient bias in multi-objective learning", algorithm 1). Remembers a gradient per
    task."""

    beta: float = param(0.5, minimum=0, maximum=1, help="share of the new gradient in y")
    gamma: float = param(0.1, minimum=0, help="step of the weights")
    rho: float = param(0.0, minimum=0, help="pulls the weights towards equal ones")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Corrected(weights, self.beta, self.gamma, self.rho)


class Dual(Tracked):
    def __init__(self, weights: Mapping[str, float], beta: float, sigma: float):
        super().__init__(weights)
        self.beta, self.sigma = beta, sigma
        self.state["updates"] = torch.zeros((), dtype=torch.int64, device="cpu")

    def direction(self, jacobian, present):
        self.state["updates"] += 1
        share = 1 - self.beta / float(self.state["updates"]) ** self.sigma
        logarithmic = jacobian / (self.values[present, None].to(jacobian) + 1e-8)
        mean = self.average(logarithmic, present, share)
        norms = mean.norm(dim=1)
        weights = norms.max() / norms.clamp_min(1e-12)
        self.note(present, weights.tolist())
        return weights @ mean


@dataclass(frozen=True, kw_only=True)
class DbMtl(Balancer):
    """Gradients of log L_k, averaged over the updates with the share beta / t^sigma of the old mean at update t, all brought
    to the length of the longest and added (Lin et al. 2023, "Dual-balancing for multi-task learning", algorithm 1)."""

    beta: float = param(0.9, minimum=0, maximum=1, help="share of the old mean at the first update")
    sigma: float = param(0.5, minimum=0, help="how fast that share falls")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Dual(weights, self.beta, self.sigma)


class Excess(OfGradients):
    def __init__(self, weights: Mapping[str, float], step: float):
        super().__init__(weights)
        self.step = step
        self.state = {"weights": torch.full((len(weights),), 1 / len(weights), **COUNTED),
                      "first": torch.full((len(weights),), torch.nan, **COUNTED)}

    def direction(self, jacobian, present):
        kept = self.kept_of_all("squares", jacobian)
        risk = torch.empty(len(present), dtype=torch.float64)
        for number, (row, i) in enumerate(zip(jacobian, present)):
            total, squares = kept[i], row**2
            risk[number] = (squares / torch.sqrt(total.add_(squares) + 1e-7)).sum()
        first = self.state["first"]
        first[present] = torch.where(first[present].isnan(), risk.clamp_min(1e-12), first[present])
        old = self.state["weights"][present]
        new = old * torch.exp(self.step * (risk / first[present] - (risk / first[present]).max()))
        new = new * old.sum() / new.sum()
        self.state["weights"][present] = new
        self.note(present, new.tolist())
        return new.to(jacobian) @ jacobian


@dataclass(frozen=True, kw_only=True)
class ExcessMtl(Balancer):
    """w_k proportional to w_k exp(step E_k / E_k(1)) with the excess risk E_k = sum g_k^2 / sqrt(sum of its squares so far)
    (He et al. 2024, "Robust multi-task learning with excess risks", equations 6, 7 and 9). Remembers a value per task and
    shared parameter."""

    step: float = param(0.01, minimum=0, help="of the weights")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Excess(weights, self.step)


class Independent(OnSimplex):
    """Weights from products of gradients of independent batches, J_1 J_2^T."""

    batches_per_update = 2

    def direction(self, jacobian, present):
        (one, first), (two, second) = self.batch(0, present), self.batch(1, present)
        product = (one @ two.T).numpy(force=True).astype(float) * np.outer(first, second)
        weights = jacobian.new_tensor(self.solved(product, present))
        if self.batches_per_update > 2:
            jacobian, third = self.batch(2, present)
            weights = weights * third.to(weights)
        return weights @ jacobian

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
    """w = the point of the simplex next to w - gamma (J_1 J_2^T w + rho w), J_1 and J_2 of independent batches; direction
    sum_k w_k g_k over both (Chen et al. 2023, "Three-way trade-off in multi-objective learning", equation 2.9). An update
    takes two batches."""

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
    """Steps of stochastic descent on w (J_1 J_2^T) (w + pull u) over the simplex, u equal weights; direction sum_k (w + pull
    u)_k g_k / (1 + pull) of a third batch (Xiao et al. 2023, "Direction-oriented multi-objective learning", algorithm 1). An
    update takes three batches."""

    pull: float = param(0.3, minimum=0, help="towards the mean gradient")
    lr: float = param(10.0, minimum=0, help="step of the weights, for gradients of mean norm 1")
    momentum: float = param(0.5, minimum=0, maximum=1, help="of these steps")
    iterations: int = param(20, minimum=1, help="steps per update")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return ThreeBatches(weights, self.pull, self.lr, self.momentum, self.iterations)
