"""How far decisions agree with what is true, beyond what chance gives. Decisions are taken as they are, those for labels that
training lacked included."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Task, param

from .gathering import Gathered, Gathering, with_mean

__all__ = ["CohenKappa", "Concordance", "Mcc", "Pearson"]


def confusion(targets: np.ndarray, decided: np.ndarray, labels: int) -> np.ndarray:
    """Counts [labels, labels]: rows are true, columns decided."""
    pairs = targets.astype(int) * labels + decided.astype(int)
    return np.bincount(pairs, minlength=labels * labels).reshape(labels, labels)


@dataclass(frozen=True, kw_only=True)
class CohenKappa(Gathering):
    """1 - disagreement / disagreement by chance, after Cohen (1960), A coefficient of agreement for nominal scales; with weights,
    for ordered labels, a disagreement counts by the labels' distance in the task's order or its square. The figure is
    `cohen_kappa`, with weights `cohen_kappa_linear` or `cohen_kappa_quadratic`; undefined where one label is all that is true and
    decided."""

    kinds = ("binary", "multiclass")
    weights: str = param("none", choices=("none", "linear", "quadratic"), help="how the labels' distance counts")

    @property
    def primary(self) -> str:
        return "cohen_kappa" if self.weights == "none" else f"cohen_kappa_{self.weights}"

    def figures(self, task: Task, of: Gathered) -> dict[str, float]:
        labels = np.arange(len(task.labels))
        distance = np.abs(labels[:, None] - labels)
        weight = {"none": distance > 0, "linear": distance, "quadratic": distance ** 2}[self.weights]
        counts = confusion(of.targets, of.decided, len(labels))
        chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
        return {self.primary: 1 - (weight * counts).sum() / (weight * chance).sum()} if (weight * chance).any() else {}


@dataclass(frozen=True, kw_only=True)
class Mcc(Gathering):
    """Matthews correlation coefficient; of several labels Gorodkin's (2004), Comparing two K-category assignments by a K-category
    correlation coefficient. 0 where all decisions are the same, undefined where all that is true is. Of a multilabel task
    `mcc/label` and their mean."""

    kinds = ("binary", "multiclass", "multilabel")
    primary = "mcc"

    def figures(self, task: Task, of: Gathered) -> dict[str, float]:
        if task.kind == "multilabel":
            found = {label: self._of(of.targets[:, i], of.decided[:, i], 2) for i, label in enumerate(task.labels)}
            return with_mean("mcc", "mcc", {label: value for label, value in found.items() if value is not None})
        value = self._of(of.targets, of.decided, len(task.labels))
        return {} if value is None else {"mcc": value}

    @staticmethod
    def _of(targets: np.ndarray, decided: np.ndarray, labels: int) -> float | None:
        counts = confusion(targets, decided, labels).astype(float)  # products of four counts pass 64 bits
        true, found, total = counts.sum(axis=1), counts.sum(axis=0), counts.sum()
        spread = total ** 2 - true @ true, total ** 2 - found @ found
        if not spread[0]:
            return None
        return (total * counts.trace() - true @ found) / np.sqrt(spread[0] * spread[1]) if spread[1] else 0.0


@dataclass(frozen=True, kw_only=True)
class Concordance(Gathering):
    """Concordance correlation coefficient, with variances over n (Lin 1989, A concordance correlation coefficient to evaluate
    reproducibility, Biometrics 45): 2 cov / (var + var + squared difference of means). Undefined where all targets are equal."""

    kinds = ("regression",)
    primary = "ccc"

    def figures(self, task: Task, of: Gathered) -> dict[str, float]:
        x, y = of.decided.astype(float), of.targets.astype(float)
        if (y == y[0]).all():
            return {}
        covariance = ((x - x.mean()) * (y - y.mean())).mean()
        return {"ccc": 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)}


@dataclass(frozen=True, kw_only=True)
class Pearson(Gathering):
    """Linear correlation of decisions and targets; undefined where either are all equal."""

    kinds = ("regression",)
    primary = "pearson"

    def figures(self, task: Task, of: Gathered) -> dict[str, float]:
        x, y = of.decided.astype(float), of.targets.astype(float)
        if (x == x[0]).all() or (y == y[0]).all():
            return {}
        x, y = x - x.mean(), y - y.mean()
        return {"pearson": (x / np.linalg.norm(x)) @ (y / np.linalg.norm(y))}
