"""Heads that learn what is heard in each frame from labels of the whole row: multiple-instance learning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtcore.plugin import LabelHead, ParameterError, Representation, RepresentationShape, Task, param

from .parts import within

__all__ = ["Pooling"]


@dataclass(frozen=True, kw_only=True)
class Pooling(LabelHead):
    """A linear map and sigmoid (multiclass: softmax) of every frame, whose probabilities y become one per label for the row.

    Wang, Li and Metze, "A comparison of five multiple instance learning pooling functions for sound event detection with weak
    labeling" (2019, doi:10.1109/ICASSP.2019.8682847): `max`, `mean`, `linear_softmax` Σ y² / Σ y, `exp_softmax`
    Σ y exp(y) / Σ exp(y), and `attention` Σ w y, whose w are a softmax over time of a second linear map, per label as in Kong et
    al. (2018, doi:10.1109/ICASSP.2018.8461975) and Ilse et al. (2018, "Attention-based deep multiple instance learning"). Frames
    of padding count nothing. The output is the logit of the row's probability (multiclass: its logarithm), computed from
    logarithms, for losses that take logits. Scores: sigmoid, or softmax, of it.
    """

    kinds = ("multiclass", "binary", "multilabel")
    pool: str = param("linear_softmax", choices=("max", "mean", "attention", "linear_softmax", "exp_softmax"),
                      help="how frames' probabilities become the row's")

    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        if shape.frames is None:
            raise ParameterError(f"task {task.name}: the head pooling needs a trunk that gives frames, and this one gives a "
                                 "vector only; use a convolutional or recurrent trunk")
        return Pooled(self.pool, task.kind, shape.frames, 1 if task.kind == "binary" else len(task.labels))


class Pooled(nn.Module):
    """`frames` [n, values, frames] -> [n, labels], of a binary task [n]."""

    def __init__(self, pool: str, kind: str, values: int, labels: int):
        super().__init__()
        self.pool, self.kind, self.labels = pool, kind, nn.Conv1d(values, labels, 1)
        self.attention = nn.Conv1d(values, labels, 1) if pool == "attention" else None

    def forward(self, representation: Representation) -> Tensor:
        frames, lengths = representation.frames, representation.lengths
        beyond = None if lengths is None else ~within(frames, lengths.clamp(min=1))
        x = self.labels(frames)
        log_y = x.log_softmax(1) if self.kind == "multiclass" else F.logsigmoid(x)
        if self.pool == "max":
            found = masked(log_y if self.kind == "multiclass" else x, beyond).amax(-1)
        else:
            weigh = {"mean": torch.zeros_like, "attention": lambda _: self.attention(frames), "linear_softmax": torch.clone,
                     "exp_softmax": torch.exp}
            log_w = masked(weigh[self.pool](log_y), beyond).log_softmax(-1)
            found = (log_w + log_y).logsumexp(-1)
            if self.kind != "multiclass":
                found = found - (log_w + F.logsigmoid(-x)).logsumexp(-1)  # weights add up to 1, so this is log(1 - Σ w y)
        return found.flatten() if self.kind == "binary" else found


def masked(x: Tensor, beyond: Tensor | None) -> Tensor:
    return x if beyond is None else x.masked_fill(beyond, -torch.inf)
