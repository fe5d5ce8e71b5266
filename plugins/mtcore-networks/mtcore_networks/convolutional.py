"""Deep convolutional networks over one spectrogram."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from mtcore.plugin import Trunk, param

from .parts import Shapes, Spectral, check_blocks, convolution, keep, shorter, spectra

__all__ = ["Resnet", "Vgg"]

BINS = "what a frame holds of the bins that remain: their mean as in the paper, or all of them, which tells high from low"


class OfBins(nn.Module):
    """[batch, channels, bins, frames] -> [batch, values, frames]."""

    def __init__(self, bins: str):
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor, length: Tensor | None) -> Tensor:
        return x.mean(2) if self.bins == "mean" else x.flatten(1, 2)


@dataclass(frozen=True, kw_only=True)
class Vgg(Trunk):
    """Blocks of two 3 x 3 convolutions, each with batch normalisation and ReLU, and a mean over two bins and `stride` frames.

    After CNN10 and CNN14 of Kong et al., "PANNs: Large-scale pretrained audio neural networks for audio pattern recognition"
    (2020, doi:10.1109/TASLP.2020.3030497). The vector holds the frames' mean and maximum over time side by side, where the paper
    adds them, and instead of its linear layer there are the heads'. CNN14's last block does not pool; here all blocks do.
    """

    channels: list[int] = param([16, 32, 64, 128], minimum=1, help="channels of the blocks; each halves the bins, rounded up. "
                                "CNN10 has [64, 128, 256, 512], CNN14 goes on to 1024 and 2048")
    stride: int = param(2, minimum=1, unit="frames", help="by which each block divides the frames, rounded up; 1 for a frame per "
                        "input frame")
    batch_norm: bool = param(True, help="batch normalisation in front of each ReLU")
    bins: str = param("mean", choices=("mean", "all"), help=BINS)
    block_dropout: float = param(0.2, minimum=0, maximum=1, help="share of values dropped after each block")
    dropout: float = param(0.5, minimum=0, maximum=1, help="share of the vector's values dropped")

    def build(self, shapes: Shapes) -> nn.Module:
        name, before, bins = spectra("vgg", shapes)
        check_blocks("vgg", self.channels)
        blocks = []
        for after in self.channels:
            blocks.append(VggBlock(before, after, (min(2, bins), self.stride), self.batch_norm, self.block_dropout))
            before, bins = after, shorter(bins, 2)
        return Spectral(name, blocks, OfBins(self.bins), [self.stride] * len(blocks), self.dropout)


class VggBlock(nn.Module):
    def __init__(self, before: int, after: int, pool: tuple[int, int], batch_norm: bool, dropout: float):
        super().__init__()
        self.first = convolution(before, after, 3, batch_norm=batch_norm)
        self.second = convolution(after, after, 3, batch_norm=batch_norm)
        # the last frames of a row are divided by as many as there would be, whether it is padded or ends there
        self.pool = nn.AvgPool2d(pool, ceil_mode=True, divisor_override=pool[0] * pool[1])
        self.stride, self.dropout = pool[1], nn.Dropout(dropout)

    def forward(self, x: Tensor, length: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for layers in (self.first, self.second):
            x = keep(F.relu(layers(x)), length)
        return self.dropout(self.pool(x)), shorter(length, self.stride)


@dataclass(frozen=True, kw_only=True)
class Resnet(Trunk):
    """Residual network of blocks with two 3 x 3 convolutions.

    He et al., "Deep residual learning for image recognition" (2016, doi:10.1109/CVPR.2016.90): filters of 7 x 7 and a maximum
    over 3 x 3, each by steps of two, then stages of blocks, each but the first by steps of two. The vector is the frames' mean
    and maximum over time.
    """

    channels: list[int] = param([16, 32, 64, 128], minimum=1, help="channels of the stages; the paper's are [64, 128, 256, 512]")
    blocks: list[int] = param([2, 2, 2, 2], minimum=1, help="residual blocks of the stages: [2, 2, 2, 2] is ResNet-18, "
                              "[3, 4, 6, 3] ResNet-34")
    stride: int = param(2, minimum=1, unit="frames", help="by which the first filters, the maximum and each stage but the first "
                        "divide the frames, rounded up; 1 for a frame per input frame. Bins are always halved")
    bins: str = param("mean", choices=("mean", "all"), help=BINS)
    dropout: float = param(0.2, minimum=0, maximum=1, help="share of the vector's values dropped")

    def build(self, shapes: Shapes) -> nn.Module:
        name, inputs, _ = spectra("resnet", shapes)
        check_blocks("resnet", self.channels, "blocks", self.blocks)
        before, layers, strides = self.channels[0], [Stem(inputs, self.channels[0], self.stride)], [self.stride] * 2
        for stage, (after, count) in enumerate(zip(self.channels, self.blocks)):
            for i in range(count):
                steps = (2, self.stride) if stage and i == 0 else (1, 1)
                layers.append(Residual(before, after, steps))
                strides.append(steps[1])
                before = after
        return Spectral(name, layers, OfBins(self.bins), strides, self.dropout)


class Stem(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.first, self.pool = convolution(before, after, 7, (2, stride)), nn.MaxPool2d(3, (2, stride), 1)
        self.stride = stride

    def forward(self, x: Tensor, length: Tensor | None) -> tuple[Tensor, Tensor | None]:
        length = shorter(length, self.stride)
        x = self.pool(keep(F.relu(self.first(x)), length))  # nothing is below zero, so zeros beyond the length do not show
        length = shorter(length, self.stride)
        return keep(x, length), length


class Residual(nn.Module):
    def __init__(self, before: int, after: int, stride: tuple[int, int]):
        super().__init__()
        self.first, self.second = convolution(before, after, 3, stride), convolution(after, after, 3)
        same = before == after and stride == (1, 1)
        self.shortcut = nn.Identity() if same else convolution(before, after, 1, stride)
        self.stride = stride[1]

    def forward(self, x: Tensor, length: Tensor | None) -> tuple[Tensor, Tensor | None]:
        length = shorter(length, self.stride)
        y = self.second(keep(F.relu(self.first(x)), length))
        return keep(F.relu(y + self.shortcut(x)), length), length
