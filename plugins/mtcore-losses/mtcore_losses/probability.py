"""Losses that are a function of the probability which the output gives to what is true.

Multiclass takes a softmax, whose target is a label or, out of mixed rows, a share of each label; all other kinds take a sigmoid
per label, whose target is 0, 1 or a share. A share weighs the cost of its label. Everything is computed from logarithms of
probabilities, so that neither value nor gradient breaks where a probability rounds to 0 or 1.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mtcore.plugin import Batch, Loss, ParameterError, Statistics, Task, framed, param

__all__ = ["Asymmetric", "Focal", "GeneralizedCrossEntropy"]

Rows = Callable[[Tensor, Tensor, Batch], Tensor]


class OfProbability(Loss):
    """The mean over labels and frames of what is true and what is not; shapes are those of the core's cross-entropies.

    multiclass: output [n, labels], target long [n] or shares [n, labels]; binary: both [n]; multilabel: both [n, labels]; events:
    output [n, labels, frames], target [n, labels, input frames].
    """

    kinds = ("binary", "multiclass", "multilabel", "events")

    @abstractmethod
    def cost(self, log_p: Tensor) -> Tensor:
        """Of something true that has the probability exp(log_p)."""

    def cost_of_absent(self, log_q: Tensor) -> Tensor:
        """Of a label that is rightly absent with the probability exp(log_q); multiclass needs none."""
        return self.cost(log_q)

    def weights(self, task: Task, statistics: Statistics) -> Tensor | None:
        """multiclass: [labels]; else [2] or [2, labels], of absent and of present ones. None: all 1."""
        return None

    def build(self, task: Task, statistics: Statistics) -> Rows:
        weights = self.weights(task, statistics)

        def multiclass(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            shares = F.one_hot(target, output.shape[1]).to(output) if target.dim() == 1 else target
            return (shares * (1 if weights is None else weights.to(output)) * self.cost(output.log_softmax(1))).sum(1)

        def costs(output: Tensor, target: Tensor) -> Tensor:
            absent, present = (1, 1) if weights is None else weights.to(output)
            return (target * present * self.cost(F.logsigmoid(output))
                    + (1 - target) * absent * self.cost_of_absent(F.logsigmoid(-output)))

        def labels(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            return costs(output, target).flatten(1).mean(1) if output.dim() > 1 else costs(output, target)

        def events(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            target, valid = framed(output, target, batch, task.name)
            return (costs(output, target).mean(1) * valid).sum(1) / valid.sum(1)

        return {"multiclass": multiclass, "events": events}.get(task.kind, labels)


def balanced(counts: Tensor) -> Tensor:
    """Rows / (labels * rows of the label) over the first dimension's labels that there are, 0 for others: the weights' mean over
    rows is 1."""
    return torch.where(counts > 0, counts.sum(0) / ((counts > 0).sum(0) * counts.clamp(min=1)), 0.0)


def power(base: Tensor, exponent: float) -> Tensor:
    """Of numbers in [0, 1], with a finite gradient at 0 for exponents below 1 too."""
    return base.clamp(min=torch.finfo(base.dtype).eps) ** exponent


@dataclass(frozen=True, kw_only=True)
class Focal(OfProbability):
    """-(1 - p)^gamma log p, after Lin et al. (2017), Focal loss for dense object detection, https://arxiv.org/abs/1708.02002:
    with gamma 0 the cross-entropy; the larger gamma, the less does a row count that is right already.

    Balanced weights are those of the core's `cross_entropy`; binary and multilabel weigh the rows with and without each label.
    """

    gamma: float = param(2.0, minimum=0, help="power of 1 - p; 0: cross-entropy")
    class_weights: str = param("none", choices=("none", "balanced"), help="balanced: rare labels weigh more; not for events")

    def cost(self, log_p: Tensor) -> Tensor:
        return -power(-torch.expm1(log_p), self.gamma) * log_p

    def weights(self, task: Task, statistics: Statistics) -> Tensor | None:
        if self.class_weights == "none":
            return None
        if statistics.counts is None or task.kind == "events":
            found = "counts of events" if task.kind == "events" else "none"
            raise ParameterError(f"task {task.name}: class_weights = 'balanced' needs the training part's rows per label, found "
                                 f"{found}; take class_weights = 'none'")
        counts = torch.as_tensor(statistics.counts, dtype=torch.float32)
        return balanced(torch.stack([statistics.rows - counts, counts]) if task.kind == "multilabel" else counts)


@dataclass(frozen=True, kw_only=True)
class Asymmetric(OfProbability):
    """Focal loss with a power of its own for absent labels, whose probability is shifted down first, so that easy negatives count
    nothing, after Ridnik et al. (2021), Asymmetric loss for multi-label classification, https://arxiv.org/abs/2009.14119,
    with its defaults: -(1 - p)^positive log p, and -m^negative log(1 - m) with m = max(p - margin, 0)."""

    kinds = ("binary", "multilabel", "events")
    positive: float = param(0.0, minimum=0, help="power of present labels")
    negative: float = param(4.0, minimum=0, help="power of absent labels")
    margin: float = param(0.05, minimum=0, maximum=0.999, help="probability of absent labels that costs nothing")

    def cost(self, log_p: Tensor) -> Tensor:
        return -power(-torch.expm1(log_p), self.positive) * log_p

    def cost_of_absent(self, log_q: Tensor) -> Tensor:
        shifted = (-torch.expm1(log_q) - self.margin).clamp(min=0)
        return -power(shifted, self.negative) * (torch.log1p(-shifted) if self.margin else log_q)


@dataclass(frozen=True, kw_only=True)
class GeneralizedCrossEntropy(OfProbability):
    """(1 - p^q) / q, after Zhang and Sabuncu (2018), Generalized cross entropy loss for training deep neural networks with noisy
    labels, https://arxiv.org/abs/1805.07836: cross-entropy as q goes to 0, absolute error of the probability at 1, which bears
    most wrong labels and learns slowest."""

    q: float = param(0.7, minimum=1e-3, maximum=1, help="power of p")

    def cost(self, log_p: Tensor) -> Tensor:
        return -torch.expm1(self.q * log_p) / self.q
