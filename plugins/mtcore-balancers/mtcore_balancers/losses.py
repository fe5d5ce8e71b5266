"""Loss weighting: one number out of all tasks' losses, and one backward pass.

L_k is task k's loss times its `weight` of the experiment, k runs over the K tasks. A task that an update lacks takes no part
in it. All gradients are scaled, those of the heads too.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchjd import scalarization

from mtcore.plugin import Balancer, Balancing, TrainingError, param

from .state import Keeping

__all__ = ["Cosmos", "Dwa", "Famo", "Gls", "ImtlL", "Mean", "Pbi", "Random", "Stch", "Uncertainty"]


class Factored(Keeping):
    """Factors that do not depend on the losses at hand: each micro-batch goes backward by itself."""

    def __init__(self, weights: Mapping[str, float]):
        super().__init__(weights)
        self.seen: set[int] | None = None

    def factors(self) -> Tensor:
        """[tasks]"""
        return torch.full((len(self.tasks),), 1 / len(self.tasks))

    def begin(self) -> None:
        """In front of an update's first micro-batch."""

    def penalty(self, seen: list[int]) -> Tensor | float:
        """Added once per update that has these tasks."""
        return 0.0

    def backward(self, losses, shared, representation, rows, last=True):
        if self.seen is None:
            self.seen = set()
            self.begin()
        self.seen |= {self.index[task] for task in losses}
        factors, total = self.factors(), 0.0
        for task, loss in losses.items():
            total = total + factors[self.index[task]] * self.weights[task] * loss
        if last:
            seen = self.anywhere(self.seen)
            total, self.seen = total + self.penalty(seen) / self.processes, None
            self.note(seen, factors.detach()[seen].tolist())
        if isinstance(total, Tensor):
            total.backward()

    def anywhere(self, seen: set[int]) -> list[int]:
        """The tasks that the update has in any process."""
        if self.processes == 1:
            return sorted(seen)
        return torch.nonzero(self.reduce(torch.tensor([float(i in seen) for i in range(len(self.tasks))]))).flatten().tolist()


