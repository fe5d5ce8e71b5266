"""Softmax over cosines: a head that gives them, and a loss that asks for a margin between the angles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtcore.plugin import Batch, Head, Loss, Representation, RepresentationShape, Statistics, Task, TrainingError, param

__all__ = ["ArcFace", "Cosine"]


class Cosines(nn.Module):
    """Cosines [batch, labels] between a representation's vector and a learned direction per label."""

    def __init__(self, values: int, labels: int):
        super().__init__()
        self.directions = nn.Parameter(nn.init.xavier_uniform_(torch.empty(labels, values)))

    def forward(self, representation: Representation) -> Tensor:
        return F.linear(F.normalize(representation.vector), F.normalize(self.directions))


@dataclass(frozen=True, kw_only=True)
class Cosine(Head):
    """Cosines between the trunk's vector and a learned direction per label. Scores: softmax of `scale` times them."""

    kinds = ("multiclass",)
    scale: float = param(30.0, minimum=1e-3, help="of cosines in front of the softmax; that of the loss")

    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        return Cosines(shape.vector, len(task.labels))

    def scores(self, task: Task, output: Tensor) -> Tensor:
        return (self.scale * output).softmax(1)

    def decide(self, task: Task, scores: np.ndarray) -> np.ndarray:
        return scores.argmax(1)


@dataclass(frozen=True, kw_only=True)
class ArcFace(Loss):
    """Cross-entropy of scaled cosines after the true label's angle has been widened by a margin, after Deng et al. (2019),
    ArcFace: additive angular margin loss for deep face recognition, https://arxiv.org/abs/1801.07698. Output [n, labels] of the
    head `losses.cosine`, target long [n], or shares [n, labels] of mixed rows, each label with its share of the margin."""

    kinds = ("multiclass",)
    scale: float = param(30.0, minimum=1e-3, help="of cosines in front of the softmax")
    margin: float = param(0.5, minimum=0, maximum=1.57, unit="rad", help="by which the true label's angle is widened")

    def build(self, task: Task, statistics: Statistics) -> Callable[[Tensor, Tensor, Batch], Tensor]:
        def rows(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            if (largest := float(output.detach().abs().max())) > 1.001:
                raise TrainingError(f"task {task.name}: expected cosines, found an output of {largest:.3g}; "
                                    f"set tasks.{task.name}.head = \"losses.cosine\"")
            shares = F.one_hot(target, output.shape[1]).to(output) if target.dim() == 1 else target
            return F.cross_entropy(self.scale * widened(output, self.margin * shares), shares, reduction="none")

        return rows


def widened(cosine: Tensor, margin: Tensor) -> Tensor:
    """cos(angle + margin); where that passes 180° and would rise again, cosine - margin * sin(margin), as in the authors'
    code."""
    sine = (1 - cosine ** 2).clamp(min=torch.finfo(cosine.dtype).eps).sqrt()  # clamped: the root's gradient at 0 is infinite
    past = cosine < -torch.cos(margin)
    return torch.where(past, cosine - margin * torch.sin(margin), cosine * torch.cos(margin) - sine * torch.sin(margin))
