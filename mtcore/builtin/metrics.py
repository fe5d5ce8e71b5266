"""Figures by task kind: classification, multilabel, regression, events and arrays.

Three of the five rest on the same three counts per label: `hits` (true and decided), `decided` and `true`. Then precision is
hits/decided, recall hits/true and F1 2 hits/(decided + true), each 0 where nothing was decided. A label that the tested clips
lack has no figures but its support and is left out of macro means. A label that training lacked counts as never decided, so
its recall is 0 and stays in the macro mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtcore.plugin import Measure, Metric, Predictions, Task, param

__all__ = ["Arrays", "Classification", "Events", "Multilabel", "Regression", "confusion"]


class Counting(Metric):
    """A metric that is a function `figures(task, sums)` of what `count(predictions)` gives by name."""

    def build(self, task: Task) -> Measure:
        return Sums(self, task)


class Sums(Measure):
    """Adds up what a metric counts: numbers and arrays by adding, lists by joining."""

    def __init__(self, metric: Counting, task: Task):
        self.metric, self.task, self.sums = metric, task, {}

    def _add(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def update(self, predictions: Predictions) -> None:
        if predictions.clips:
            self._add(self.metric.count(predictions))

    def merge(self, other: Sums) -> None:
        self._add(other.sums)

    def compute(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.metric.figures(self.task, self.sums).items()} if self.sums else {}


def _by_label(task: Task, sums: Mapping[str, Any]) -> dict[str, float]:
    hits, decided, true = sums["hits"], sums["decided"], sums["true"]
    tested, figures = [label for label, count in enumerate(true.tolist()) if count], {}
    if tested:
        values = np.array([hits, hits, 2 * hits]) / np.maximum([decided, true, decided + true], 1)
        means = (values.take(tested, 1).sum(1) / len(tested)).tolist(), ((values * true).sum(1) / true.sum()).tolist()
        for name, macro, weighted, by_label in zip(("precision", "recall", "f1"), *means, values.tolist()):
            figures |= {f"{name}_macro": macro, f"{name}_weighted": weighted}
            figures |= {f"{name}/{task.labels[label]}": by_label[label] for label in tested}
    return figures | {f"support/{label}": count for label, count in zip(task.labels, true.tolist())}


def _micro_f1(sums: Mapping[str, Any]) -> dict[str, float]:
    """Of all labels together; undefined where nothing is true and nothing decided."""
    total = (sums["decided"] + sums["true"]).sum()
    return {"f1_micro": 2 * sums["hits"].sum() / total} if total else {}


def _known(predictions: Predictions) -> np.ndarray:
    """By label: whether the training part holds it."""
    known = np.zeros(len(predictions.task.labels), bool)
    known[... if predictions.trained is None else list(predictions.trained)] = True
    return known


def confusion(predictions: Predictions) -> np.ndarray:
    """Counts [labels, labels] of a binary or multiclass task: rows are true, columns decided, in the order of the labels."""
    size = len(predictions.task.labels)
    pairs = np.asarray(predictions.targets, int) * size + np.asarray(predictions.decided, int)
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


@dataclass(frozen=True, kw_only=True)
class Classification(Counting):
    """Accuracy; precision, recall, F1 and support per label; macro and weighted means. `recall_macro` is the unweighted average
    recall."""

    kinds = ("binary", "multiclass")
    primary = "recall_macro"

    def count(self, predictions: Predictions) -> dict[str, Any]:
        pairs, known = confusion(predictions), _known(predictions)
        return {"hits": pairs.diagonal() * known, "decided": pairs.sum(axis=0) * known, "true": pairs.sum(axis=1)}

    def figures(self, task: Task, sums: Mapping[str, Any]) -> dict[str, float]:
        return {"accuracy": sums["hits"].sum() / sums["true"].sum(), **_by_label(task, sums)}


def _average_precision(true: np.ndarray, scores: np.ndarray) -> float:
    """Mean over what is true of the precision among all that score at least as high; both [n]."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.nan))  # of those with equal scores
    hits = np.cumsum(true[order])[last]
    recall, precision = np.append(hits[::-1] / hits[-1], 0), hits[::-1] / (last[::-1] + 1)
    return -(np.diff(recall) * precision).sum()


