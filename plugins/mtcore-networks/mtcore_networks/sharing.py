"""Sharing schemes that give each task a network, or a way through the network, of its own: a trunk with a trunk in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtcore.plugin import ParameterError, Representation, Trunk, module_dict, param

from .parts import BatchNorm, Shapes, keep

__all__ = ["CrossStitch", "Mtan", "Soft"]

ANY = 1000
"""Frames to try a network with where the length differs from clip to clip."""


def build_inner(scheme: str, inner: Any, shapes: Shapes, staged: bool = False) -> nn.Module:
    """The nested trunk's network; `ParameterError` where it shares by itself, or is no sequence of stages though `staged`."""
    trunk, name = getattr(inner, "component", inner), getattr(inner, "name", type(inner).__name__)
    if trunk.per_task:
        raise ParameterError(f"{scheme} takes a trunk with one representation for all tasks, found {name}, which has one for "
                             "each; name the network itself, such as cnn")
    network = trunk.build(shapes)
    if staged and not all(hasattr(network, part) for part in ("begin", "stages", "end")):
        raise ParameterError(f"{scheme} acts between the stages of a network, and that of {name} is no sequence of stages (it "
                             "has no begin, stages and end); use soft, mmoe or cgc, which take any network, or another one")
    return network


@torch.no_grad()
def sizes(network: nn.Module, shapes: Shapes) -> list[tuple[int, ...]]:
    """Shapes of one row behind each stage. Where lengths differ from clip to clip, of frames that every stage divides evenly."""
    training, frames = network.training, ANY
    network.eval()
    for _ in range(2):
        x, length = network.begin({name: torch.zeros(1, *(frames if size is None else size for size in shape))
                                   for name, shape in shapes.items()}, None)
        found = []
        for stage in network.stages:
            x, length = stage(x, length)
            found.append(tuple(x.shape[1:]))
        frames = 8 * network.end(x, length).stride
    network.train(training)
    return found


@dataclass(frozen=True, kw_only=True)
class Soft(Trunk):
    """Soft sharing: a network for each task, held together by a cost on the distance of their parameters.

    After Duong et al., "Low resource dependency parsing: Cross-lingual parameter sharing in a neural network parser" (2015,
    doi:10.3115/v1/P15-2139), for any number of tasks: the cost is `strength` times the sum of squares of all parameters'
    distances to their means over the tasks (of two tasks half of the paper's). The networks begin alike.
    """

    per_task = True
    trunk: Any = param(component="trunk", help="the network that each task has; any trunk")
    strength: float = param(0.01, minimum=0, help="weight of the cost; 0 for networks that have nothing to do with each other")

    def build(self, shapes: Shapes, tasks: Sequence[str]) -> nn.Module:
        network = build_inner("soft", self.trunk, shapes)
        return Alike({task: copy.deepcopy(network) for task in tasks}, self.strength)


class Alike(nn.Module):
    def __init__(self, networks: Mapping[str, nn.Module], strength: float):
        super().__init__()
        self.networks, self.strength = module_dict(networks), strength

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> dict[str, Representation]:
        return {task: network(inputs, lengths) for task, network in self.networks.items()}

    def costs(self) -> dict[str, Tensor]:
        found = []
        for same in zip(*(network.parameters() for network in self.networks.values())):
            if any(one.requires_grad for one in same):
                with torch.no_grad():  # the distances add up to zero, so no gradient goes through the mean
                    mean = sum(same) / len(same)
                found += [F.mse_loss(one, mean, reduction="sum") for one in same]
        return {"distance": self.strength * torch.stack(found).sum()} if found else {}


@dataclass(frozen=True, kw_only=True)
class CrossStitch(Trunk):
    """Cross-stitch network: a network for each task, whose values are mixed behind each stage.

    Misra et al., "Cross-stitch networks for multi-task learning" (2016, doi:10.1109/CVPR.2016.433): behind a stage, a task's
    values are the sum of all tasks' values, each times a learned weight for the two tasks and, as in the paper, the channel. The
    networks begin alike.
    """

    per_task = True
    trunk: Any = param(component="trunk", help="the network that each task has; one that is a sequence of stages")
    own: float = param(0.9, minimum=0, maximum=1, help="weight of a task's own values in the beginning; the others share what is "
                       "left of 1")
    channels: bool = param(True, help="a weight for each channel (of mlp: each value) of a stage; else one for all of them")

    def build(self, shapes: Shapes, tasks: Sequence[str]) -> nn.Module:
        network = build_inner("cross_stitch", self.trunk, shapes, staged=True)
        widths = [size[0] if self.channels else 1 for size in sizes(network, shapes)]
        return Stitched({task: copy.deepcopy(network) for task in tasks}, widths, self.own)


