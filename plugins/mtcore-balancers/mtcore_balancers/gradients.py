"""Gradient balancing: one gradient per task of the shared parameters, and one direction out of them per update.

Row k of the matrix J [tasks, values] is the gradient of task k's loss times its `weight` of the experiment, added up over an
update's micro-batches. Heads keep their own task's plain gradient. A task that an update lacks has no row in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mtcore.plugin import TrainingError

from .onepass import one_pass
from .solvers import Rows, norms
from .state import Keeping

__all__ = ["ByGramian", "OfGradients", "simplex"]


class OfGradients(Keeping):
    """One backward pass per task and micro-batch. A method says what `direction` is. Several processes add up J, so that all
    of them find the same direction."""

    reduced = True

    def __init__(self, weights: Mapping[str, float]):
        super().__init__(weights)
        self.micro = 0
        self.jacobian: Tensor | None = None

    def direction(self, jacobian: Tensor, present: list[int]) -> Tensor:
        """[values] from J [n, values] of these n tasks."""
        raise NotImplementedError

    def batch(self, number: int, present: list[int]) -> tuple[Tensor, Tensor]:
        """J [n, values] of one of the update's independent batches, and factors [n] that make it what it is without the others;
        of all batches where this one lacks a task."""
        counts = self.counts[:, present]
        if not counts[number].all():
            return self.jacobian.sum(0)[present], torch.ones(len(present))
        found = self.jacobian[number]
        return found if len(present) == len(found) else found[present], counts.sum(0) / counts[number]

    def backward(self, losses, shared, representation, rows, last=True):
        shared = [parameter for parameter in shared if parameter.requires_grad]
        if not self.micro:
            if last and self.processes == 1 and self._at_once(losses, shared, representation, rows):
                return
            self.values, self.counts = torch.zeros(len(self.tasks)), torch.zeros(self.batches_per_update, len(self.tasks))
            self._begin(shared)
        batch = (self.micro * self.processes + self.rank) % self.batches_per_update
        self.micro += 1
        for number, (task, loss) in enumerate(losses.items(), 1):
            i = self.index[task]
            for parameter, view in zip(shared, self.views[batch][i]):
                parameter.grad = view  # autograd adds to it in place
            loss = self.weights[task] * loss
            loss.backward(retain_graph=number < len(losses))
            self.values[i] += loss.item()
            self.counts[batch, i] += self._size(rows.get(task, [0]))
        for parameter in shared:
            parameter.grad = None
        if last:
            self.micro = 0
            self.values, self.counts = self.reduce(self.values), self.reduce(self.counts)
            self.jacobian.copy_(self.reduce(self.jacobian))
            present = torch.nonzero(self.counts.sum(0)).flatten().tolist()
            if present:
                found = self.jacobian[0] if self.batches_per_update == 1 else self.jacobian.sum(0)
                self._write(self.direction(found if len(present) == len(found) else found[present], present), shared)

    def kept_of_all(self, name: str, jacobian: Tensor) -> Tensor:
        """The state of this name, values like those of J [n, values] for all tasks; 0 in the beginning."""
        if name not in self.state:
            self.state[name] = jacobian.new_zeros(len(self.tasks), jacobian.shape[1])
        self.state[name] = self.state[name].to(jacobian.device)  # checkpoints are read on the CPU
        return self.state[name]

    @staticmethod
    def _size(rows: Any) -> int:
        return rows.stop - (rows.start or 0) if isinstance(rows, slice) else len(rows)

    def _at_once(self, losses: Mapping[str, Tensor], shared: list[Tensor], representation: Any, rows: Mapping[str, Any]) -> bool:
        """Whether the update was made without J."""
        return False

    def _begin(self, shared: list[Tensor]) -> None:
        sizes = [parameter.numel() for parameter in shared]
        if self.jacobian is None or self.jacobian.shape[-1] != sum(sizes):  # the first update, or after a layer has been thawed
            like = shared[0] if shared else torch.zeros(0)
            shape = self.batches_per_update, len(self.tasks), sum(sizes)
            self.jacobian = torch.zeros(shape, dtype=like.dtype, device=like.device)
            self.views = [[[part.view_as(parameter) for part, parameter in zip(row.split(sizes), shared)] for row in batch]
                          for batch in self.jacobian]
        self.jacobian.zero_()

    def _write(self, direction: Tensor, shared: list[Tensor]) -> None:
        for parameter, part in zip(shared, direction.split([parameter.numel() for parameter in shared])):
            parameter.grad = part.view_as(parameter)


class ByGramian(OfGradients):
    """Methods whose direction is a weighted sum of the tasks' gradients, with weights that follow from their inner products."""

    def __init__(self, weights: Mapping[str, float]):
        super().__init__(weights)
        self.kept_gradients: dict[Tensor, Tensor] = {}
        self.starts: dict[int, Tensor] = {}
        """by task, its weight as what a backward pass begins with"""

    def solve(self, gramian: Rows, present: list[int]) -> Sequence[float]:
        """Weights [n] from J J^T, [n, n]."""
        raise NotImplementedError

    def solved(self, gramian: Rows, present: list[int]) -> list[float]:
        sound = all(isfinite(row[k]) for k, row in enumerate(gramian))
        weights = list(map(float, self.solve(gramian, present))) if sound else []
        if not sound or not all(map(isfinite, weights)):
            lengths = ", ".join(f"{self.tasks[i]} {norm:.3g}" for i, norm in zip(present, norms(gramian)))
            raise TrainingError(f"{type(self).__name__} found no finite weights for gradients of these norms: {lengths}; lower "
                                "the learning rate, or choose another train.balancer")
        self.note(present, weights)
        return weights

    def direction(self, jacobian, present):
        return jacobian.new_tensor(self.solved((jacobian @ jacobian.T).tolist(), present)) @ jacobian

    def _at_once(self, losses, shared, representation, rows):
        found = {self.index[task]: loss for task, loss in losses.items()}
        for task, loss in losses.items():
            if self.index[task] not in self.starts:
                self.starts[self.index[task]] = torch.full_like(loss, self.weights[task], requires_grad=False)
        owned = {self.index[task]: rows[task] for task in losses if task in rows}
        return one_pass(found, self.starts, shared, representation, owned, self.solved, self.kept_gradients, self.gradient_scale)


def simplex(values: np.ndarray, mass: float = 1.0) -> np.ndarray:
    """The nearest point with no value below 0 and this sum (Duchi et al. 2008, "Efficient projections onto the l1-ball").
    `TrainingError` for values that are not finite."""
    if not np.isfinite(values).all():
        raise TrainingError(f"expected finite weights of the tasks, found {values}: gradients are too large; lower the learning rate, or "
                            "choose another train.balancer")
    values = values - values.max()  # what all have in common is without effect, but for rounding
    ordered = np.sort(values)[::-1]
    excess = (np.cumsum(ordered) - mass) / np.arange(1, len(values) + 1)
    return np.maximum(values - excess[np.nonzero(ordered >= excess)[0][-1]], 0)
