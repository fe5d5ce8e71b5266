"""Shared networks: fully connected, and convolutional over spectra or waveforms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtcore.plugin import ParameterError, Representation, Trunk, param

__all__ = ["Cnn", "Cnn1d", "Mlp"]

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}

Shapes = Mapping[str, tuple[int | None, ...]]
Stage = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of dimension 1 of arrays of any rank. One value per channel has no variance: then, as in evaluation,
    the running statistics are used, so that a last batch of one row can be trained on."""

    def _check_input_dim(self, x):
        pass

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


@dataclass(frozen=True, kw_only=True)
class Mlp(Trunk):
    """Fully connected layers over all inputs, flattened and joined. It gives no frames."""

    hidden: list[int] = param([256, 256], minimum=1, help="widths of the layers")
    activation: str = param("relu", choices=tuple(ACTIVATIONS), help="after each layer")
    batch_norm: bool = param(False, help="batch normalisation in front of each activation")
    dropout: float = param(0.0, minimum=0, maximum=1, help="share of values dropped after each layer")

    def build(self, shapes: Shapes) -> nn.Module:
        for name, shape in shapes.items():
            if None in shape:
                raise ParameterError(f"mlp needs inputs of one size, but arrays of input {name!r} have the shape {shape} with a "
                                     "length that differs from clip to clip; add a step such as crop_or_pad or summary")
        if not self.hidden:
            raise ParameterError("mlp needs at least one layer, found hidden = []")
        widths, layers = [sum(math.prod(shape) for shape in shapes.values()), *self.hidden], []
        for before, after in zip(widths, widths[1:]):
            layers += [nn.Linear(before, after, bias=not self.batch_norm), *([BatchNorm(after)] if self.batch_norm else []),
                       ACTIVATIONS[self.activation](), nn.Dropout(self.dropout)]
        return Flat(list(shapes), nn.Sequential(*layers), len(self.hidden))


