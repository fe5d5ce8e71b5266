"""Decided events against true ones, event by event or segment by segment (Mesaros, Heittola & Virtanen 2016, Metrics for
polyphonic sound event detection, Applied Sciences 6). The figures are those of sed_eval.

Both count per label what is `true`, what is `decided` and the `hits`, and over all labels the errors: a substitution is something
true that was missed where something of another label was decided, a deletion what is missed otherwise, an insertion what is
decided otherwise; all are shares of what is true. A label that the tested clips lack has no figures and is left out of macro
means. A label that training lacked counts as never decided. Events are (onset s, offset s, label index).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mtcore.plugin import Measure, Metric, ParameterError, Predictions, Task, param

__all__ = ["EventBased", "SegmentBased"]

Events = Sequence[tuple[float, float, int]]


class Detection(Metric):
    """A metric that counts clip by clip; `of` ends its figures' names."""

    kinds = ("events",)
    of: ClassVar[str] = ""

    def build(self, task: Task) -> Measure:
        return Counts(self, task)

    @abstractmethod
    def count(self, true: Events, decided: Events, labels: int) -> tuple[np.ndarray, np.ndarray]:
        """Of one clip [3, labels]: hits, decided and true; and [3]: substitutions, deletions and insertions."""


class Counts(Measure):
    """Sums of what the metric counts."""

    def __init__(self, metric: Detection, task: Task):
        self.metric, self.task = metric, task
        self.labels, self.errors = np.zeros((3, len(task.labels)), int), np.zeros(3, int)

    def update(self, predictions: Predictions) -> None:
        size = len(self.task.labels)
        trained = range(size) if predictions.trained is None else predictions.trained
        for true, decided in zip(predictions.targets, predictions.decided):
            labels, errors = self.metric.count(true, [event for event in decided if event[2] in trained], size)
            self.labels, self.errors = self.labels + labels, self.errors + errors

    def merge(self, other: Counts) -> None:
        self.labels, self.errors = self.labels + other.labels, self.errors + other.errors

    def compute(self) -> dict[str, float]:
        of, (hits, decided, true), total = self.metric.of, self.labels, self.labels.sum(1)
        found = {f"{name}_{of}": value for name, value in ratios(*total).items()}
        tested = np.flatnonzero(true)
        if not len(tested):
            return found
        rates = dict(zip(("substitution", "deletion", "insertion"), self.errors / total[2]))
        found |= {f"error_rate_{of}": sum(rates.values())} | {f"{name}_rate_{of}": rate for name, rate in rates.items()}
        wrong = true + decided - 2 * hits
        by_label = [{**ratios(*self.labels[:, one]), "error_rate": wrong[one] / true[one]} for one in tested]
        for name in by_label[0]:
            found[f"{name}_{of}_macro"] = np.mean([one[name] for one in by_label])
            found |= {f"{name}_{of}/{self.task.labels[label]}": one[name] for label, one in zip(tested, by_label)}
        found |= {f"support_{of}/{self.task.labels[label]}": true[label] for label in tested}
        return {name: float(value) for name, value in found.items()}


def ratios(hits: int, decided: int, true: int) -> dict[str, float]:
    """F1, precision (0 where nothing is decided) and recall; where nothing is true, F1 alone, if something is decided."""
    found = {"f1": 2 * hits / (decided + true)} if decided + true else {}
    return found | ({"precision": hits / max(decided, 1), "recall": hits / true} if true else {})


