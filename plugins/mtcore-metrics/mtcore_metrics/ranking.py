"""Figures from the order of scores: over clips, of a label against the rest; or over labels, of a clip."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from mtcore.plugin import Measure, ParameterError, Task, param

from .gathering import Gathered, Gathering, with_mean

__all__ = ["AveragePrecision", "EqualErrorRate", "MapAtK", "RocAuc", "TopK"]


def columns(task: Task, of: Gathered) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By label, which clips have it (bool) and their scores; of a binary task the positive label alone, whose score there is."""
    if task.kind == "binary":
        return {task.labels[1]: (of.targets.astype(bool), of.scores)}
    true = of.targets.astype(bool) if task.kind == "multilabel" else of.targets[:, None] == np.arange(len(task.labels))
    return {label: (true[:, i], of.scores[:, i]) for i, label in enumerate(task.labels)}


class AgainstRest(Gathering):
    """`NAME/label` for each label that some but not all clips have, their mean `NAME_macro`, and `NAME_micro` of all pairs of
    clip and label together."""

    kinds = ("binary", "multiclass", "multilabel")
    name: ClassVar[str]

    @abstractmethod
    def figure(self, true: np.ndarray, scores: np.ndarray) -> float:
        """Of some true and some untrue [n] with scores [n]."""

    def figures(self, task: Task, of: Gathered) -> dict[str, float]:
        found = columns(task, of)
        defined = {label: self.figure(*column) for label, column in found.items() if 0 < column[0].sum() < len(column[0])}
        true, scores = (np.concatenate(one) for one in zip(*found.values()))
        micro = {f"{self.name}_micro": self.figure(true, scores)} if 0 < true.sum() < len(true) else {}
        return with_mean(self.name, f"{self.name}_macro", defined) | micro


@dataclass(frozen=True, kw_only=True)
class AveragePrecision(AgainstRest):
    """Mean of precision over the true clips, each at its own score, without interpolation; of a binary task that of the positive
    label."""

    name = "average_precision"
    primary = "average_precision_macro"

    def figure(self, true, scores):
        return average_precision_score(true, scores)


@dataclass(frozen=True, kw_only=True)
class RocAuc(AgainstRest):
    """Probability that a clip with the label has a higher score than one without, ties counting half."""

    name = "roc_auc"
    primary = "roc_auc_macro"

    def figure(self, true, scores):
        return roc_auc_score(true, scores)


@dataclass(frozen=True, kw_only=True)
class EqualErrorRate(AgainstRest):
    """Share of misses where it equals the share of false alarms, on straight lines between neighbouring thresholds; the threshold
    is that of the tested clips themselves."""

    name = "eer"
    primary = "eer_macro"
    lower = ("eer", "eer_macro", "eer_micro")

    def figure(self, true, scores):
        alarms, hits, _ = roc_curve(true, scores, drop_intermediate=False)
        excess = 1 - hits - alarms  # of misses over false alarms: falls from 1 to -1
        after = int(np.argmax(excess <= 0))
        share = excess[after - 1] / (excess[after - 1] - excess[after])
        return alarms[after - 1] + share * (alarms[after] - alarms[after - 1])


def best_first(scores: np.ndarray) -> np.ndarray:
    """Labels [clips, labels] by falling score; of equal ones the first label comes first, as for the decision."""
    return np.argsort(-scores, axis=1, kind="stable")


@dataclass(frozen=True, kw_only=True)
class TopK(Gathering):
    """Share of clips whose label is among the k highest scores, `top_K`; the same per label, and the mean over the tested labels,
    `top_K_macro`. A label that training lacked is never found, as for recall."""

    kinds = ("multiclass",)
    k: int = param(5, minimum=1, help="scores that count; less than there are labels")

    @property
    def primary(self) -> str:
        return f"top_{self.k}"

    def build(self, task: Task) -> Measure:
        if self.k >= len(task.labels):
            raise ParameterError(f"task {task.name}: the {self.k} highest of {len(task.labels)} scores are all; take k below "
                                 f"{len(task.labels)}")
        return super().build(task)

    def figures(self, task: Task, of: Gathered) -> dict[str, float]:
        found = (best_first(of.scores)[:, :self.k] == of.targets[:, None]).any(axis=1) & of.known[of.targets]
        by_label = {task.labels[i]: found[of.targets == i].mean() for i in np.unique(of.targets)}
        return {self.primary: found.mean(), **with_mean(self.primary, f"{self.primary}_macro", by_label)}


@dataclass(frozen=True, kw_only=True)
class MapAtK(Gathering):
    """Mean average precision at k over the clips that have a label: of a clip with m labels, the sum of the precisions at those
    of its k best ranks that hold one, over the smaller of m and k; of one label this is 1/rank. A label that training lacked is
    never found."""

    kinds = ("multiclass", "multilabel")
    k: int = param(3, minimum=1, help="ranks that count")

    @property
    def primary(self) -> str:
        return f"map_at_{self.k}"

    def figures(self, task: Task, of: Gathered) -> dict[str, float]:
        true = np.stack([column for column, _ in columns(task, of).values()], 1)
        tested = true.any(axis=1)
        if not tested.any():
            return {}
        true, order = true[tested], best_first(of.scores[tested])[:, :self.k]
        found = np.take_along_axis(true & of.known, order, axis=1)
        precisions = found.cumsum(axis=1) / np.arange(1, order.shape[1] + 1)
        return {self.primary: ((precisions * found).sum(axis=1) / np.minimum(true.sum(axis=1), self.k)).mean()}
