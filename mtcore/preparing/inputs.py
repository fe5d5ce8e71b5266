"""What rows are made of: inputs, targets, what teachers say, and the materials that steps draw from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..clip import File, Lazy
from ..errors import DataError, ExperimentError, ParameterError
from ..extracting.chain import Array, Chain
from ..extracting.store import Store
from ..plugin import Task
from ..reading.dataset import Dataset
from ..reading.decode import decode

__all__ = ["Input", "Material", "Memory", "as_sound", "dense", "lesson", "ragged", "rasterise", "stretch", "target_input"]


@dataclass
class Input:
    """One input of one dataset: its chain, its store, and the store's row key per clip (None: the clip cannot be used)."""

    chain: Chain
    store: Store
    keys: Sequence[str | None]

    @cached_property
    def like(self) -> Array:
        """What is known of the first row, without numbers."""
        return self.store.read(next(key for key in self.keys if key is not None), (0, 0))


class Memory(dict):
    """A few rows held in memory in place of a store."""

    read = dict.__getitem__

    def shape(self, key):
        return self[key].data.shape

    def sums(self, keys):
        return None


def target_input(dataset: Dataset, chain: Chain, task: Task) -> Input:
    """Targets of a task as an input: one-hot [labels] for labels, 0/1 [1] (binary) or [labels], or the value [1]; zeros where a clip has
    none."""
    rows = Memory()
    for c, clip in enumerate(dataset.clips):
        values = np.zeros(1 if task.kind in ("binary", "regression") else len(task.labels), np.float32)
        if task.name in dataset.tasks and task.name in clip.targets:
            target = task.encode(clip.targets[task.name])
            if values.size == 1 and task.kind != "multiclass":
                values[0] = target
            else:
                values[list(np.atleast_1d(target).astype(int))] = 1
        rows[dataset.key(c)] = chain.run(Array(values), 0, chain.cut, {})
    return Input(chain, rows, list(rows))


def as_sound(samples: Array) -> Array:
    """Samples as an extractor gives them, as the sound that they were."""
    return replace(samples, rate=round(1 / samples.axis.hop, 6) if samples.axis else None, axis=None)


@dataclass(frozen=True)
class Material:
    """A material's clips of one part: what `Context.materials` holds under its name. `rate` in Hz is that of the step that draws."""

    name: str
    part: str
    input: Input
    clips: Sequence[int]
    rate: float | None = None

    def at(self, rate: float | None) -> Material:
        return replace(self, rate=rate)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One of the clips, float32 [channels, n]. Raises `ParameterError` where its rate is another or the part has none."""
        if not len(self.clips):
            raise ParameterError(f"material {self.name} has no clip in the {self.part} part; give it more groups")
        found = as_sound(self.input.store.read(self.input.keys[self.clips[int(rng.integers(len(self.clips)))]]))
        if found.rate != self.rate:
            raise ParameterError(f"material {self.name} has the rate {found.rate} Hz, the clips have {self.rate} Hz here; put resample in front of "
                                 f"this step in signal.steps, which materials go through too, or into materials.{self.name}.signal")
        return found.data


# Targets, and what teachers say of them --------------------------------------------------------------------------------


def dense(value: Any, task: Task) -> np.ndarray:
    """An array target as float32; a file is decoded."""
    found = np.asarray(decode(value)[0] if isinstance(value, (File, Lazy)) else value, np.float32)
    task.check(found)
    if not np.isfinite(found).all():
        raise DataError(f"task {task.name}: expected finite numbers, found {np.count_nonzero(~np.isfinite(found))} that are not, in {value!s:.80}")
    return found


def stretch(target: np.ndarray, array: Array, task: Task) -> np.ndarray:
    """Those frames of a clip's target that a row shows; NaN where the target has ended or not begun."""
    if array.speed != 1:
        raise ExperimentError(f"task {task.name}: an array that has the input's frames cannot follow a step that changes their speed")
    first, frames = (array.frames[0] if array.frames else 0) + round(array.by / array.axis.hop), array.data.shape[-1]
    shown = target[..., max(first, 0):max(first + frames, 0)]
    found = np.full((*target.shape[:-1], frames), np.nan, np.float32)
    found[..., max(-first, 0):max(-first, 0) + shown.shape[-1]] = shown
    return found


def ragged(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """One array of all; shorter ones get NaN at the end of their last dimension."""
    longest = max((one.shape for one in arrays), key=lambda shape: shape[-1:])
    joined = np.full((len(arrays), *longest), np.nan, np.float32)
    for place, one in zip(joined, arrays):
        if one.shape[:-1] != longest[:-1]:
            raise ExperimentError(f"arrays of one task differ in their last size only; found the shapes {longest} and {one.shape}")
        place[(..., slice(one.shape[-1])) if one.ndim else ...] = one
    return torch.from_numpy(joined)


def rasterise(events: Sequence[tuple[float, float, int]], labels: int, array: Array) -> torch.Tensor:
    """Events in seconds of the clip as [labels, frames]: 1 where a frame's centre lies within, at least one frame per event."""
    frames = array.data.shape[-1]
    start, target = array.frames[0] if array.frames else 0, torch.zeros(labels, frames)
    for onset, offset, label in events:
        first, last = ((((t - array.by) * array.speed) - array.axis.first) / array.axis.hop - start for t in (onset, offset))
        begin, end = int(np.ceil(first - 1e-9)), int(np.floor(last + 1e-9)) + 1
        end = max(end, begin + 1)
        if end > 0 and begin < frames:
            target[label, max(begin, 0):min(end, frames)] = 1.0
    return target


def lesson(task: Task, values: list[int], found: Sequence[Array], timed: Sequence[Array] | None, longest: int,
           mean: float = 0.0, deviation: float = 1.0) -> torch.Tensor:
    """A teacher's raw outputs of rows, of which a task has those `values`: [batch], [batch, labels], or of events [batch, labels,
    longest], of each frame of the input the nearest. A regression's are scaled as its targets, by their mean and deviation."""
    if task.kind == "events":
        taught = torch.zeros(len(found), len(values), longest)
        for one, array, seen in zip(taught, found, timed or ()):
            frame = np.arange(seen.data.shape[-1]) + (seen.frames[0] if seen.frames else 0)
            seconds = (frame * seen.axis.hop + seen.axis.first) / seen.speed + seen.by
            place = ((seconds - array.by) * array.speed - array.axis.first) / array.axis.hop
            nearest = np.clip(np.rint(place), 0, array.data.shape[-1] - 1).astype(int)
            one[:, :len(frame)] = torch.from_numpy(array.data[0][values][:, nearest])
        return taught
    taught = (torch.from_numpy(np.stack([array.data[0][values] for array in found])) - mean) / deviation
    return taught[:, 0] if task.kind in ("binary", "regression") else taught