@dataclass(frozen=True, kw_only=True)
class EventBased(Detection):
    """F1, precision, recall and error rate of whole events, over all labels, per label and their mean (`_macro`).

    A decided event is a hit if it has the label of a true one, begins within the collar of its onset, and ends within the collar
    or the share of the true event's length of its offset; the pairs are as many as can be made.
    """

    primary = "f1_event"
    lower = ("error_rate_event", "error_rate_event_macro", "substitution_rate_event", "deletion_rate_event",
             "insertion_rate_event")
    of = "event"
    collar: float = param(0.2, help="by which onset and offset may be missed", unit="s", minimum=1e-6)
    share: float = param(0.2, help="of the true length by which an offset may be missed, if that is more", minimum=0, maximum=1)
    evaluate_onset: bool = param(True, help="onsets must match")
    evaluate_offset: bool = param(True, help="offsets must match")

    def build(self, task: Task) -> Measure:
        if not (self.evaluate_onset or self.evaluate_offset):
            raise ParameterError("metrics.event_based: expected onsets or offsets to be evaluated, found neither; set one to "
                                 "true")
        return super().build(task)

    def count(self, true: Events, decided: Events, labels: int) -> tuple[np.ndarray, np.ndarray]:
        onset, offset, label = np.reshape(np.asarray(true, float), (-1, 3)).T[..., None]
        begin, end, guess = np.reshape(np.asarray(decided, float), (-1, 3)).T
        near = np.ones((len(true), len(decided)), bool)
        if self.evaluate_onset:
            near &= np.abs(onset - begin) <= self.collar
        if self.evaluate_offset:
            near &= np.abs(offset - end) <= np.maximum(self.collar, self.share * (offset - onset))
        pairs = matched(near & (label == guess))
        missed, wrong = ([i for i in range(size) if i not in taken]
                         for size, taken in zip(near.shape, (set(pairs), set(pairs.values()))))
        substituted = 0
        for i in missed:
            if (place := next((j for j in wrong if near[i, j]), None)) is not None:
                wrong.remove(place)
                substituted += 1
        tally = lambda found: np.bincount(np.asarray(found, int), minlength=labels)  # noqa: E731
        return (np.stack([tally(label[list(pairs), 0]), tally(guess), tally(label[:, 0])]),
                np.array([substituted, len(missed) - substituted, len(wrong)]))


def matched(able: np.ndarray) -> dict[int, int]:
    """As many pairs (row: column) of a bool matrix as can be made: columns take the first free row, then rows are moved along
    (Kuhn 1955, The Hungarian method for the assignment problem)."""
    rows: dict[int, int] = {}
    columns = list(dict.fromkeys(np.nonzero(able)[1].tolist()))
    free = []
    for column in columns:
        row = next((row for row in np.flatnonzero(able[:, column]).tolist() if row not in rows), None)
        if row is None:
            free.append(column)
        else:
            rows[row] = column

    def place(column: int, seen: set[int]) -> bool:
        for row in np.flatnonzero(able[:, column]).tolist():
            if row not in seen:
                seen.add(row)
                if row not in rows or place(rows[row], seen):
                    rows[row] = column
                    return True
        return False

    for column in free:
        place(column, set())
    return rows


@dataclass(frozen=True, kw_only=True)
class SegmentBased(Detection):
    """F1, precision, recall and error rate of segments, over all labels, per label and their mean (`_macro`): more than the
    core's `events`, which gives the first and the last of them. An event counts in every segment that it touches."""

    primary = "f1_segment"
    lower = ("error_rate_segment", "error_rate_segment_macro", "substitution_rate_segment", "deletion_rate_segment",
             "insertion_rate_segment")
    of = "segment"
    segment: float = param(1.0, help="length of a segment", unit="s", minimum=1e-3)

    def count(self, true: Events, decided: Events, labels: int) -> tuple[np.ndarray, np.ndarray]:
        length = int(np.ceil(max((offset for _, offset, _ in (*true, *decided)), default=0) / self.segment))
        there, found = np.zeros((2, length, labels), bool)
        for roll, events in ((there, true), (found, decided)):
            for onset, offset, label in events:
                roll[int(np.floor(onset / self.segment)):int(np.ceil(offset / self.segment)), label] = True
        hits, excess = there & found, there.sum(1) - found.sum(1)
        both = np.minimum(there.sum(1), found.sum(1)) - hits.sum(1)
        return (np.stack([hits.sum(0), found.sum(0), there.sum(0)]),
                np.array([both.sum(), np.maximum(excess, 0).sum(), np.maximum(-excess, 0).sum()]))