class Stitched(nn.Module):
    """`weights`, one for each stage: [to task, from task, channels or 1]."""

    def __init__(self, networks: Mapping[str, nn.Module], widths: Sequence[int], own: float):
        super().__init__()
        count = len(networks)
        first = torch.full((count, count), (1 - own) / max(count - 1, 1)).fill_diagonal_(own if count > 1 else 1.0)
        self.networks = module_dict(networks)
        self.weights = nn.ParameterList(first.unsqueeze(2).repeat(1, 1, width) for width in widths)

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> dict[str, Representation]:
        networks = list(self.networks.values())
        found = [network.begin(inputs, lengths) for network in networks]
        for weights, *stages in zip(self.weights, *(network.stages for network in networks)):
            found = [stage(*one) for stage, one in zip(stages, found)]
            values = torch.stack([x for x, _ in found])
            weights = weights.reshape(*weights.shape[:2], 1, weights.shape[2], *[1] * (values.dim() - 3))
            found = [((weights[i] * values).sum(0), length) for i, (_, length) in enumerate(found)]
        return {task: network.end(*one) for (task, network), one in zip(self.networks.items(), found)}


@dataclass(frozen=True, kw_only=True)
class Mtan(Trunk):
    """Multi-task attention network: one network for all, of whose values each task chooses its own behind each stage.

    Liu et al., "End-to-end multi-task learning with attention" (2019, doi:10.1109/CVPR.2019.00197): a task's values behind a
    stage are the shared ones times a mask in 0..1, which two 1 x 1 convolutions with batch normalisation make of the shared
    values and of the task's values behind the stage before. These are brought to the stage's size by a 1 x 1 convolution with
    batch normalisation and ReLU (3 x 3 in the paper) and a maximum. The paper's blocks have two convolutions, of which the first
    makes the mask for the second; a stage may be anything, so what it gives makes its own mask.
    """

    per_task = True
    trunk: Any = param(component="trunk", help="the network that all tasks share; one that is a sequence of stages")

    def build(self, shapes: Shapes, tasks: Sequence[str]) -> nn.Module:
        network = build_inner("mtan", self.trunk, shapes, staged=True)
        found = sizes(network, shapes)
        return Attended(network, {task: [Mask(*pair) for pair in zip([None, *found], found)] for task in tasks})


class Attended(nn.Module):
    def __init__(self, network: nn.Module, masks: Mapping[str, Sequence[nn.Module]]):
        super().__init__()
        self.network, self.masks = network, module_dict({task: nn.ModuleList(one) for task, one in masks.items()})

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> dict[str, Representation]:
        x, length = self.network.begin(inputs, lengths)
        chosen = dict.fromkeys(self.masks)
        for i, stage in enumerate(self.network.stages):
            before = length
            x, length = stage(x, length)
            chosen = {task: masks[i](x, chosen[task], before) for task, masks in self.masks.items()}
        return {task: self.network.end(one, length) for task, one in chosen.items()}


class Pointwise(nn.Module):
    """The same linear map of the channels at each bin and frame, and batch normalisation: [batch, channels, …] -> the same."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.linear, self.norm = nn.Conv1d(before, after, 1, bias=False), BatchNorm(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x.reshape(*x.shape[:2], -1))).reshape(x.shape[0], -1, *x.shape[2:])


class Mask(nn.Module):
    """Of one task behind one stage; `before` and `after` are the shapes of a row in front of and behind the stage."""

    def __init__(self, before: tuple[int, ...] | None, after: tuple[int, ...]):
        super().__init__()
        channels, self.flat, self.pool, self.bring = after[0], 0, (), None
        if before is not None:
            self.flat = len(before) - len(after)  # bins that have become values of a frame
            before = (before[0] * before[1], *before[2:]) if self.flat else before
            self.pool = tuple(-(-one // other) for one, other in zip(before[1:], after[1:]))
            fits = all(-(-one // by) == other for one, by, other in zip(before[1:], self.pool, after[1:]))
            if len(before) != len(after) or not fits:
                raise ParameterError("mtan needs stages that divide bins and frames by whole numbers, rounded up, found one that "
                                     f"makes arrays {list(after)} of {list(before)}; use soft, mmoe or cgc, or another network")
            self.bring = Pointwise(before[0], channels)
        self.first, self.second = Pointwise(channels * (1 + (before is not None)), channels), Pointwise(channels, channels)

    def forward(self, x: Tensor, chosen: Tensor | None, before: Tensor | None) -> Tensor:
        """`chosen` are the task's values in front of the stage, `before` the rows' lengths there."""
        seen = x
        if self.bring is not None:
            y = keep(F.relu(self.bring(chosen.flatten(1, 2) if self.flat else chosen)), before)
            if any(by > 1 for by in self.pool):
                pool = F.max_pool2d if len(self.pool) == 2 else F.max_pool1d
                y = pool(y, self.pool, ceil_mode=True)  # nothing is below zero, so zeros beyond the length do not show
            seen = torch.cat([x, y], 1)
        return x * torch.sigmoid(self.second(F.relu(self.first(seen))))