class Flat(nn.Module):
    def __init__(self, names: list[str], layers: nn.Sequential, depth: int):
        super().__init__()
        self.names, self.layers, self.depth = names, layers, depth

    def begin(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> tuple[Tensor, None]:
        return torch.cat([inputs[name].flatten(1) for name in self.names], 1), None

    @property
    def stages(self) -> list[Stage]:
        each = len(self.layers) // self.depth
        return [lambda x, length, layers=self.layers[i:i + each]: (layers(x), length) for i in range(0, len(self.layers), each)]

    def end(self, x: Tensor, length: Tensor | None) -> Representation:
        return Representation(x)

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> Representation:
        return self.end(self.layers(self.begin(inputs)[0]), None)


def single(trunk: str, shapes: Shapes, rank: int, expected: str, instead: str) -> tuple[str, tuple[int | None, ...]]:
    """Name and shape of the only input, which must have this rank."""
    if len(shapes) != 1:
        raise ParameterError(f"{trunk} takes one input, found {len(shapes)} ({', '.join(shapes)}); name one in "
                             "the trunk's `inputs`, and give each input a trunk of its own")
    (name, shape), = shapes.items()
    if len(shape) != rank or None in shape[:-1]:
        raise ParameterError(f"{trunk} takes {expected}, found {name!r} of shape {shape}; {instead}")
    return name, shape


def pairs(trunk: str, inputs: int, channels: list[int]) -> list[tuple[int, int]]:
    """Channels in front of and after each block."""
    if not channels:
        raise ParameterError(f"{trunk} needs at least one block, found channels = []")
    return list(zip([inputs, *channels], channels))


def odd(trunk: str, name: str, kernel: int) -> None:
    """Filters of odd size with half of it as padding divide the frames by the stride, rounded up."""
    if kernel % 2 == 0:
        raise ParameterError(f"{trunk}: {name} is an odd number, found {kernel}")


class Convolutions(nn.Module):
    """Blocks [batch, channels, (bins,) frames] -> the same, each dividing the frames by a whole number, rounded up; then bins and
    channels become the values of a frame, and their mean and maximum over time the vector.

    What lies beyond `lengths` is kept at zero, so that padding with zeros does not show."""

    def __init__(self, name: str, blocks: list[nn.Module], strides: list[int], dropout: float, each: int = 1):
        super().__init__()
        self.name, self.blocks, self.strides, self.dropout = name, nn.ModuleList(blocks), strides, nn.Dropout(dropout)
        self.each = each
        """blocks of a stage"""

    def begin(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor | None]:
        return inputs[self.name], None if lengths is None else lengths[self.name]

    @property
    def stages(self) -> list[Stage]:
        return [partial(self.stage, i) for i in range(0, len(self.blocks), self.each)]

    def stage(self, first: int, x: Tensor, length: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for i in range(first, first + self.each):
            x = self.blocks[i](x)
            if length is not None:
                length = (length + self.strides[i] - 1) // self.strides[i]
                x = x * (torch.arange(x.shape[-1], device=x.device) < length.reshape(-1, *[1] * (x.dim() - 1)))
        return x, length

    def end(self, x: Tensor, length: Tensor | None) -> Representation:
        frames = own = x.flatten(1, -2)
        count = frames.shape[-1] if length is None else length.clamp(min=1).unsqueeze(1)
        if length is not None:  # what was mixed between the stages may be below zero
            own = frames.masked_fill(torch.arange(frames.shape[-1], device=x.device) >= count.unsqueeze(1), -torch.inf)
        vector = torch.cat([frames.sum(-1) / count, own.amax(-1)], 1)
        return Representation(self.dropout(vector), frames, math.prod(self.strides), length)

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> Representation:
        x, length = self.begin(inputs, lengths)
        for stage in self.stages:
            x, length = stage(x, length)
        return self.end(x, length)


@dataclass(frozen=True, kw_only=True)
class Cnn(Trunk):
    """2-D convolutions over one input [channels, bins, frames]: each block a strided convolution, batch normalisation and ReLU.

    A frame of the representation holds all channels at all remaining bins, the vector mean and maximum of the frames over time.
    """

    channels: list[int] = param([24, 48, 96, 128], minimum=1, help="channels of the blocks; each halves the bins, rounded up")
    stride: int = param(2, minimum=1, unit="frames", help="by which each block divides the frames, rounded up")
    first_kernel: int = param(5, minimum=1, help="size of the first block's filters in bins and frames, an odd number")
    kernel: int = param(3, minimum=1, help="size of the other blocks' filters, an odd number")
    batch_norm: bool = param(True, help="batch normalisation in each block")
    dropout: float = param(0.3, minimum=0, maximum=1, help="share of the vector's values dropped")

    def build(self, shapes: Shapes) -> nn.Module:
        name, shape = single("cnn", shapes, 3, "arrays [channels, bins, frames]", "for waveforms use cnn1d, for vectors mlp")
        blocks = []
        for i, (before, after) in enumerate(pairs("cnn", shape[0], self.channels)):
            kernel = self.kernel if i else self.first_kernel
            odd("cnn", "kernel" if i else "first_kernel", kernel)
            blocks.append(nn.Sequential(nn.Conv2d(before, after, kernel, (2, self.stride), kernel // 2, bias=not self.batch_norm),
                                        *([BatchNorm(after)] if self.batch_norm else []), nn.ReLU()))
        return Convolutions(name, blocks, [self.stride] * len(blocks), self.dropout)


@dataclass(frozen=True, kw_only=True)
class Cnn1d(Trunk):
    """1-D convolutions over one waveform [channels, samples], after Dai et al., "Very deep convolutional neural networks for raw
    waveforms" (2017): long filters first, then filters of three, with a pooling by four after each."""

    channels: list[int] = param([32, 64, 128, 128], minimum=1, help="channels of the blocks")
    kernel: int = param(81, minimum=1, unit="samples", help="length of the first filters, an odd number")
    stride: int = param(4, minimum=1, unit="samples", help="stride of the first filters")
    batch_norm: bool = param(True, help="batch normalisation in each block")
    dropout: float = param(0.0, minimum=0, maximum=1, help="share of the vector's values dropped")

    def build(self, shapes: Shapes) -> nn.Module:
        name, shape = single("cnn1d", shapes, 2, "waveforms [channels, samples]", "for spectra use cnn")
        blocks, strides = [], []
        for i, (before, after) in enumerate(pairs("cnn1d", shape[0], self.channels)):
            kernel, stride = (3, 1) if i else (self.kernel, self.stride)
            odd("cnn1d", "kernel", kernel)
            blocks.append(nn.Sequential(nn.Conv1d(before, after, kernel, stride, kernel // 2, bias=not self.batch_norm),
                                        *([BatchNorm(after)] if self.batch_norm else []), nn.ReLU()))
            blocks.append(nn.MaxPool1d(4, ceil_mode=True))
            strides += [stride, 4]
        return Convolutions(name, blocks, strides, self.dropout, each=2)
