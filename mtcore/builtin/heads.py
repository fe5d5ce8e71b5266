"""The parts of the network that belong to one task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter
from torch import Tensor, nn

from mtcore.plugin import Head, ParameterError, Representation, RepresentationShape, Task, param

__all__ = ["Frames", "Linear"]


class Over(nn.Module):
    """Layers over one field of a representation: `vector` [batch, values] or `frames` [batch, values, frames]."""

    def __init__(self, field: str, layers: nn.Module):
        super().__init__()
        self.field, self.layers = field, layers

    def forward(self, representation: Representation) -> Tensor:
        return self.layers(getattr(representation, self.field))


@dataclass(frozen=True, kw_only=True)
class Linear(Head):
    """Linear map of the vector to one value per label (binary, regression: one value), after optional hidden layers.

    Scores: softmax (multiclass), sigmoid (binary, multilabel), the values themselves (regression).
    """

    kinds = ("multiclass", "binary", "multilabel", "regression")
    hidden: list[int] = param([], help="widths of ReLU layers in front of the linear map")
    dropout: float = param(0.0, minimum=0, maximum=1, help="share of values dropped in front of each layer")
    threshold: float = param(0.5, minimum=0, maximum=1, help="binary, multilabel: score from which a label is given")

    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        single = task.kind in ("binary", "regression")
        widths, layers = [shape.vector, *self.hidden], []
        for before, after in zip(widths, widths[1:]):
            layers += [nn.Dropout(self.dropout), nn.Linear(before, after), nn.ReLU()]
        layers += [nn.Dropout(self.dropout), nn.Linear(widths[-1], 1 if single else len(task.labels))]
        return Over("vector", nn.Sequential(*layers, *([nn.Flatten(0)] if single else [])))

    def scores(self, task: Task, output: Tensor) -> Tensor:
        if task.kind == "regression":
            return output
        return output.softmax(1) if task.kind == "multiclass" else output.sigmoid()

    def decide(self, task: Task, scores: np.ndarray) -> np.ndarray:
        if task.kind == "regression":
            return scores
        return scores.argmax(1) if task.kind == "multiclass" else (scores >= self.threshold).astype(int)


@dataclass(frozen=True, kw_only=True)
class Frames(Head):
    """The same linear map of every frame to one value per label; a label's neighbouring active frames are one event."""

    kinds = ("events",)
    threshold: float = param(0.5, minimum=0, maximum=1, help="score from which a label is active in a frame")
    median: int = param(1, minimum=1, unit="frames", help="length of a median filter over active frames, odd; 1: none")

    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        if shape.frames is None:
            raise ParameterError(f"task {task.name}: the head for events needs a trunk that gives frames, and this one gives "
                                 "a vector only; use a convolutional or recurrent trunk")
        if self.median % 2 == 0:
            raise ParameterError(f"task {task.name}: median is an odd number of frames, found {self.median}")
        return Over("frames", nn.Conv1d(shape.frames, len(task.labels), 1))

    def scores(self, task: Task, output: Tensor) -> Tensor:
        return output.sigmoid()

    def decide(self, task: Task, scores: list[np.ndarray]) -> list[list[tuple[int, int, int]]]:
        """Per clip (onset frame, offset frame, label index), in order; the offset is the frame after the last active one."""
        return [self.events(clip >= self.threshold) for clip in scores]

    def events(self, active: np.ndarray) -> list[tuple[int, int, int]]:
        """`active` is bool [labels, frames]."""
        if self.median > 1:
            active = median_filter(active.astype(np.uint8), size=(1, self.median), mode="nearest")
        edges = np.diff(active.astype(np.int8), axis=1, prepend=0, append=0)
        (labels, onsets), (_, offsets) = np.nonzero(edges == 1), np.nonzero(edges == -1)  # both ordered by label, then time
        return sorted(zip(onsets.tolist(), offsets.tolist(), labels.tolist()))
