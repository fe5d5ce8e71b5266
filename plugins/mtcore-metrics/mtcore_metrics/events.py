"""Figures of events over all thresholds, through sed_scores_eval, which only the extra `psds` installs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtcore.plugin import Measure, Metric, PluginError, Predictions, Task, param

__all__ = ["Psds"]

SCENARIOS = {1: {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "cttc_threshold": None, "alpha_ct": 0.0, "alpha_st": 1.0},
             2: {"dtc_threshold": 0.1, "gtc_threshold": 0.1, "cttc_threshold": 0.3, "alpha_ct": 0.5, "alpha_st": 1.0}}
"""Of DCASE challenges 2021 to 2023, task 4: 1 asks for exact times, 2 for the right labels."""
ALONE = {"cttc_threshold": None, "alpha_ct": 0.0}
"""One label is mistaken for no other, and the library fails where it is asked to look for that."""


@dataclass(frozen=True, kw_only=True)
class Psds(Metric):
    """Polyphonic sound detection score, up to 100 false alarms an hour, of all labels that the tested clips have and per label:
    Bilen et al. (2020), A framework for the robust evaluation of sound event detection, https://arxiv.org/abs/1910.08440,
    computed exactly over all thresholds after Ebbers et al. (2022), https://arxiv.org/abs/2201.13148. It rests on scores, so the
    head's threshold and median filter do not count. A clip is as long as its frames."""

    kinds = ("events",)
    scenario: int = param(1, choices=(1, 2), help="of the DCASE challenges: 1 for exact times, 2 for right labels")

    @property
    def primary(self) -> str:
        return f"psds_{self.scenario}"

    def build(self, task: Task) -> Measure:
        try:
            library = importlib.import_module("sed_scores_eval.intersection_based")  # late: an extra's
        except ImportError as error:
            raise PluginError(f"metrics.psds: expected the library sed_scores_eval, found none that can be imported ({error}); "
                              'pip install "mtcore-metrics[psds]"') from error
        return Scored(self, task, library.psds)


class Scored(Measure):
    """By clip, scores with their frames' edges in seconds, and true events as (onset s, offset s, label index)."""

    def __init__(self, metric: Psds, task: Task, psds: Any):
        self.metric, self.task, self.psds, self.scores, self.events = metric, task, psds, {}, {}

    def update(self, predictions: Predictions) -> None:
        for clip, scores, events in zip(predictions.clips, predictions.scores, predictions.targets):
            edges = predictions.first + (np.arange(scores.shape[1] + 1) - 0.5) * predictions.hop
            self.scores[clip], self.events[clip] = (np.maximum(edges, 0), np.asarray(scores, float)), events

    def merge(self, other: Scored) -> None:
        self.scores |= other.scores
        self.events |= other.events

    def compute(self) -> dict[str, float]:
        import pandas  # the library's, late as it is

        tested = sorted({label for events in self.events.values() for *_, label in events})
        if not tested:
            return {}
        names = [self.task.labels[label] for label in tested]
        scores = {clip: pandas.DataFrame({"onset": edges[:-1], "offset": edges[1:], **dict(zip(names, values[tested]))})
                  for clip, (edges, values) in self.scores.items()}
        truth = {clip: [(onset, offset, self.task.labels[label]) for onset, offset, label in joined(events)]
                 for clip, events in self.events.items()}
        lengths = {clip: max(edges[-1], *(offset for _, offset, _ in truth[clip]), 0) for clip, (edges, _) in self.scores.items()}
        criteria = SCENARIOS[self.metric.scenario] | ({} if len(names) > 1 else ALONE)
        total, by_label, *_ = self.psds(scores, truth, lengths, max_efpr=100.0, **criteria)
        return {self.metric.primary: float(total)} | {f"{self.metric.primary}/{label}": float(by_label[label]) for label in names}


def joined(events: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Events of the same label that overlap as one, which the score's definition takes for granted."""
    found: list[tuple[float, float, int]] = []
    for onset, offset, label in sorted(events, key=lambda event: (event[2], event[0])):
        if found and found[-1][2] == label and onset <= found[-1][1]:
            found[-1] = (found[-1][0], max(offset, found[-1][1]), label)
        else:
            found.append((onset, offset, label))
    return found