@dataclass(frozen=True, kw_only=True)
class Multilabel(Counting):
    """Precision, recall, F1 and support per label with macro and weighted means, micro F1, accuracy of whole sets, and the macro
    mean of average precision over the labels that some but not all clips have."""

    kinds = ("multilabel",)
    primary = "f1_macro"

    def count(self, predictions: Predictions) -> dict[str, Any]:
        true = np.asarray(predictions.targets, bool)
        decided = np.asarray(predictions.decided, bool) & _known(predictions)
        return {"hits": (true & decided).sum(axis=0), "decided": decided.sum(axis=0), "true": true.sum(axis=0),
                "clips": len(true), "right": (true == decided).all(axis=1).sum(),
                "targets": [true], "scores": [np.asarray(predictions.scores)]}

    def figures(self, task: Task, sums: Mapping[str, Any]) -> dict[str, float]:
        targets, scores = np.concatenate(sums["targets"]), np.concatenate(sums["scores"])
        precisions = [_average_precision(true, score) for true, score in zip(targets.T, scores.T) if 0 < true.sum() < len(true)]
        return {"accuracy_subset": sums["right"] / sums["clips"], **_micro_f1(sums), **_by_label(task, sums),
                **({"average_precision_macro": np.mean(precisions)} if precisions else {})}


@dataclass(frozen=True, kw_only=True)
class Regression(Counting):
    """Mean absolute error and root mean squared error in the target's unit; R2, which takes two clips with different targets."""

    kinds = ("regression",)
    primary = "mae"
    lower = ("mae", "rmse")

    def count(self, predictions: Predictions) -> dict[str, Any]:
        return {"targets": [np.asarray(predictions.targets, float)], "decided": [np.asarray(predictions.decided, float)]}

    def figures(self, task: Task, sums: Mapping[str, Any]) -> dict[str, float]:
        targets = np.concatenate(sums["targets"])
        error = np.concatenate(sums["decided"]) - targets
        figures = {"mae": np.abs(error).mean(), "rmse": np.sqrt((error ** 2).mean())}
        if (targets != targets[0]).any():
            figures["r2"] = 1 - (error ** 2).sum() / ((targets - targets.mean()) ** 2).sum()
        return figures


@dataclass(frozen=True, kw_only=True)
class Arrays(Counting):
    """Mean squared and mean absolute error over all values of all clips."""

    kinds = ("array",)
    primary = "mse"
    lower = ("mse", "mae")

    def count(self, predictions: Predictions) -> dict[str, Any]:
        pairs = zip(predictions.decided, predictions.targets)
        errors = np.concatenate([np.subtract(given, true, dtype=float).ravel() for given, true in pairs])
        return {"squared": (errors ** 2).sum(), "absolute": np.abs(errors).sum(), "values": errors.size}

    def figures(self, task: Task, sums: Mapping[str, Any]) -> dict[str, float]:
        return {"mse": sums["squared"] / sums["values"], "mae": sums["absolute"] / sums["values"]} if sums["values"] else {}


@dataclass(frozen=True, kw_only=True)
class Events(Counting):
    """Segment-based F1 and error rate over all clips and labels, and F1 and support (in segments) per label.

    An event counts in every segment it touches; the error rate is (substitutions + deletions + insertions) / true events over
    all segments (Mesaros, Heittola & Virtanen, "Metrics for polyphonic sound event detection", 2016).
    """

    kinds = ("events",)
    primary = "f1_segment"
    lower = ("error_rate_segment",)
    segment: float = param(1.0, help="length of a segment", unit="s", minimum=1e-3)

    def count(self, predictions: Predictions) -> dict[str, Any]:
        sums = {name: np.zeros(len(predictions.task.labels), int) for name in ("hits", "decided", "true")} | {"errors": 0}
        known = _known(predictions)
        for true, decided in zip(predictions.targets, predictions.decided):
            length = int(np.ceil(max((offset for _, offset, _ in (*true, *decided)), default=0) / self.segment))
            true, decided = self._active(true, len(known), length), self._active(decided, len(known), length) & known
            sums["hits"] += (true & decided).sum(axis=0)
            sums["decided"] += decided.sum(axis=0)
            sums["true"] += true.sum(axis=0)
            sums["errors"] += (np.maximum(true.sum(axis=1), decided.sum(axis=1)) - (true & decided).sum(axis=1)).sum()
        return sums

    def _active(self, events, labels: int, length: int) -> np.ndarray:
        active = np.zeros((length, labels), bool)
        for onset, offset, label in events:
            active[int(np.floor(onset / self.segment)):int(np.ceil(offset / self.segment)), label] = True
        return active

    def figures(self, task: Task, sums: Mapping[str, Any]) -> dict[str, float]:
        figures = {name.replace("micro", "segment"): value for name, value in _micro_f1(sums).items()}
        if sums["true"].any():
            figures["error_rate_segment"] = sums["errors"] / sums["true"].sum()
        return figures | {name.replace("f1/", "f1_segment/", 1): value for name, value in _by_label(task, sums).items()
                          if name.startswith(("f1/", "support/"))}
