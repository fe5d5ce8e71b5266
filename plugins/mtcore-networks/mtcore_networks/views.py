"""Learning without labels, from two views of the same clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtcore.plugin import ParameterError, Representation, Trunk, param

from .parts import Shapes
from .sharing import build_inner

__all__ = ["SimClr", "nt_xent"]


@dataclass(frozen=True, kw_only=True)
class SimClr(Trunk):
    """One network for two inputs that are views of the same clips: their embeddings lie together, those of other clips apart.

    Chen et al., "A simple framework for contrastive learning of visual representations" (2020, https://arxiv.org/abs/2002.05709):
    the cost "nt_xent" compares the projected vectors of a batch's rows (with `accumulate`, of a micro-batch; with several processes, of
    each one's own), so batches should be large. Tasks see the first input only, and the second one is used in training only. The
    two inputs, in alphabetical order, have the same extractor, and steps that draw for each of them anew.
    """

    trunk: Any = param(component="trunk", help="the network; any trunk of one input")
    strength: float = param(1.0, minimum=0, help="weight of the cost beside the tasks' losses")
    temperature: float = param(0.5, minimum=1e-3, help="by which cosines are divided")
    hidden: int = param(256, minimum=1, help="width of the projection's ReLU layer")
    values: int = param(128, minimum=2, help="of the projection, in which vectors are compared")

    def build(self, shapes: Shapes) -> nn.Module:
        if len(shapes) != 2 or len(set(shapes.values())) != 1:
            found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
            raise ParameterError(f"simclr takes two inputs of one shape, views of the same clips; found {found}")
        first = min(shapes)
        network = build_inner("simclr", self.trunk, {first: shapes[first]})
        return Views(network, tuple(sorted(shapes)), shapes[first], self)


class Views(nn.Module):
    def __init__(self, network: nn.Module, inputs: tuple[str, str], shape: tuple[int | None, ...], settings: SimClr):
        super().__init__()
        self.network, self.inputs, self.settings = network, inputs, settings
        training = network.training
        with torch.no_grad():
            vector = network.eval()({inputs[0]: torch.zeros(1, *(1000 if size is None else size for size in shape))}, None).vector
        network.train(training)
        self.projection = nn.Sequential(nn.Linear(vector.shape[1], settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, settings.values))
        self.embedded: list[Tensor] = []

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> Representation:
        first, second = self.inputs
        seen = self.network({first: inputs[first]}, lengths)
        if self.training:
            other = self.network({first: inputs[second]}, None if lengths is None else {first: lengths[second]})
            self.embedded = [self.projection(one.vector) for one in (seen, other)]
        return seen

    def costs(self) -> dict[str, Tensor]:
        one, other = self.embedded
        self.embedded = []  # of this batch's graph
        return {"nt_xent": self.settings.strength * nt_xent(one, other, self.settings.temperature)}


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Mean over both views [n, values] of all rows of -log softmax(cosines with all other 2n - 1 / temperature) at the row's other view (the
    paper's equation 1)."""
    both = F.normalize(torch.cat([one, other]).float())
    cosines = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    return F.cross_entropy(cosines, torch.arange(len(both), device=both.device).roll(len(one)))
