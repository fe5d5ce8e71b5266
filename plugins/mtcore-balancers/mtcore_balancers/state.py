"""State that checkpoints hold, and what several processes make alike."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mtcore.plugin import Balancing

__all__ = ["Keeping"]


class Keeping(Balancing):
    """What a method remembers is in `state`, tensors by name; some come into being with the first update only."""

    def __init__(self, weights: Mapping[str, float]):
        self.weights = dict(weights)
        self.tasks = list(weights)
        self.index = {task: i for i, task in enumerate(self.tasks)}
        self.state: dict[str, Tensor] = {}
        self.noted = np.zeros((2, 2, len(self.tasks)))
        """this epoch's and the last one's sums of weights and numbers of updates, by task"""

    def parameters(self) -> list[Tensor]:
        return [value for value in self.state.values() if value.requires_grad]

    def note(self, present: Sequence[int], weights: Any) -> None:
        """The weights [n] that an update gave to these n tasks."""
        self.noted[0, 0, present] += weights
        self.noted[0, 1, present] += 1

    def epoch_ended(self, means: Mapping[str, float]) -> None:
        self.noted = np.stack([np.zeros_like(self.noted[0]), self.noted[0]])

    def figures(self) -> dict[str, float]:
        """Means over the epoch's updates."""
        sums, updates = self.noted[0] if self.noted[0].any() else self.noted[1]
        return {task: float(total / number) for task, total, number in zip(self.tasks, sums, updates) if number}

    @contextmanager
    def alike(self) -> Iterator[None]:
        """All processes draw the same, whatever each has drawn before."""
        if self.processes == 1:
            yield
            return
        seed = torch.initial_seed()
        high, low = (self.reduce(torch.tensor([seed >> 32, seed & 0xFFFFFFFF])) // self.processes).tolist()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(high << 32 | low)
            yield

    def state_dict(self) -> dict[str, Any]:
        return {**{name: value.detach().clone() for name, value in self.state.items()}, "noted": torch.tensor(self.noted)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            if name == "noted":
                self.noted = value.numpy().copy()
            elif name in self.state:  # the optimizer holds this very tensor if it is learned
                self.state[name].copy_(value)
            else:
                self.state[name] = value.clone()
