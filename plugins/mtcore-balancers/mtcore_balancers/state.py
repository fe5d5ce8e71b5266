"""State that checkpoints hold."""

from __future__ import annotations

from typing import Any, Mapping

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

    def parameters(self) -> list[Tensor]:
        return [value for value in self.state.values() if value.requires_grad]

    def state_dict(self) -> dict[str, Any]:
        return {name: value.detach().clone() for name, value in self.state.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            if name in self.state:  # the optimizer holds this very tensor if it is learned
                self.state[name].copy_(value)
            else:
                self.state[name] = value.clone()
