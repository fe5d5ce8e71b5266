"""What rows are read from: a dataset's inputs, its targets as inputs, and the materials that steps draw from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Sequence

import numpy as np

from ..errors import ParameterError
from ..extracting.chain import Array, Chain
from ..extracting.store import Store
from ..plugin import Task
from ..reading.dataset import Dataset

__all__ = ["Input", "Material", "Memory", "as_sound", "target_input"]


@dataclass
class Input:
    """One input of one dataset: its chain, its store, and the store's row key per clip (None: the clip cannot be used)."""

    chain: Chain
    store: Store
    keys: Sequence[str | None]


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
