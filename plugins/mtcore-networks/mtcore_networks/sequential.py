"""Convolutions over one spectrogram, then a network over its frames in order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mtcore.plugin import ParameterError, Trunk, param

from .parts import Shapes, Spectral, check_blocks, convolution, keep, shorter, spectra, within

__all__ = ["ConvTransformer", "Crnn"]


@dataclass(frozen=True, kw_only=True)
class Crnn(Trunk):
    """Convolutions that pool bins, then gated recurrent units over the frames.

    Cakir et al., "Convolutional recurrent neural networks for polyphonic sound event detection" (2017,
    doi:10.1109/TASLP.2017.2690575): blocks of a convolution, batch normalisation, ReLU, a maximum over bins and dropout; all
    channels at all bins that remain are what the units see. A frame of the representation is the last layer's state (of both
    directions), the vector the frames' mean and maximum over time.
    """

    channels: list[int] = param([32, 32, 32], minimum=1, help="channels of the convolutions; the paper has up to [96, 96, 96]")
    pool: list[int] = param([4, 4, 2], minimum=1, unit="bins", help="how many bins each block's maximum joins, rounded up")
    kernel: int = param(5, minimum=1, help="size of the filters in bins and frames, an odd number")
    stride: int = param(1, minimum=1, unit="frames", help="by which each block's maximum divides the frames, rounded up")
    hidden: int = param(64, minimum=1, help="units of each recurrent layer, in each direction")
    layers: int = param(1, minimum=1, help="recurrent layers")
    bidirectional: bool = param(True, help="whether frames know what comes after them, too")
    batch_norm: bool = param(True, help="batch normalisation in each block")
    dropout: float = param(0.25, minimum=0, maximum=1, help="share of values dropped after each block, between recurrent layers, "
                           "and of the vector")

    def build(self, shapes: Shapes) -> nn.Module:
        name, before, bins = spectra("crnn", shapes)
        check_blocks("crnn", self.channels, "pool", self.pool)
        if self.kernel % 2 == 0:
            raise ParameterError(f"crnn: kernel is an odd number, found {self.kernel}")
        blocks = []
        for after, pool in zip(self.channels, self.pool):
            pool = min(pool, bins)
            layers = convolution(before, after, self.kernel, batch_norm=self.batch_norm)
            blocks.append(Pooled(layers, (pool, self.stride), self.dropout))
            before, bins = after, shorter(bins, pool)
        units = nn.GRU(before * bins, self.hidden, self.layers, batch_first=True, bidirectional=self.bidirectional,
                       dropout=self.dropout if self.layers > 1 else 0.0)
        return Spectral(name, blocks, Recurrent(units), [self.stride] * len(blocks), self.dropout)


class Pooled(nn.Module):
    """A convolution, ReLU, a maximum over bins and frames, dropout."""

    def __init__(self, layers: nn.Module, pool: tuple[int, int], dropout: float):
        super().__init__()
        self.layers, self.stride = layers, pool[1]
        self.pool, self.dropout = nn.MaxPool2d(pool, ceil_mode=True), nn.Dropout(dropout)

    def forward(self, x: Tensor, length: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.pool(keep(F.relu(self.layers(x)), length))  # nothing is below zero, so zeros beyond the length do not show
        return self.dropout(x), shorter(length, self.stride)


def in_order(x: Tensor) -> Tensor:
    """[batch, channels, bins, frames] -> [batch, frames, channels x bins]."""
    return x.flatten(1, 2).transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self, units: nn.GRU):
        super().__init__()
        self.units = units

    def forward(self, x: Tensor, length: Tensor | None) -> Tensor:
        x = in_order(x)
        if length is None:
            return self.units(x)[0].transpose(1, 2)
        packed = pack_padded_sequence(x, length.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.units(packed)[0], batch_first=True, total_length=x.shape[1])[0].transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class ConvTransformer(Trunk):
    """Strided convolutions that subsample, then a transformer's encoder over the frames.

    The subsampling is that of Gulati et al., "Conformer: Convolution-augmented transformer for speech recognition" (2020,
    doi:10.21437/Interspeech.2020-3015): 3 x 3 filters by steps of two with ReLU, and a linear layer. The encoder is torch's, with
    normalisation in front of each part, on frames with the sines of Vaswani et al., "Attention is all you need" (2017, section
    3.5). A frame of the representation is the encoder's output, the vector the frames' mean and maximum over time. Attention
    takes memory that grows with the square of the frames.
    """

    channels: list[int] = param([32, 32], minimum=1, help="channels of the convolutions; each halves the bins, rounded up")
    stride: int = param(2, minimum=1, unit="frames", help="by which each convolution divides the frames, rounded up")
    width: int = param(96, minimum=1, help="values of a frame in the encoder, a multiple of heads")
    heads: int = param(4, minimum=1, help="of attention in each layer")
    layers: int = param(3, minimum=1, help="of the encoder")
    feed_forward: int = param(192, minimum=1, help="values between the two linear maps of each layer")
    dropout: float = param(0.1, minimum=0, maximum=1, help="share of values dropped in the encoder, and of the vector")

    def build(self, shapes: Shapes) -> nn.Module:
        name, before, bins = spectra("conv_transformer", shapes)
        check_blocks("conv_transformer", self.channels)
        if self.width % self.heads:
            raise ParameterError(f"conv_transformer: expected a width that is a multiple of {self.heads} heads, "
                                 f"found {self.width}")
        blocks = []
        for after in self.channels:
            blocks.append(Strided(convolution(before, after, 3, (2, self.stride), batch_norm=False), self.stride))
            before, bins = after, shorter(bins, 2)
        layer = nn.TransformerEncoderLayer(self.width, self.heads, self.feed_forward, self.dropout, "gelu", batch_first=True,
                                           norm_first=True)
        encoder = nn.TransformerEncoder(layer, self.layers, nn.LayerNorm(self.width), enable_nested_tensor=False)
        for weight in encoder.parameters():  # its layers are copies of one; each begins with values of its own
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)
        return Spectral(name, blocks, Attending(nn.Linear(before * bins, self.width), encoder, self.dropout),
                        [self.stride] * len(blocks), self.dropout)


class Strided(nn.Module):
    """A strided convolution and ReLU."""

    def __init__(self, layers: nn.Module, stride: int):
        super().__init__()
        self.layers, self.stride = layers, stride

    def forward(self, x: Tensor, length: Tensor | None) -> tuple[Tensor, Tensor | None]:
        length = shorter(length, self.stride)
        return keep(F.relu(self.layers(x)), length), length


class Attending(nn.Module):
    def __init__(self, linear: nn.Linear, encoder: nn.TransformerEncoder, dropout: float):
        super().__init__()
        self.linear, self.encoder, self.dropout = linear, encoder, nn.Dropout(dropout)

    def forward(self, x: Tensor, length: Tensor | None) -> Tensor:
        x = self.linear(in_order(x))
        x = self.dropout(x + positions(x))
        beyond = None if length is None else ~within(x.transpose(1, 2), length).flatten(0, 1)
        return self.encoder(x, src_key_padding_mask=beyond).transpose(1, 2)


def positions(x: Tensor) -> Tensor:
    """Sines and cosines of the frames' numbers, [frames, values] for x of [batch, frames, values]."""
    frames, values = x.shape[1:]
    half = (values + 1) // 2
    steps = torch.exp(torch.arange(half, device=x.device) * (-math.log(10000) / half))
    angles = torch.arange(frames, device=x.device).unsqueeze(1) * steps
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :values].to(x.dtype)
