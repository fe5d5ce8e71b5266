"""Targets of kinds array and events as rows show them."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
import torch

from ..clip import File, Lazy
from ..errors import DataError, ExperimentError
from ..extracting.chain import Array
from ..plugin import Task
from ..reading.decode import decode

__all__ = ["dense", "ragged", "rasterise", "stretch"]


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
