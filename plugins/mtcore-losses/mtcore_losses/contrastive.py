"""Embeddings in which rows of one label lie together: a head that projects, and the loss that compares rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtcore.plugin import Batch, LabelHead, Loss, Representation, RepresentationShape, Statistics, Task, TrainingError, param

__all__ = ["Contrastive", "Projection"]


class Projected(nn.Module):
    """A representation's vector -> [n, logits + values]: a linear probe's logits, which teach the trunk nothing, and the
    embedding, of length 1."""

    def __init__(self, before: int, hidden: int, values: int, logits: int):
        super().__init__()
        self.probe = nn.Linear(before, logits)
        layers = [nn.Linear(before, hidden), nn.ReLU()] if hidden else []
        self.embedding = nn.Sequential(*layers, nn.Linear(hidden or before, values))

    def forward(self, representation: Representation) -> Tensor:
        vector = representation.vector
        return torch.cat([self.probe(vector.detach()), F.normalize(self.embedding(vector))], 1)


def logits_of(task: Task) -> int:
    return len(task.labels) if task.kind == "multiclass" else 1


@dataclass(frozen=True, kw_only=True)
class Projection(LabelHead):
    """An embedding of length 1 for the loss `losses.contrastive`, and what decides labels: a linear map of the trunk's vector
    that learns beside it, the linear evaluation of contrastive learning done while training. No gradient of it reaches the trunk,
    so what the trunk learns is the embedding's alone, and figures say how well its vector tells the labels apart.

    Output [n, logits + values]: a logit per label (binary: one), then the embedding. Scores: softmax (binary: sigmoid) of the
    logits. Any other loss would take the embedding for labels.
    """

    kinds = ("multiclass", "binary")
    values: int = param(128, minimum=2, help="of the embedding")
    hidden: int = param(256, minimum=0, help="width of a ReLU layer between the vector and the embedding; 0: none")

    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        return Projected(shape.vector, self.hidden, self.values, logits_of(task))

    def scores(self, task: Task, output: Tensor) -> Tensor:
        return super().scores(task, output[:, :logits_of(task)] if task.kind == "multiclass" else output[:, 0])


@dataclass(frozen=True, kw_only=True)
class Contrastive(Loss):
    """Supervised contrastive loss (the outer form) after Khosla et al. (2020), Supervised contrastive learning,
    https://arxiv.org/abs/2004.11362, over the batch's rows that have the task, plus the (binary) cross-entropy of the head's
    probe, which teaches nothing but the probe.

    A row's value is the mean of -log softmax(cosines with all other rows / temperature) over the rows of its label; 0 of a row
    whose label no other row has. Of mixed rows, pairs count by what their shares have in common. The rows compared are those of a
    batch, with `accumulate` of a micro-batch, so batches should be large and hold several rows of each label. Output of the head
    `losses.projection`, target long [n] or shares [n, labels]; binary: [n].
    """

    kinds = ("multiclass", "binary")
    temperature: float = param(0.1, minimum=1e-3, help="by which cosines are divided")

    def build(self, task: Task, statistics: Statistics) -> Callable[[Tensor, Tensor, Batch], Tensor]:
        count = logits_of(task)

        def rows(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            embedding = output.reshape(len(output), -1)[:, count:]
            if not embedding.shape[1] or not torch.allclose(embedding.detach().norm(dim=1), embedding.new_ones(()), atol=1e-2):
                raise TrainingError(f"task {task.name}: expected {count} logits and an embedding of length 1, found an output "
                                    f"of shape {tuple(output.shape)} without; set tasks.{task.name}.head = \"losses.projection\"")
            if task.kind == "binary":
                shares = torch.stack([1 - target, target], 1)
                probe = F.binary_cross_entropy_with_logits(output[:, 0], target, reduction="none")
            else:
                shares = F.one_hot(target, count).to(output) if target.dim() == 1 else target
                probe = F.cross_entropy(output[:, :count], shares, reduction="none")
            return supervised(embedding, shares, self.temperature) + probe

        return rows


def supervised(embedding: Tensor, shares: Tensor, temperature: float) -> Tensor:
    """Per row, of embeddings [n, values] of length 1 and shares [n, labels]."""
    itself = torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    lowest = torch.finfo(embedding.dtype).min  # not -inf, which a row without others could not bear
    log_p = (embedding @ embedding.T / temperature).masked_fill(itself, lowest).log_softmax(1).masked_fill(itself, 0.0)
    pairs = (shares @ shares.T).masked_fill(itself, 0.0)
    return -(pairs * log_p).sum(1) / pairs.sum(1).clamp(min=torch.finfo(embedding.dtype).eps)
