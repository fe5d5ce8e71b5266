"""Whether scores are the probabilities that they claim to be. The scores of the task's head must be probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Task, param

from .gathering import Gathered, Gathering, with_mean

__all__ = ["CalibrationError", "LogLoss"]


@dataclass(frozen=True, kw_only=True)
class LogLoss(Gathering):
    """Mean of -log of the probability that what is true was given, in nats; of a multilabel task over labels too. Without the
    weights, powers and mixed rows of a training loss, so that runs with different losses compare. Probabilities are clipped to
    [eps, 1 - eps]."""

    kinds = ("binary", "multiclass", "multilabel")
    primary = "log_loss"
    lower = ("log_loss",)
    eps: float = param(1e-7, minimum=1e-15, maximum=0.1, help="smallest probability")

    def figures(self, task: Task, of: Gathered) -> dict[str, float]:
        if task.kind == "multiclass":
            given = of.scores[np.arange(len(of.targets)), of.targets.astype(int)]
        else:
            given = np.where(of.targets.astype(bool), of.scores, 1 - of.scores)
        return {"log_loss": -np.log(np.clip(given, self.eps, 1 - self.eps)).mean()}


@dataclass(frozen=True, kw_only=True)
class CalibrationError(Gathering):
    """Expected calibration error: the mean over clips of how far, in their bin, mean probability and share of true ones lie
    apart; bins of equal width over [0, 1], each with its upper edge.

    multiclass: the highest score against whether its label is right (Guo et al. 2017, On calibration of modern neural networks,
    https://arxiv.org/abs/1706.04599); binary: the positive label's score against whether it is true (Naeini et al. 2015,
    Obtaining well calibrated probabilities using Bayesian binning); multilabel: that per label, `ece/label`, and their mean
    `ece`.
    """

    kinds = ("binary", "multiclass", "multilabel")
    primary = "ece"
    lower = ("ece",)
    bins: int = param(15, minimum=1, help="number of bins")

    def figures(self, task: Task, of: Gathered) -> dict[str, float]:
        if task.kind == "multilabel":
            pairs = zip(task.labels, of.scores.T, of.targets.T)
            return with_mean("ece", "ece", {label: self._of(scores, true) for label, scores, true in pairs})
        if task.kind == "multiclass":
            return {"ece": self._of(of.scores.max(axis=1), of.scores.argmax(axis=1) == of.targets)}
        return {"ece": self._of(of.scores, of.targets)}

    def _of(self, probability: np.ndarray, true: np.ndarray) -> float:
        place = np.clip(np.ceil(probability * self.bins).astype(int) - 1, 0, self.bins - 1)
        return np.abs(np.bincount(place, probability - true, minlength=self.bins)).sum() / len(true)
