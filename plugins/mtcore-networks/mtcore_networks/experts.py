"""Sharing schemes that mix several networks, the experts, for each task as a gate of its own says: a trunk with a trunk in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtcore.plugin import ParameterError, Representation, Trunk, module_dict, param

from .parts import Shapes, within
from .sharing import build_inner, sizes

__all__ = ["Cgc", "Mmoe", "Ple"]

WHOLE = 2048
"""Values up to which a gate looks at an input [channels, values] as it is, since the values may be no times."""

EXPERT = "the network that each expert is; any trunk"


def summary(x: Tensor, length: Tensor | None) -> Tensor:
    """[batch, …, frames] -> [batch, values]: mean and maximum over each row's own frames."""
    if length is None:
        return torch.cat([x.mean(-1).flatten(1), x.amax(-1).flatten(1)], 1)
    length, own = length.clamp(min=1), within(x, length.clamp(min=1))
    mean = x.masked_fill(~own, 0.0).sum(-1) / length.reshape(-1, *[1] * (x.dim() - 2))
    return torch.cat([mean.flatten(1), x.masked_fill(~own, -torch.inf).amax(-1).flatten(1)], 1)


def timeless(shape: Sequence[int | None]) -> bool:
    return len(shape) == 1 or (len(shape) == 2 and None not in shape and math.prod(shape) <= WHOLE)


def mixed(weights: Tensor, arrays: Sequence[Tensor]) -> Tensor:
    """Weights [batch, experts] and an array [batch, …] for each expert -> their weighted sum."""
    return torch.einsum("be,eb...->b...", weights, torch.stack(tuple(arrays)))


def mixed_representation(weights: Tensor, found: Sequence[Representation]) -> Representation:
    frames = None if found[0].frames is None else mixed(weights, [one.frames for one in found])
    return Representation(mixed(weights, [one.vector for one in found]), frames, found[0].stride, found[0].lengths)


class Gate(nn.Module):
    """A row's summary [batch, values] -> weights of the experts, [batch, experts], that add up to 1."""

    def __init__(self, values: int, experts: int):
        super().__init__()
        self.linear = nn.Linear(values, experts)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).softmax(1)


