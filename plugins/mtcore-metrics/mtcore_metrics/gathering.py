"""What all metrics here share: predictions are gathered, and figures computed from all of them at once."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import numpy as np

from mtcore.plugin import Measure, Metric, Predictions, Task

__all__ = ["Gathered", "Gathering"]


class Gathered(NamedTuple):
    """Targets, scores and decisions of all clips, as in `Predictions`; `known` [labels]: whether the training part holds the
    label."""

    targets: np.ndarray
    scores: np.ndarray
    decided: np.ndarray
    known: np.ndarray


class Gathering(Metric):
    """A metric over all clips at once: its memory is that of the predictions."""

    def build(self, task: Task) -> Measure:
        return Gathers(self, task)

    @abstractmethod
    def figures(self, task: Task, of: Gathered) -> dict[str, Any]:
        """By name, those that are defined."""


class Gathers(Measure):
    """Joins what comes, for the metric's figures."""

    def __init__(self, metric: Gathering, task: Task):
        self.metric, self.task, self.pieces, self.known = metric, task, [], None

    def update(self, predictions: Predictions) -> None:
        if predictions.clips:
            labels = range(len(self.task.labels))
            self.known = np.isin(labels, labels if predictions.trained is None else predictions.trained)
            self.pieces.append([np.asarray(one) for one in (predictions.targets, predictions.scores, predictions.decided)])

    def merge(self, other: Gathers) -> None:
        self.pieces += other.pieces
        self.known = other.known if self.known is None else self.known

    def compute(self) -> dict[str, float]:
        if not self.pieces:
            return {}
        found = self.metric.figures(self.task, Gathered(*map(np.concatenate, zip(*self.pieces)), self.known))
        return {name: float(value) for name, value in found.items()}


def with_mean(name: str, mean: str, by_label: dict[str, float]) -> dict[str, float]:
    """Figures per label as "name/label", and their mean where there are some."""
    figures = {f"{name}/{label}": value for label, value in by_label.items()}
    return figures | ({mean: np.mean(list(by_label.values()))} if by_label else {})