@dataclass(frozen=True, kw_only=True)
class Mean(Balancer):
    """sum_k L_k / K."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Factored(weights)


class Drawing(Factored):
    def begin(self):
        self.drawn = torch.softmax(torch.randn(len(self.tasks)), 0)

    def factors(self):
        return self.drawn


@dataclass(frozen=True, kw_only=True)
class Random(Balancer):
    """sum_k z_k L_k with z = softmax of K standard normal numbers, drawn once per update (Lin et al. 2022, "Reasonable
    effectiveness of random weighting", algorithm 2)."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Drawing(weights)


class Variances(Factored):
    def __init__(self, weights: Mapping[str, float], initial: float):
        super().__init__(weights)
        self.state["log_variance"] = torch.full((len(weights),), initial, requires_grad=True)

    def factors(self):
        return 0.5 * torch.exp(-self.state["log_variance"])

    def penalty(self, seen):
        return 0.5 * self.state["log_variance"][seen].sum()


@dataclass(frozen=True, kw_only=True)
class Uncertainty(Balancer):
    """sum_k exp(-s_k) L_k / 2 + s_k / 2 with learned log variances s_k (Kendall et al. 2018, "Multi-task learning using
    uncertainty to weigh losses"). They take part in the run's optimizer."""

    initial: float = param(0.0, help="log variances at the beginning")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Variances(weights, self.initial)


class Scales(Factored):
    def __init__(self, weights: Mapping[str, float]):
        super().__init__(weights)
        self.state["log_scale"] = torch.zeros(len(weights), requires_grad=True)

    def factors(self):
        return torch.exp(self.state["log_scale"])

    def penalty(self, seen):
        return -self.state["log_scale"][seen].sum()


@dataclass(frozen=True, kw_only=True)
class ImtlL(Balancer):
    """sum_k exp(s_k) L_k - s_k with learned s_k: at the optimum all exp(s_k) L_k are 1 (Liu et al. 2021, "Towards impartial
    multi-task learning", loss balance). They take part in the run's optimizer."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Scales(weights)


class Averages(Factored):
    def __init__(self, weights: Mapping[str, float], temperature: float):
        super().__init__(weights)
        self.temperature = temperature
        self.state = {name: torch.full((len(weights),), torch.nan, device="cpu") for name in ("newer", "older")}

    def factors(self):
        ratio = torch.nan_to_num(self.state["newer"] / self.state["older"], nan=1.0, posinf=1.0)
        return len(self.tasks) * torch.softmax(ratio / self.temperature, 0)

    def epoch_ended(self, means):
        super().epoch_ended(means)
        self.state = {"older": self.state["newer"], "newer": torch.tensor([means.get(task, torch.nan) for task in self.tasks])}


@dataclass(frozen=True, kw_only=True)
class Dwa(Balancer):
    """sum_k z_k L_k with z = K softmax(r / temperature), r_k the ratio of the mean losses of the last epoch and the one
    before; 1 until there are two (Liu et al. 2019, "End-to-end multi-task learning with attention", equation 7)."""

    temperature: float = param(2.0, minimum=1e-6, help="large: all weights are nearly equal")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Averages(weights, self.temperature)


class Joint(Keeping):
    """A function of all losses of an update, whose slopes are the tasks' weights. The graphs of its micro-batches are held
    until the last of them, so that with these methods accumulation saves no memory."""

    positive = False

    def __init__(self, weights: Mapping[str, float]):
        super().__init__(weights)
        self.held: dict[int, Tensor] = {}

    @abstractmethod
    def objective(self, values: Tensor, present: list[int]) -> Tensor:
        """One number from the losses [n] of these n tasks."""

    def backward(self, losses, shared, representation, rows, last=True):
        for task, loss in losses.items():
            i = self.index[task]
            self.held[i] = self.held[i] + self.weights[task] * loss if i in self.held else self.weights[task] * loss
        if not last:
            return
        held, self.held = self.held, {}
        values, present = self.summed(held)
        if not present:
            return
        if self.positive and (values < 0).any():
            wrong = [f"{self.tasks[i]} ({value:.4g})" for i, value in zip(present, values.tolist()) if value < 0]
            raise TrainingError(f"this balancer takes logarithms of losses, found below 0: {', '.join(wrong)}; choose a loss "
                                "that is never negative, or another train.balancer")
        [slopes] = torch.autograd.grad(self.objective(values.requires_grad_(), present), values)
        self.note(present, slopes.tolist())
        if held:
            torch.autograd.backward(list(held.values()), [slopes[present.index(i)].to(loss) for i, loss in held.items()])

    def summed(self, held: Mapping[int, Tensor]) -> tuple[Tensor, list[int]]:
        """Losses [n] over all processes of the n tasks that any of them has, and these tasks."""
        like = next(iter(held.values()), torch.zeros(())).detach()
        table = like.new_zeros(2, len(self.tasks))
        for i, loss in held.items():
            table[0, i], table[1, i] = loss.detach(), 1
        table = self.reduce(table)
        present = torch.nonzero(table[1]).flatten().tolist()
        return table[0, present], present


class Scalarized(Joint):
    """Any scalarizer of torchjd without state, made for the losses [n] of an update."""

    def __init__(self, weights: Mapping[str, float], make: Any, positive: bool = False):
        super().__init__(weights)
        self.make, self.positive = make, positive

    def objective(self, values, present):
        return self.make(values.detach())(values.clamp_min(1e-12) if self.positive else values)


@dataclass(frozen=True, kw_only=True)
class Gls(Balancer):
    """(product_k L_k)^(1/K); losses must not be negative (Chennupati et al. 2019, "MultiNet++")."""

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Scalarized(weights, lambda like: scalarization.GeometricMean(), positive=True)


@dataclass(frozen=True, kw_only=True)
class Stch(Balancer):
    """mu log sum_k exp(L_k / (K mu)) (Lin et al. 2024, "Smooth Tchebycheff scalarization", with equal preferences and ideal
    losses 0)."""

    mu: float = param(0.1, minimum=1e-6, help="smoothness, in units of a loss; towards 0 only the largest loss counts")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Scalarized(weights, lambda like: scalarization.STCH(self.mu))


@dataclass(frozen=True, kw_only=True)
class Pbi(Balancer):
    """d + theta |L - d w| with w = (1, …, 1) / sqrt(K) and d = L·w (Zhang and Li 2007, "MOEA/D", with equal preferences and
    ideal losses 0)."""

    theta: float = param(5.0, minimum=0, help="weight of the distance from equal losses")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Scalarized(weights, lambda like: scalarization.PBI(self.theta, torch.ones_like(like)))


@dataclass(frozen=True, kw_only=True)
class Cosmos(Balancer):
    """mean_k L_k - penalty cos(L, (1, …, 1)) (Ruchte and Grabocka 2021, "Scalable Pareto front approximation", with equal
    preferences, so that the network is not conditioned on them)."""

    penalty: float = param(1.0, minimum=0, help="weight of the cosine")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Scalarized(weights, lambda like: scalarization.COSMOS(self.penalty, torch.full_like(like, 1 / len(like))))


class Rates(Joint):
    positive = True

    def __init__(self, weights: Mapping[str, float], lr: float, decay: float):
        super().__init__(weights)
        self.logits = torch.zeros(len(weights), requires_grad=True)
        self.optimizer = torch.optim.Adam([self.logits], lr=lr, weight_decay=decay)
        self.before: tuple[Tensor, list[int]] | None = None

    def objective(self, values, present):
        z, logs = torch.softmax(self.logits.detach()[present], 0), torch.log(values + 1e-8)
        self.before = logs.detach(), present
        return (z * logs).sum() / (z / (values.detach() + 1e-8)).sum()

    def after_update(self, closure):
        if self.before is None:
            return
        (logs, present), self.before, losses = self.before, None, closure()
        after = torch.stack([self.weights[self.tasks[i]] * losses[self.tasks[i]] for i in present]).clamp_min(0)
        fallen = logs - torch.log(after + 1e-8)
        self.optimizer.zero_grad()
        torch.softmax(self.logits[present], 0).backward(fallen)
        self.optimizer.step()

    def state_dict(self):
        return {**super().state_dict(), "logits": self.logits.detach().clone(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        super().load_state_dict({"noted": state["noted"]})
        with torch.no_grad():
            self.logits.copy_(state["logits"])
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True, kw_only=True)
class Famo(Balancer):
    """c sum_k z_k log L_k with z = softmax(w) and c such that the gradient is a convex combination; w takes a step of Adam
    against the tasks whose log loss fell more by the update, for which the update's losses are computed again (Liu et al.
    2023, "FAMO", algorithm 1). Losses must not be negative."""

    lr: float = param(0.025, minimum=0, help="learning rate of w")
    decay: float = param(1e-3, minimum=0, help="weight decay of w")

    def build(self, weights: Mapping[str, float]) -> Balancing:
        return Rates(weights, self.lr, self.decay)
