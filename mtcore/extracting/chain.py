"""The chain of an input: signal steps, extractor, feature steps; where it is cut, and how its rest runs.

    clip ─► decode ─► signal steps ─► extractor ─► feature steps ─► row of a batch
            └────────── prefix, stored ──────────┘ └── rest, per epoch ──┘
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from ..errors import ClipError, ExperimentError, MtcoreError, PluginError, at
from ..plugin import Axis, Context, Moved, Prepared, Step
from ..reading.decode import DECODER_REVISION
from ..streams import stream

__all__ = ["Array", "Chain", "Draw"]


@dataclass(frozen=True)
class Array:
    """An array with what is known of it: `rate` in Hz for signals, `axis` for features; what was at t seconds of the clip is at
    (t - by) * speed. `frames` is (first, number) where it is one window of the clip."""

    data: np.ndarray
    rate: float | None = None
    axis: Axis | None = None
    by: float = 0.0
    speed: float = 1.0
    frames: tuple[int, int] | None = None

    def layout(self) -> tuple:
        """What a step is prepared for: everything but the length in time."""
        timed = self.rate is not None or self.axis is not None
        return self.rate, self.axis, (*self.data.shape[:-1], None) if timed and self.data.ndim else self.data.shape


@dataclass(frozen=True)
class Draw:
    """For which part and from which stream random steps draw; `None` in place of a draw means their `off` form."""

    seed: int
    epoch: int
    clip: str
    part: str
    input: str = ""


@dataclass
class Chain:
    """The steps of one input for one dataset. `shared` is how many leading steps are drawn alike for all inputs; `materials` are what
    steps mix in, by part and name; `dtype` is what the prefix is stored as, float32 or float16; `task` is whose targets the extractor
    takes in place of sound."""

    steps: tuple[Step, ...]
    shared: int = 0
    dtype: str = "float32"
    materials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    task: str = ""
    _prepared: dict = field(default_factory=dict, repr=False)

    def __post_init__(self):
        kinds = [step.component.kind for step in self.steps]
        if kinds.count("extractor") != 1:
            raise ExperimentError("an input has exactly one extractor")
        self.extractor = kinds.index("extractor")
        self.cut, self.reason = len(self.steps), "every step is deterministic and without fitted state: all of it is stored"
        for position, step in enumerate(self.steps):
            why = ("is random" if step.random else "is fitted" if step.fitted else "acts in some parts only" if step.parts
                   else "cuts windows, which are views" if step.window else "")
            if why:
                self.cut, self.reason = position, f"{step.id} {why}"
                break
        windows = [i for i, step in enumerate(self.steps) if step.window]
        if len(windows) > 1:
            raise ExperimentError("at most one step `window` per input; found " + ", ".join(self.steps[i].id for i in windows))
        self.window = windows[0] if windows else None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_prepared": {}}  # closures, made anew where they are needed

    @property
    def prefix(self) -> dict[str, Any]:
        """The stored prefix in readable form."""
        rounded = {} if self.dtype == "float32" else {"dtype": self.dtype}
        return {"decoder": DECODER_REVISION, "steps": [step.described() for step in self.steps[:self.cut]], **rounded}

    @property
    def key(self) -> str:
        """Digest of the prefix: the store's key."""
        return blake2b(json.dumps(self.prefix, sort_keys=True, default=list).encode(), digest_size=12).hexdigest()

    def fitted(self) -> list[int]:
        return [i for i, step in enumerate(self.steps) if step.fitted]

    def run(self, array: Array, first: int, last: int, states: Mapping[int, dict], draw: Draw | None = None,
            window: int | None = None, part: str | None = None) -> Array:
        """Apply steps first … last-1. `states` by position; `window` chooses the window where the chain has one. Without a `draw`,
        `part` says for which part steps act that do not draw."""
        for position in range(first, last):
            step = self.steps[position]
            if position == self.window:
                array = self._slice(position, array, states, window)
                continue
            rng = None
            if step.random:
                if draw is not None and step.acts_in(draw.part):
                    scope = "" if position < self.shared else draw.input
                    tail = (window,) if self.window is not None and position > self.window and window is not None else ()
                    rng = stream(draw.seed, "step", step.id, scope, draw.epoch, draw.clip, *tail)
                if rng is None or (step.p < 1 and rng.random() >= step.p):
                    array = self._call(position, array, states, rng=None, off=True)
                    continue
            elif step.parts and (acting := draw.part if draw else part) is not None and not step.acts_in(acting):
                continue
            array = self._call(position, array, states, rng, part=draw.part if draw else "train")
        return array

    @property
    def rates(self) -> set[float]:
        """Sampling rates in Hz that the extractor has met."""
        return {layout[0] for position, layout, _ in self._prepared if position == self.extractor and layout[0]}

    @property
    def at_once(self) -> bool:
        """Whether all that follows the stored prefix may be applied to whole batches, the same in every part."""
        return all(getattr(step.component, "batched", False) and not step.random and not step.parts for step in self.steps[self.cut:])

    def together(self, like: Array, states: Mapping[int, dict]) -> Callable[[np.ndarray, np.ndarray], None] | None:
        """All that follows the stored prefix, for arrays like this one, as a function (x, out); None where nothing follows."""
        steps = [(self.prepared(position, like).apply, states.get(position, {})) for position in range(self.cut, len(self.steps))]

        def apply(x: np.ndarray, out: np.ndarray) -> None:
            for step, state in steps:
                x = step(x, state, None, out=out)

        return apply if steps else None

    def prepared(self, position: int, array: Array, part: str = "train") -> Prepared:
        """What the step became for arrays of this layout, with the materials of this part."""
        rate, axis, shape = layout = array.layout()
        materials = self.materials.get(part, {})
        place = (position, layout, part if materials else "")
        known = self._prepared.get(place)
        if known is None:
            step = self.steps[position]
            with at(step.id):
                if position == self.extractor:
                    extract = step.component.prepare(rate)
                    known = Prepared(lambda x, state, rng: extract(x), (), axis=step.component.axis(rate))
                else:
                    drawn = {name: one.at(rate) for name, one in materials.items()}
                    known = step.component.prepare(Context(shape, rate, axis, drawn))
            self._prepared[place] = known
        return known

    def _call(self, position: int, array: Array, states: Mapping[int, dict], rng, off: bool = False, part: str = "train") -> Array:
        step, known = self.steps[position], self.prepared(position, array, part)
        if off and (known.off is None or not step.component.random):
            return array
        state = states.get(position, {})
        try:
            with at(step.id):
                result = known.off(array.data, state) if off else known.apply(array.data, state, rng)
        except (MtcoreError, MemoryError):
            raise
        except Exception as error:
            found = f"an array of shape {array.data.shape}: {type(error).__name__}: {error}"
            raise PluginError(f"{step.name} failed on {found}") from error
        data, by, speed = result if isinstance(result, Moved) else Moved(result)
        frames = None if position == self.extractor else array.frames
        return Array(_checked(step, data), known.rate, known.axis, array.by + by / array.speed, array.speed * speed, frames)

    def _slice(self, position: int, array: Array, states: Mapping[int, dict], window: int | None) -> Array:
        known = self.prepared(position, array)
        first, frames = known.slice(array.data.shape, window or 0, states.get(position, {}))
        return replace(array, data=array.data[..., first:first + frames], frames=(first, frames))

    def windows(self, array: Array, states: Mapping[int, dict]) -> int:
        """How many windows an array as it stands before the step `window` has."""
        return int(self.prepared(self.window, array).count(array.data.shape, states.get(self.window, {})))

    def behind(self, array: Array, states: Mapping[int, dict], count: int) -> int:
        """Frames of such an array behind the last of its windows."""
        first, frames = self.prepared(self.window, array).slice(array.data.shape, count - 1, states.get(self.window, {}))
        return max(array.data.shape[-1] - first - frames, 0)

    def fit(self, position: int, arrays: Callable[[], Iterator[Array]], sums: Callable[[], Any] | None) -> dict[str, np.ndarray]:
        """State of a fitted step from the training arrays as they stand before it; from their sums where that is enough."""
        source = arrays()
        start = next(source, None)
        if start is None:
            raise ExperimentError(f"{self.steps[position].id}: no training clip to fit on")
        known = self.prepared(position, start)
        found = sums() if sums is not None and known.fit_sums is not None else None
        state = None if found is None else known.fit_sums(found)
        return known.fit(array.data for array in itertools.chain([start], source)) if state is None else state


def _checked(step: Step, data: Any) -> np.ndarray:
    if not isinstance(data, np.ndarray):
        raise PluginError(f"{step.name} must give a numpy array; found {type(data).__name__}")
    if data.dtype != np.float32:
        data = data.astype(np.float32)
    if not data.size:
        raise ClipError(f"{step.id}: nothing is left of it (shape {data.shape})")
    return np.ascontiguousarray(data)

