"""The model that joins trunks and heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ExperimentError, MtcoreError
from ..plugin import Head, Output, Representation, RepresentationShape, Task, Trunk, module_dict

__all__ = ["MultiTaskModel", "build_model", "select"]


ANY = 1000
"""Frames to try a trunk with where the length differs from clip to clip."""


def select(values: Tensor | None, rows: Any) -> Tensor | None:
    """The rows (indices, a slice, or None for all) of a tensor."""
    return values if values is None or rows is None else values[rows]


class MultiTaskModel(nn.Module):
    """Trunks that share their inputs' arrays among the tasks, and a head per task.

    A head takes all trunks' vectors, joined, unless `wiring` says which; frames come from the only trunk among them that has some.
    """

    def __init__(self, trunks: Mapping[str, nn.Module], inputs: Mapping[str, list[str]], wiring: Mapping[str, list[str]]):
        super().__init__()
        self.trunks, self.heads = module_dict(trunks), module_dict()
        self.inputs, self.wiring = dict(inputs), dict(wiring)

    def represent(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """By trunk, its representation or, where it has one for each task, those by task."""
        return {name: trunk({key: inputs[key] for key in self.inputs[name]}, lengths) for name, trunk in self.trunks.items()}

    def joined(self, represented: Mapping[str, Any], task: str) -> Representation:
        chosen = [one[task] if isinstance(one := represented[name], dict) else one for name in self.wiring[task]]
        framed = [one for one in chosen if one.frames is not None]
        vector = chosen[0].vector if len(chosen) == 1 else torch.cat([one.vector for one in chosen], 1)
        return Representation(vector, *(framed[0][1:] if len(framed) == 1 else ()))

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None,
                rows: Mapping[str, Any] | None = None) -> Output:
        represented, tasks = self.represent(inputs, lengths), {}
        for task, head in self.heads.items():
            if rows is None or task in rows:
                vector, frames, stride, lengths = self.joined(represented, task)
                chosen = None if rows is None else rows[task]
                tasks[task] = head(Representation(select(vector, chosen), select(frames, chosen), stride,
                                                  select(lengths, chosen)))
        costs = {f"{name}.{key}": cost for name, trunk in self.trunks.items() if self.training and hasattr(trunk, "costs")
                 for key, cost in trunk.costs().items()}
        return Output(tasks, represented, costs)

    def shared_parameters(self) -> list[Tensor]:
        return list(self.trunks.parameters())


def build_model(trunks: Mapping[str, Trunk], inputs: Mapping[str, list[str]], shapes: Mapping[str, tuple[int | None, ...]],
                tasks: Mapping[str, Task], heads: Mapping[str, Head], wiring: Mapping[str, list[str]]) -> MultiTaskModel:
    """Build trunks for the input shapes, learn their representations' sizes by one pass of zeros, build the heads.

    Raises `ExperimentError` that names the trunk or task that does not fit.
    """
    built = {}
    for name, trunk in trunks.items():
        try:
            own = tuple(task for task in tasks if name in wiring[task])
            built[name] = trunk.build({key: shapes[key] for key in inputs[name]}, *([own] if trunk.per_task else []))
        except MtcoreError as error:
            raise type(error)(f"model.trunks.{name}: {error}") from error
    model = MultiTaskModel(built, inputs, wiring)
    model.eval()
    with torch.no_grad():
        represented = model.represent({name: torch.zeros(2, *(ANY if size is None else size for size in shape))
                                       for name, shape in shapes.items()})
    for name, task in tasks.items():
        one = model.joined(represented, name)
        shape = RepresentationShape(one.vector.shape[1], None if one.frames is None else one.frames.shape[1], one.stride)
        if task.kind == "events" and shape.frames is None:
            raise ExperimentError(f"task {name}: events need a trunk that hands over frames; tasks.{name}.trunks names one of several")
        try:
            model.heads[name] = heads[name].build(task, shape)
        except MtcoreError as error:
            raise type(error)(f"tasks.{name}.head: {error}") from error
    return model
