"""What all networks here are made of: layers [batch, channels, bins, frames] that keep to each row's own frames.

`length` is the number of frames of each row, int64 [batch], or None where all rows fill the array. Layers keep everything beyond
it at zero, which is also what convolutions and poolings see beyond the end of a row that is alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtcore.plugin import ParameterError, Representation

Shapes = Mapping[str, tuple[int | None, ...]]
Stage = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


def spectra(trunk: str, shapes: Shapes) -> tuple[str, int, int]:
    """Name, channels and bins of the only input; `ParameterError` unless it is one of arrays [channels, bins, frames]."""
    if len(shapes) != 1:
        raise ParameterError(f"{trunk} takes one input, found {len(shapes)} ({', '.join(shapes)}); name one in the trunk's "
                             "`inputs` and give each input a trunk of its own")
    (name, shape), = shapes.items()
    if len(shape) != 3 or None in shape[:-1]:
        raise ParameterError(f"{trunk} takes arrays [channels, bins, frames], found {name!r} of shape {shape}; use an extractor "
                             "of spectra such as logmel or spectrogram, or core.cnn1d for waveforms and core.mlp for vectors")
    return name, *shape[:-1]


def check_blocks(trunk: str, channels: Sequence[int], name: str = "", others: Sequence[int] = ()) -> None:
    """At least one block; another list, where it has a name, has an element for each."""
    if not channels:
        raise ParameterError(f"{trunk}: expected channels for at least one block, found channels = []")
    if name and len(others) != len(channels):
        raise ParameterError(f"{trunk}: expected a number in {name} for each of the {len(channels)} blocks that channels lists, "
                             f"found {name} = {list(others)}")


def shorter(size, stride: int):
    """Bins or frames that a division by `stride`, rounded up, leaves; of a number or of a tensor of lengths."""
    return size if size is None else (size + stride - 1) // stride


def within(x: Tensor, length: Tensor) -> Tensor:
    """Which frames, the last dimension of x, are a row's own: bool that broadcasts to x."""
    return torch.arange(x.shape[-1], device=x.device) < length.reshape(-1, *[1] * (x.dim() - 1))


def keep(x: Tensor, length: Tensor | None) -> Tensor:
    """x with zeros beyond the length."""
    return x if length is None else x.masked_fill(~within(x, length), 0.0)


class BatchNorm(nn.BatchNorm2d):
    """Of arrays of any rank. Where there is a single value per channel, as of one short row, it has no variance: the running
    statistics are used then, so that such a batch can be trained on."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x)


def convolution(before: int, after: int, kernel: int, stride: tuple[int, int] = (1, 1), batch_norm: bool = True) -> nn.Sequential:
    """Convolution that divides bins and frames by the stride, rounded up, and batch normalisation. `kernel` is odd."""
    layers = nn.Sequential(nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=not batch_norm))
    return layers.append(BatchNorm(after)) if batch_norm else layers


class Overall(nn.Module):
    """Frames [batch, values, frames] -> the representation: their mean and maximum over each row's own frames is the vector."""

    def __init__(self, stride: int, dropout: float):
        super().__init__()
        self.stride, self.dropout = stride, nn.Dropout(dropout)

    def forward(self, frames: Tensor, length: Tensor | None) -> Representation:
        if length is None:
            mean, most = frames.mean(-1), frames.amax(-1)
        else:
            frames, own = keep(frames, length), within(frames, length)
            mean, most = frames.sum(-1) / length.unsqueeze(1), frames.masked_fill(~own, -torch.inf).amax(-1)
        return Representation(self.dropout(torch.cat([mean, most], 1)), frames, self.stride, length)


class Spectral(nn.Module):
    """Blocks (x, length) -> (x, length), then `frames` (x, length) -> [batch, values, frames].

    Its stages are the blocks and, where it has parameters, `frames`."""

    def __init__(self, name: str, blocks: Sequence[nn.Module], frames: nn.Module, strides: Sequence[int], dropout: float):
        super().__init__()
        self.name, self.blocks, self.frames = name, nn.ModuleList(blocks), frames
        self.overall, self.last = Overall(math.prod(strides), dropout), any(True for _ in frames.parameters())

    def begin(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor | None]:
        length = None if lengths is None else lengths[self.name].clamp(min=1)
        return keep(inputs[self.name], length), length

    @property
    def stages(self) -> list[Stage]:
        return [*self.blocks, lambda x, length: (self.frames(x, length), length)] if self.last else list(self.blocks)

    def end(self, x: Tensor, length: Tensor | None) -> Representation:
        return self.overall(x if self.last else self.frames(x, length), length)

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> Representation:
        x, length = self.begin(inputs, lengths)
        for stage in self.stages:
            x, length = stage(x, length)
        return self.end(x, length)