class Experts(nn.Module):
    """Experts of all tasks (`shared`) and of each task (`own`), mixed behind each of the levels.

    A level is a run of the experts' stages, all of them where there is one level: then experts may be any networks. In each but
    the last, what comes out is mixed for each task and for the shared experts; the last mixes representations.
    """

    def __init__(self, shapes: Shapes, shared: Sequence[nn.Module], own: Mapping[str, Sequence[nn.Module]], levels: int = 1):
        super().__init__()
        self.shapes, self.levels = dict(shapes), levels
        self.shared, self.own = nn.ModuleList(shared), module_dict({task: nn.ModuleList(one) for task, one in own.items()})
        widths = [sum(math.prod(shape) if timeless(shape) else 2 * math.prod(shape[:-1]) for shape in shapes.values())]
        if levels > 1:
            found = sizes(shared[0], shapes)
            ends = [stages[-1] for stages in runs(range(len(found)), levels)][:-1]
            widths += [found[i][0] if len(found[i]) == 1 else 2 * math.prod(found[i][:-1]) for i in ends]
        everybody = len(shared) + sum(len(one) for one in own.values())
        self.gates = module_dict({task: nn.ModuleList(Gate(width, len(shared) + len(one)) for width in widths)
                                    for task, one in own.items()})
        self.shared_gates = nn.ModuleList(Gate(width, everybody) for width in widths[:-1])

    def look(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None) -> Tensor:
        """What gates see of the inputs."""
        return torch.cat([inputs[name].flatten(1) if timeless(shape) else summary(inputs[name], (lengths or {}).get(name))
                          for name, shape in self.shapes.items()], 1)

    def forward(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> dict[str, Representation]:
        if self.levels == 1:
            seen, shared = self.look(inputs, lengths), [expert(inputs, lengths) for expert in self.shared]
            return {task: mixed_representation(self.gates[task][0](seen), [*shared, *(expert(inputs, lengths) for expert in own)])
                    for task, own in self.own.items()}
        return self.by_level(inputs, lengths)

    def by_level(self, inputs: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None) -> dict[str, Representation]:
        groups = {task: list(own) for task, own in self.own.items()} | {"": list(self.shared)}  # no task is called so
        cut = {name: [runs(expert.stages, self.levels) for expert in group] for name, group in groups.items()}
        place = {name: [expert.begin(inputs, lengths) for expert in group] for name, group in groups.items()}
        seen = dict.fromkeys(groups, self.look(inputs, lengths))
        for level in range(self.levels):
            found = {}
            for name, group in groups.items():
                found[name] = [through(cut[name][i][level], *place[name][i]) for i in range(len(group))]
            if level == self.levels - 1:
                break
            length, values = found[""][0][1], {name: [x for x, _ in one] for name, one in found.items()}
            fused = {task: mixed(self.gates[task][level](seen[task]), [*values[""], *values[task]]) for task in self.own}
            fused[""] = mixed(self.shared_gates[level](seen[""]), [*values[""], *(x for task in self.own for x in values[task])])
            place = {name: [(fused[name], length)] * len(group) for name, group in groups.items()}
            seen = {name: x if x.dim() == 2 else summary(x, length) for name, x in fused.items()}
        ended = {name: [expert.end(*one) for expert, one in zip(group, found[name])] for name, group in groups.items()}
        return {task: mixed_representation(self.gates[task][-1](seen[task]), [*ended[""], *ended[task]]) for task in self.own}


def runs(stages: Sequence[Any], count: int) -> list[Sequence[Any]]:
    """Stages in order, cut into so many runs, as even as can be."""
    ends = [len(stages) * i // count for i in range(count + 1)]
    return [stages[a:b] for a, b in zip(ends, ends[1:])]


def through(stages: Sequence[Any], x: Tensor, length: Tensor | None) -> tuple[Tensor, Tensor | None]:
    for stage in stages:
        x, length = stage(x, length)
    return x, length


@dataclass(frozen=True, kw_only=True)
class Mmoe(Trunk):
    """Multi-gate mixture of experts: several networks, whose representations a gate for each task mixes.

    Ma et al., "Modeling task relationships in multi-task learning with multi-gate mixture-of-experts" (2018,
    doi:10.1145/3219819.3220007). A gate is a softmax of a linear map, in the paper of the input itself, here of what can be had
    of any: mean and maximum over time of each input, padding left out, and inputs without time as they are.
    """

    per_task = True
    expert: Any = param(component="trunk", help=EXPERT)
    experts: int = param(3, minimum=1, help="how many")

    def build(self, shapes: Shapes, tasks: Sequence[str]) -> nn.Module:
        shared = [build_inner("mmoe", self.expert, shapes) for _ in range(self.experts)]
        return Experts(shapes, shared, {task: [] for task in tasks})


@dataclass(frozen=True, kw_only=True)
class Cgc(Trunk):
    """Customized gate control: experts of all tasks and experts of each task. A task's gate mixes the former and its own.

    Tang et al., "Progressive layered extraction (PLE): A novel multi-task learning model for personalized recommendations" (2020,
    doi:10.1145/3383313.3412236), with the gates of `mmoe`.
    """

    per_task = True
    expert: Any = param(component="trunk", help=EXPERT)
    shared: int = param(1, minimum=1, help="experts of all tasks")
    own: int = param(1, minimum=1, help="experts of each task")

    def build(self, shapes: Shapes, tasks: Sequence[str]) -> nn.Module:
        make = lambda count: [build_inner("cgc", self.expert, shapes) for _ in range(count)]  # noqa: E731
        return Experts(shapes, make(self.shared), {task: make(self.own) for task in tasks})


@dataclass(frozen=True, kw_only=True)
class Ple(Trunk):
    """Progressive layered extraction: `cgc` level by level.

    Tang et al. (2020, doi:10.1145/3383313.3412236). The paper stacks layers of experts; here an expert is a whole network whose
    stages are cut into `levels` runs, as even as can be, the longer ones last. Behind each run a task's gate mixes its own and
    the shared experts' values, a shared gate those of all experts, and the next run of an expert goes on from its group's
    mixture. The gates of the first level see what those of `mmoe` see, the others mean and maximum over time of their group's
    mixture. Behind the last run each expert makes its representation, and the tasks' gates mix these. With one level it is `cgc`.
    """

    per_task = True
    expert: Any = param(component="trunk", help="the network that each expert is; one that is a sequence of stages")
    shared: int = param(1, minimum=1, help="experts of all tasks")
    own: int = param(1, minimum=1, help="experts of each task")
    levels: int = param(2, minimum=1, help="of mixing, at most as many as the network has stages")

    def build(self, shapes: Shapes, tasks: Sequence[str]) -> nn.Module:
        make = lambda count: [build_inner("ple", self.expert, shapes, staged=True) for _ in range(count)]  # noqa: E731
        shared, own = make(self.shared), {task: make(self.own) for task in tasks}
        if self.levels > len(shared[0].stages):
            raise ParameterError(f"ple: expected levels of at most {len(shared[0].stages)}, the stages of the expert, found "
                                 f"{self.levels}; give it more layers, or take fewer levels")
        return Experts(shapes, shared, own, self.levels)
