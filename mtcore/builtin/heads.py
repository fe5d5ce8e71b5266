"""The parts of the network that belong to one task."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, nn

from mtcore.plugin import Head, LabelHead, ParameterError, Predictions, Representation, RepresentationShape, Task, param

__all__ = ["Array", "Frames", "Linear"]


class Over(nn.Module):
    """Layers over one field of a representation: `vector` [batch, values] or `frames` [batch, values, frames]."""

    def __init__(self, field: str, layers: nn.Module):
        super().__init__()
        self.field, self.layers = field, layers

    def forward(self, representation: Representation) -> Tensor:
        return self.layers(getattr(representation, self.field))


@dataclass(frozen=True, kw_only=True)
class Linear(LabelHead):
    """Linear map of the vector to one value per label (binary, regression: one value), after optional hidden layers."""

    kinds = ("multiclass", "binary", "multilabel", "regression")
    hidden: list[int] = param([], minimum=1, help="widths of ReLU layers in front of the linear map")
    dropout: float = param(0.0, minimum=0, maximum=1, help="share of values dropped in front of each layer")

    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        single = task.kind in ("binary", "regression")
        widths, layers = [shape.vector, *self.hidden], []
        for before, after in zip(widths, widths[1:]):
            layers += [nn.Dropout(self.dropout), nn.Linear(before, after), nn.ReLU()]
        layers += [nn.Dropout(self.dropout), nn.Linear(widths[-1], 1 if single else len(task.labels))]
        return Over("vector", nn.Sequential(*layers, *([nn.Flatten(0)] if single else [])))


SEGMENT, MEDIANS = 1.0, (1, 3, 5, 9, 17, 33)


@dataclass(frozen=True, kw_only=True)
class Frames(LabelHead):
    """The same linear map of every frame to one value per label; a label's neighbouring active frames are one event."""

    kinds = ("events",)
    median: int = param(1, minimum=1, unit="frames", help="length of a median filter over active frames, odd; 1: none")
    tune: bool = param(False, help="each label takes threshold and median with the highest F1 of 1 s segments on validation")
    medians: list[int] = param([], minimum=1, unit="frames", help="of each label in place of `median`")

    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        if shape.frames is None:
            raise ParameterError(f"task {task.name}: the head for events needs a trunk that gives frames, and this one gives "
                                 "a vector only; use a convolutional or recurrent trunk")
        for median in (self.median, *self.medians):
            if median % 2 == 0:
                raise ParameterError(f"task {task.name}: median is an odd number of frames, found {median}")
        return Over("frames", nn.Conv1d(shape.frames, len(task.labels), 1))

    def decide(self, task: Task, scores: list[np.ndarray]) -> list[list[tuple[int, int, int]]]:
        """Per clip (onset frame, offset frame, label index), in order; the offset is the frame after the last active one."""
        thresholds = self.of_labels(task, self.thresholds, self.threshold)[:, None]
        medians = self.of_labels(task, self.medians, self.median)
        return [self.events(np.stack([smoothed(*one) for one in zip(clip >= thresholds, medians)])) for clip in scores]

    def tuned(self, task: Task, predictions: Predictions) -> Frames:
        """No threshold is better: a median of decisions is the decision of the median score, so the highest one in a segment says
        from which threshold on it is active."""
        if not self.tune or not predictions.clips:
            return self
        best = [(-1.0, self.threshold, self.median)] * len(task.labels)
        for median in dict.fromkeys((self.median, *MEDIANS)):
            clips = zip(predictions.scores, predictions.targets, predictions.moved or [(0.0, 1.0)] * len(predictions.clips))
            found = [segments(*one, median, predictions.hop, predictions.first, *moved) for *one, moved in clips]
            scores, true = (np.concatenate(some, 1) for some in zip(*found))
            for label, known in enumerate(best):
                f1, threshold = self.best_threshold(scores[label], true[label], self.threshold)
                best[label] = max(known, (f1, threshold, median), key=lambda one: one[0])
        return replace(self, thresholds=[one[1] for one in best], medians=[one[2] for one in best])

    def events(self, active: np.ndarray) -> list[tuple[int, int, int]]:
        """`active` is bool [labels, frames]."""
        edges = np.diff(active.astype(np.int8), axis=1, prepend=0, append=0)
        (labels, onsets), (_, offsets) = np.nonzero(edges == 1), np.nonzero(edges == -1)  # both ordered by label, then time
        return sorted(zip(onsets.tolist(), offsets.tolist(), labels.tolist()))


def smoothed(row: np.ndarray, median: int) -> np.ndarray:
    from scipy.ndimage import median_filter  # half a second to import, for events only

    row = row.astype(np.uint8) if row.dtype == bool else row
    return row if median == 1 else median_filter(row, size=int(median), mode="nearest")


def segments(scores: np.ndarray, events: list, median: int, hop: float, first: float, by: float, speed: float
             ) -> tuple[np.ndarray, np.ndarray]:
    """Of a clip's segments, [labels, segments]: the highest of the frames' filtered scores, and whether an event touches it."""
    edges = (np.maximum(0, first + (np.arange(scores.shape[1] + 1) - 0.5) * hop) / speed + by) / SEGMENT
    begin, end = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    size = max([int(np.ceil(offset / SEGMENT)) for _, offset, _ in events] + [*end[-1:], 0])
    highest, true = np.zeros((len(scores), size)), np.zeros((len(scores), size), bool)
    for label, row in enumerate(scores):
        row = smoothed(row, median)
        for later in range(int((end - begin).max(initial=0))):
            inside = begin + later < end
            np.maximum.at(highest[label], begin[inside] + later, row[inside])
    for onset, offset, label in events:
        true[label, int(np.floor(onset / SEGMENT)):int(np.ceil(offset / SEGMENT))] = True
    return highest, true


@dataclass(frozen=True, kw_only=True)
class Array(Head):
    """Linear map of the vector to an array of the task's shape; where its last size is None, of every frame to the others,
    repeated for each input frame that it stands for."""

    kinds = ("array",)

    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        sizes = task.shape and task.shape[:-1] if task.framed else task.shape
        if sizes is None or None in sizes:
            raise ParameterError(f"task {task.name}: the head array needs a shape that is known but for a None as the last size, "
                                 f"found {task.shape}; declare it in the reader, or name another head")
        folded = nn.Unflatten(1, sizes) if sizes else nn.Flatten(1 if task.framed else 0)
        if not task.framed:
            return Over("vector", nn.Sequential(nn.Linear(shape.vector, math.prod(sizes)), folded))
        if shape.frames is None:
            raise ParameterError(f"task {task.name}: an array with frames needs a trunk that gives frames, and this one "
                                 "gives a vector only; use a convolutional or recurrent trunk")
        layer, repeated = nn.Conv1d(shape.frames, math.prod(sizes), 1), nn.Upsample(scale_factor=shape.stride)
        return Over("frames", nn.Sequential(layer, repeated, folded))

    def decide(self, task: Task, scores: list[np.ndarray]) -> list[np.ndarray]:
        return scores
