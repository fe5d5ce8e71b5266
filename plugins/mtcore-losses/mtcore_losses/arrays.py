"""Losses of arrays, and what a task without targets needs: a head that gives an input back and a loss that compares the two."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mtcore.plugin import Batch, Head, Loss, ParameterError, Representation, RepresentationShape, Statistics, Task, TrainingError, param

__all__ = ["Reconstruction", "ReconstructionError", "SiSdr"]

Rows = Callable[[Tensor, Tensor, Batch], Tensor]


def alike(output: Tensor, wanted: Tensor, task: Task, instead: str) -> Tensor:
    """The output without the frames that a last, partly filled one of the network brings."""
    output = output[..., :wanted.shape[-1]]
    if output.shape != wanted.shape:
        raise TrainingError(f"task {task.name}: expected an output of shape {tuple(wanted.shape)}, found {tuple(output.shape)}; "
                            + instead)
    return output


@dataclass(frozen=True, kw_only=True)
class SiSdr(Loss):
    """Scale-invariant signal-to-distortion ratio in dB, negative, after Le Roux et al. (2019), SDR - half-baked or well done?,
    https://arxiv.org/abs/1811.02508. A signal is an array's last dimension; a row's value is the mean over its signals, and
    padding counts nothing. The scale of the output is free, so scores are right up to a factor."""

    kinds = ("array",)
    floor: float = param(1e-8, minimum=1e-12, help="added to the energies, so that silence costs no infinity")

    def build(self, task: Task, statistics: Statistics) -> Rows:
        def rows(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            output = alike(output, target, task, "the head must give one value per target value")
            there = ~target.isnan()
            output, target = torch.where(there, output, 0.0), torch.where(there, target, 0.0)
            scale = (output * target).sum(-1, keepdim=True) / ((target ** 2).sum(-1, keepdim=True) + self.floor)
            distortion = ((output - scale * target) ** 2).sum(-1)
            ratio = 10 * torch.log10((((scale * target) ** 2).sum(-1) + self.floor) / (distortion + self.floor))
            return -ratio.reshape(len(ratio), -1).mean(1)

        return rows


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Head):
    """Linear map of the vector to an array of `shape`; where its last size is -1, of every frame to the others, repeated for each
    input frame that it stands for. What it gives is for the loss alone: predictions hold nothing of it."""

    kinds = ("none",)
    shape: list[int] = param(minimum=-1, help="of the input to be given back, such as [1, 64, 100]; -1 for frames that differ")

    def build(self, task: Task, shape: RepresentationShape) -> nn.Module:
        framed, sizes = self.shape[-1:] == [-1], [size for size in self.shape if size > 0]
        if not self.shape or len(sizes) + framed < len(self.shape):
            raise ParameterError(f"task {task.name}: expected shape = […] of positive sizes, the last one may be -1, found "
                                 f"{self.shape}")
        if framed and shape.frames is None:
            raise ParameterError(f"task {task.name}: -1 as the last size needs a trunk that gives frames, and this one gives a "
                                 "vector only; write the number of frames")
        if framed:
            return Again(nn.Conv1d(shape.frames, math.prod(sizes), 1), "frames", sizes)
        return Again(nn.Linear(shape.vector, math.prod(sizes)), "vector", sizes)

    def scores(self, task: Task, output: Tensor) -> Tensor:
        return output.new_zeros(len(output), 0)

    def decide(self, task: Task, scores: list[np.ndarray]) -> list[np.ndarray]:
        return scores


class Again(nn.Module):
    """A layer over one field of a representation, in the given sizes; frames are repeated."""

    def __init__(self, layer: nn.Module, field: str, sizes: list[int]):
        super().__init__()
        self.layer, self.field, self.sizes = layer, field, sizes

    def forward(self, representation: Representation) -> Tensor:
        given = self.layer(getattr(representation, self.field))
        if self.field == "vector":
            return given.reshape(-1, *self.sizes)
        return given.repeat_interleave(representation.stride, -1).reshape(len(given), *self.sizes, -1)


@dataclass(frozen=True, kw_only=True)
class ReconstructionError(Loss):
    """Mean squared difference between the output and an input of the same row, as the chain gives it to the trunks; padding
    counts nothing."""

    kinds = ("none",)
    input: str = param("main", help="name of the input that is to be given back")

    def build(self, task: Task, statistics: Statistics) -> Rows:
        def rows(output: Tensor, target: Tensor, batch: Batch) -> Tensor:
            if self.input not in batch.inputs:
                raise TrainingError(f"task {task.name}: expected one of the inputs {', '.join(batch.inputs)}, found "
                                    f"{self.input!r}; set tasks.{task.name}.loss.input")
            own = batch.rows[task.name]
            wanted = batch.inputs[self.input][own]
            output = alike(output, wanted, task, f"set the head's shape to that of the input, {list(wanted.shape[1:])}")
            errors = (output - wanted) ** 2
            if batch.lengths is None or self.input not in batch.lengths:
                return errors.flatten(1).mean(1)
            length = batch.lengths[self.input][own]
            there = torch.arange(wanted.shape[-1], device=wanted.device) < length.reshape(-1, *[1] * (wanted.dim() - 1))
            return (errors * there).flatten(1).sum(1) / (there.expand_as(errors).flatten(1).sum(1)).clamp(min=1)

        return rows
