"""State that checkpoints hold, and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtcore.plugin import Balancing

__all__ = ["COUNTED", "Keeping"]

COUNTED: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
"""What numpy goes on with, wherever the network is."""


class Keeping(Balancing):
    """What a method remembers is in `state`, tensors by name; some come into being with the first update only."""

    def __init__(self, weights: Mapping[str, float]):
        self.weights = dict(weights)
        self.tasks = list(weights)
        self.index = {task: i for i, task in enumerate(self.tasks)}
        self.state: dict[str, Tensor] = {}
        self.noted, self.shown = ([[0.0, 0] for _ in self.tasks] for _ in range(2))
        """by task, sum of weights and number of updates; of this epoch and of the last one"""

    def parameters(self) -> list[Tensor]:
        return [value for value in self.state.values() if value.requires_grad]

    def note(self, present: Sequence[int], weights: Sequence[float]) -> None:
        """The weights [n] that an update gave to these n tasks."""
        for i, weight in zip(present, weights):
            self.noted[i][0] += weight
            self.noted[i][1] += 1

    def epoch_ended(self, means: Mapping[str, float]) -> None:
        self.shown, self.noted = self.noted, [[0.0, 0] for _ in self.tasks]

    def figures(self) -> dict[str, float]:
        """Means over the epoch's updates."""
        found = self.noted if any(number for _, number in self.noted) else self.shown
        return {task: total / number for task, (total, number) in zip(self.tasks, found) if number}

    def state_dict(self) -> dict[str, Any]:
        noted = torch.tensor([self.noted, self.shown], dtype=torch.float64)
        return {**{name: value.detach().clone() for name, value in self.state.items()}, "noted": noted}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = {name: value for name, value in self.state.items() if name in state}  # not what has come into being since
        for name, value in state.items():
            if name == "noted":
                self.noted, self.shown = value.tolist()
            elif name in self.state:  # the optimizer holds this very tensor if it is learned
                self.state[name].copy_(value)
            else:
                self.state[name] = value.clone()
