"""From stored rows to batches: the data of one run.

    clips of a part ─► rows (clip, window) ─► rest of the chain, with the fold's fitted state ─► batch of all tasks
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any

import numpy as np
import torch

from ..clip import PARTS
from ..errors import ClipError, DataError, ExperimentError, MtcoreError, at
from ..extracting.chain import Array, Chain, Draw
from ..extracting.store import Store
from ..plugin import Batch, SamplerIndex, Statistics, Sums, Task
from ..reading.dataset import Dataset
from ..reading.decode import decode
from ..streams import derive
from .inputs import Input, as_sound, dense, lesson, ragged, rasterise, stretch

__all__ = ["RunData", "Rows"]

AHEAD = 2**25
"""Bytes of the batches that are read at a time."""


@dataclass
class RunData:
    """Everything that one run's training and evaluation read.

    inputs  by dataset, by input; those of teachers by (teacher, what it gives), of live ones by (teacher, "sound") what they hear
    teachers  by teacher and task, which of these holds its raw outputs, and which values there
    live    by teacher, the stored run that listens whenever a batch is made
    parts   by dataset, per clip: 0 train, 1 validation, 2 test, -1 unused
    """

    datasets: Sequence[Dataset]
    tasks: Mapping[str, Task]
    inputs: Mapping[str, Mapping[str, Input]]
    parts: Mapping[str, np.ndarray]
    groups: Mapping[str, np.ndarray]
    seed: int = 0
    states: dict[tuple[str, str], dict[str, np.ndarray]] = field(default_factory=dict)
    scaling: dict[str, tuple[float, float]] = field(default_factory=dict)
    teachers: Mapping[str, Mapping[str, tuple[str, list[int]]]] = field(default_factory=dict)
    live: Mapping[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)

    def __post_init__(self):
        self.names = [name for name in next(iter(self.inputs.values())) if isinstance(name, str)]
        self.encoded = {d.name: [{name: self.tasks[name].encode(value) for name, value in clip.targets.items()
                                  if name in self.tasks and name in d.tasks}
                                 for clip in d.clips] for d in self.datasets}
        free = any(task.kind == "none" for task in self.tasks.values())
        self.used = {d.name: np.array([part >= 0 and (bool(targets) or free) and all(i.keys[c] for i in self.inputs[d.name].values())
                                       for c, (part, targets) in enumerate(zip(self.parts[d.name], self.encoded[d.name]))], bool)
                     for d in self.datasets}

    def clips(self, part: str) -> list[tuple[int, int]]:
        """(dataset number, clip number) of the clips of a part."""
        code = PARTS.index(part)
        return [(d, int(c)) for d, dataset in enumerate(self.datasets)
                for c in np.flatnonzero(self.used[dataset.name] & (self.parts[dataset.name] == code))]

    def input(self, dataset: int, name: str) -> Input:
        return self.inputs[self.datasets[dataset].name][name]

    # Fitting ----------------------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Fit every fitted step on the training clips, random steps in their `off` form; and scale regression targets."""
        train = self.clips("train")
        if not train:
            raise DataError("no clip is left to train on: all of them are in other parts or cannot be used")
        for name in self.names:
            chains = {d: self.input(d, name).chain for d in dict.fromkeys(d for d, _ in train)}
            ids = _fit_order(name, chains.values())
            for ident in ids:
                having = {d: next(i for i in c.fitted() if c.steps[i].id == ident) for d, c in chains.items()
                          if any(step.id == ident and step.fitted for step in c.steps)}
                shared = {d: chains[d].steps[p].fit == "shared" for d, p in having.items()}
                scopes = {"": [d for d in having if shared[d]]} | {self.datasets[d].name: [d] for d in having if not shared[d]}
                for scope, members in scopes.items():
                    clips = [(d, c) for d, c in train if d in members]
                    if clips:
                        self.states[f"{name}.{ident}", scope] = self._fit(name, clips, having)
        for task in self.tasks.values():
            if task.kind == "regression":
                values = np.array([self.encoded[self.datasets[d].name][c][task.name] for d, c in train
                                   if task.name in self.encoded[self.datasets[d].name][c]])
                deviation = float(values.std()) if len(values) else 0.0
                self.scaling[task.name] = (float(values.mean()) if len(values) else 0.0, deviation or 1.0)

    def _fit(self, name: str, clips: list[tuple[int, int]], positions: Mapping[int, int]) -> dict[str, np.ndarray]:
        last = ""

        def arrays() -> Iterator[Array]:
            nonlocal last
            for d, c in clips:
                last = self.datasets[d].key(c)
                one = self.input(d, name)
                stored, position = one.store.read(one.keys[c]), positions[d]
                if one.chain.window is None or one.chain.window >= position:
                    yield one.chain.run(stored, one.chain.cut, position, self.state(d, name), part="train")
                    continue
                before = one.chain.run(stored, one.chain.cut, one.chain.window, self.state(d, name), part="train")
                for window in range(one.chain.windows(before, self.state(d, name))):
                    yield one.chain.run(before, one.chain.window, position, self.state(d, name), window=window, part="train")

        def sums() -> Sums | None:
            found = []
            for d in dict.fromkeys(d for d, _ in clips):
                one = self.input(d, name)
                found.append(one.store.sums([one.keys[c] for e, c in clips if e == d]))
            if any(one is None for one in found) or len({one.sum.shape[1:] for one in found}) > 1:
                return None
            return Sums(*(np.concatenate(columns) for columns in zip(*found)))

        d = clips[0][0]
        first = all(self.input(e, name).chain.cut == positions[e] for e, _ in clips)
        try:
            return self.input(d, name).chain.fit(positions[d], arrays, sums if first else None)
        except MtcoreError as error:
            raise type(error)(f"inputs.{name}, at clip {last}: {error}") from error

    def state(self, dataset: int, name: str) -> dict[int, dict[str, np.ndarray]]:
        """States of one dataset's chain by position; of what a live teacher hears, those that its steps have in an input."""
        found = {}
        for position in self.input(dataset, name).chain.fitted():
            owner = name if isinstance(name, str) else next(one for one in self.names if not self.input(dataset, one).chain.task)
            ident = f"{owner}.{self.input(dataset, name).chain.steps[position].id}"
            state = self.states.get((ident, self.datasets[dataset].name), self.states.get((ident, "")))
            if state is not None:
                found[position] = state
        return found

    def statistics(self) -> dict[str, Statistics]:
        """Of each task in the training part."""
        return {name: Statistics(*counted, *self.scaling.get(name, (0.0, 1.0))) for name, counted in self._counted.items()}

    @cached_property
    def _counted(self) -> dict[str, tuple[int, np.ndarray | None]]:
        """By task: rows, and rows per label."""
        found, train = {}, [self.encoded[self.datasets[d].name][c] for d, c in self.clips("train")]
        for name, task in self.tasks.items():
            values = [encoded[name] for encoded in train if name in encoded]
            counts = None
            if task.labels:
                each = [np.atleast_1d([e[2] for e in v] if task.kind == "events" else v).astype(int) for v in values]
                counts = np.bincount(np.concatenate([*each, np.zeros(0, int)]), minlength=len(task.labels))
            found[name] = len(values), counts
        return found

    def rows(self, part: str) -> Rows:
        return Rows(self, part)

    def check_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shape of a row of each input, None for a length in time that differs: looks at the shortest and longest stored array of each
        dataset. Raises `ExperimentError` where rows differ in anything else, or live teachers do not know the rate of what they hear."""
        shapes = {}
        for name in self.names:
            seen: dict[tuple, tuple[str, Array]] = {}
            for d, dataset in enumerate(self.datasets):
                one = self.input(d, name)
                usable = [int(c) for c in np.flatnonzero(self.used[dataset.name])]
                sizes = [math.prod(one.store.shape(one.keys[c])) for c in usable]
                for c in {usable[int(np.argmin(sizes))], usable[int(np.argmax(sizes))]} if usable else ():
                    row = one.chain.run(one.store.read(one.keys[c]), one.chain.cut, len(one.chain.steps), self.state(d, name),
                                        part=PARTS[self.parts[dataset.name][c]])
                    seen.setdefault(row.data.shape, (dataset.key(c), row))
            if any(not _alike(row, next(iter(seen.values()))[1]) for _, row in seen.values()):
                told = "; ".join(f"{clip}: {list(shape)}" for shape, (clip, _) in seen.items())
                raise ExperimentError(f"inputs.{name}: rows of one batch need one shape but for their length in time, found {told}. {DIFFERENT}")
            shapes[name] = next(iter(seen)) if len(seen) == 1 else (*next(iter(seen))[:-1], None)
        self.shapes = shapes
        for teacher, (d, dataset) in product(self.live, enumerate(self.datasets)):
            one, state = self.input(d, (teacher, "sound")), self.state(d, (teacher, "sound"))
            for c in np.flatnonzero(self.used[dataset.name])[:1]:
                with at(f"teachers.{teacher}"):
                    heard = one.chain.run(one.store.read(one.keys[c]), one.chain.cut, len(one.chain.steps), state)
                    self.live[teacher].check_rate(Array(*decode(dataset.clips[c].audio)), as_sound(heard))
        return shapes


DIFFERENT = "Different rates: resample; different channels: mono; no time axis: the extractor must give one size"


def _alike(one: Array, other: Array) -> bool:
    """Whether two rows can be in one batch: equal shapes, but for the length of arrays that have a time axis."""
    timed = one.axis is not None and other.axis is not None
    return one.data.shape[:-1] == other.data.shape[:-1] if timed else one.data.shape == other.data.shape


def _fit_order(name: str, chains: Iterable[Chain]) -> list[str]:
    """Ids of fitted steps, each behind those that stand before it in any dataset's chain."""
    order = TopologicalSorter()
    for chain in chains:
        ids = [chain.steps[position].id for position in chain.fitted()]
        for place, ident in enumerate(ids):
            order.add(ident, *ids[:place])
    try:
        return list(order.static_order())
    except CycleError as error:
        raise ExperimentError(f"inputs.{name}: datasets have the fitted steps {', '.join(error.args[1])} in different orders") from None


class Rows(torch.utils.data.Dataset):
    """The rows of one part of a run, a `torch.utils.data.Dataset` of (clip, window). `batch` gives any of them as a `Batch`;
    `batches` does what a DataLoader would (whose `collate_fn` must hand `__getitems__`'s batch on as it is). `dropped` tells what is in
    no row."""

    def __init__(self, data: RunData, part: str):
        self.data, self.part, self.epoch = data, part, 0
        self._behind: dict[tuple[str, str], list[int]] = {}
        rows = []
        for d, c in data.clips(part):
            counts = {name: self._windows(d, c, name) for name in data.names}
            if len(set(counts.values())) > 1:  # what has no time is the same in every window
                counts = {name: count for name, count in counts.items() if count > 1 or self._timed(d, c, name)}
            if len(set(counts.values())) > 1:
                raise ExperimentError(f"{data.datasets[d].key(c)}: inputs have different numbers of windows: {counts}; give the step "
                                      "window the same length and hop in seconds")
            rows += [(d, c, w) for w in range(max(counts.values()))]
        self.index = np.array(rows, np.int64).reshape(-1, 3)
        self.dropped = [f"{part}: dataset {dataset}, inputs.{name}: {sum(map(bool, frames))} of {len(frames)} clips end with frames that no whole "
                        f"window holds, {sum(frames)} in all" for (dataset, name), frames in self._behind.items() if any(frames)]

    def _windows(self, d: int, c: int, name: str) -> int:
        one = self.data.input(d, name)
        if one.chain.window is None:
            return 1
        state = self.data.state(d, name)
        array = one.chain.run(one.store.read(one.keys[c]), one.chain.cut, one.chain.window, state, part=self.part)
        count = one.chain.windows(array, state)
        if count < 1:
            raise ClipError(f"{self.data.datasets[d].key(c)}: shorter than one window; add crop_or_pad before {one.chain.steps[one.chain.window].id}")
        self._behind.setdefault((self.data.datasets[d].name, name), []).append(one.chain.behind(array, state, count))
        return count

    def _timed(self, d: int, c: int, name: str) -> bool:
        one = self.data.input(d, name)
        state = self.data.state(d, name)
        return one.chain.run(one.store.read(one.keys[c]), one.chain.cut, len(one.chain.steps), state, part=self.part).axis is not None

    def __len__(self) -> int:
        return len(self.index)

    def sampler_index(self) -> SamplerIndex:
        data, columns = self.data, {}
        for name in data.tasks:
            values = [encoded.get(name, -1) for encoded in self.targets]
            columns[name] = np.array([v if isinstance(v, int) else v[0] if isinstance(v, tuple) and len(v) == 1 and isinstance(v[0], int) else -1
                                      for v in values], np.int64)
        length = [(data.input(d, data.names[0]).store.shape(data.input(d, data.names[0]).keys[c]) or (1,))[-1] for d, c, _ in self.index]
        groups = [data.groups[data.datasets[d].name][c] for d, c, _ in self.index]
        return SamplerIndex(self.index[:, 0].copy(), np.array(groups, np.int64), np.array(length, np.int64), columns,
                            tuple(d.name for d in data.datasets), derive(data.seed, "sampler"))

    def __getitem__(self, row: int) -> Batch:
        return self.batch([row])

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        return self.batch(rows)

    def batches(self, drawn: Iterable[Sequence[int]], workers: int = 0) -> Iterator[Batch]:
        """A batch for each list of rows, in order; `workers` processes prepare them ahead, to the same bits."""
        drawn, most = iter(drawn), 1  # the first one is waited for
        while not workers and (some := next(drawn, None)) is not None:
            found, held = [], 0
            while some is not None:
                found.append(self.batch(some))  # several in a row are faster: what they need stays in the processor's cache
                held += sum(one.nbytes for one in found[-1].inputs.values())
                some = next(drawn, None) if len(found) < most and held < AHEAD else None
            most = 10
            while found:
                yield found.pop(0)
        if not workers:
            return
        # a generator of its own: a loader draws from torch's shared one otherwise
        yield from torch.utils.data.DataLoader(self, batch_sampler=drawn, collate_fn=_itself, num_workers=workers, generator=torch.Generator())

    def batch(self, rows: Sequence[int]) -> Batch:
        """These rows of the current `epoch` as tensors; random steps draw for training only (or for the parts they name)."""
        data, arrays, inputs, index = self.data, {}, {}, self.index[list(rows)]
        for name in data.names:
            at_once = self._at_once(name, index)
            arrays[name] = at_once[1] if at_once else [self._array(int(row), name) for row in rows]
            inputs[name] = at_once[0] if at_once else self._stacked(name, arrays[name], rows)
        lengths = {name: [array.data.shape[-1] for array in found] for name, found in arrays.items() if found[0].axis is not None}
        padded = any(len(set(found)) > 1 for found in lengths.values())
        timed = next((found for found in arrays.values() if found[0].axis is not None), None)
        longest = max((array.data.shape[-1] for array in timed or ()), default=0)
        places: dict[str, list[int]] = {name: list(range(len(rows))) if task.kind == "none" else [] for name, task in data.tasks.items()}
        known = [self.targets[row] for row in rows]
        for place, encoded in enumerate(known):
            for name in encoded:
                if name in places and data.tasks[name].kind != "none":
                    places[name].append(place)
        targets, having = {}, {}
        for name, has in places.items():
            if has:
                having[name] = slice(has[0], has[-1] + 1) if has[-1] - has[0] + 1 == len(has) else torch.tensor(has)
                targets[name] = self._targets(data.tasks[name], [known[i].get(name) for i in has], [timed[i] for i in has] if timed else None,
                                              longest)
        return Batch(inputs, targets, having, [data.datasets[d].key(c) for d, c, _ in index.tolist()],
                     {name: torch.tensor(found) for name, found in lengths.items()} if padded else None,
                     {teacher: self._lessons(teacher, rows, timed, longest) for teacher in self.data.teachers})

    def _lessons(self, teacher: str, rows: Sequence[int], timed: list[Array] | None, longest: int) -> dict[str, torch.Tensor]:
        data, said = self.data, self._said(teacher, rows)
        return {name: lesson(data.tasks[name], values, said[what], timed, longest, *data.scaling.get(name, ()))
                for name, (what, values) in data.teachers[teacher].items()}

    def _said(self, teacher: str, rows: Sequence[int]) -> Mapping[str, list[Array]]:
        """Of these rows' clips, by what holds them, a teacher's raw outputs: those stored, or what a live one says now."""
        data, index, sound = self.data, self.index[list(rows)].tolist(), (teacher, "sound")
        wanted = dict.fromkeys(what for what, _ in data.teachers[teacher].values())
        if teacher not in data.live:
            return {what: [one.store.read(one.keys[c]) for d, c, _ in index for one in [data.input(d, (teacher, what))]]
                    for what in wanted}
        names = [self.key(row) if data.input(d, sound).chain.window is None else f"{self.key(row)}#{w}"
                 for row, (d, _, w) in zip(rows, index)]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a process of `batches`, to the same bits
        try:
            with at(f"teachers.{teacher}"):
                heard = {name: as_sound(self._array(row, sound)) for name, row in dict(zip(names, rows)).items()}
                said = data.live[teacher].taught(heard, wanted)
        finally:
            torch.set_num_threads(threads)
        return {what: [found[name] for name in names] for what, found in said.items()}

    def _at_once(self, name: str, index: np.ndarray) -> tuple[torch.Tensor, list[Array]] | None:
        """Rows read straight into the batch's memory, and what follows the store applied to all of them together; None where a step draws,
        moves time or sees one row at a time."""
        data, of = self.data, index[:, 0]
        used = {d: (data.input(d, name), np.flatnonzero(of == d)) for d in dict.fromkeys(of.tolist())}
        if not all(isinstance(one.store, Store) and one.chain.at_once for one, _ in used.values()):
            return None
        places = {d: one.store.places(one.keys)[index[members, 1]] for d, (one, members) in used.items()}
        shapes = [one.store.shapes(places[d]) for d, (one, _) in used.items()]
        if any(found is None or found.shape[1:] != shapes[0].shape[1:] or not found.size for found in shapes):
            return None
        every = np.concatenate(shapes)
        longest, timed = every.max(axis=0), all(one.like.axis is not None for one, _ in used.values())
        if (every[:, :-1 if timed else None] != longest[:-1 if timed else None]).any():
            return None
        joined, arrays = np.empty((len(index), *longest), np.float32), [next(iter(used.values()))[0].like] * len(index)
        for (d, (one, members)), found in zip(used.items(), shapes):
            like = one.like if timed else replace(one.like, data=joined[members[0]])
            one.store.gather([joined[place] for place in members], places[d], one.chain.together(like, data.state(d, name)), found)
            for place, frames in zip(members.tolist(), found[:, -1].tolist()) if timed else ():
                arrays[place] = replace(one.like, data=joined[place, ..., :frames], frames=None)
        if any(task.framed for task in data.tasks.values()):  # each clip's own place in time
            for place, (d, c, _) in enumerate(index.tolist()):
                one = used[d][0]
                arrays[place] = replace(one.store.read(one.keys[c], (0, 0)), data=arrays[place].data, frames=None)
        return torch.from_numpy(joined), arrays

    def _stacked(self, name: str, found: list[Array], rows: Sequence[int]) -> torch.Tensor:
        """One array of all rows; shorter ones get zeros at the end of their time."""
        longest = max(found, key=lambda array: array.data.shape[-1:])
        if all(array.data.shape == longest.data.shape for array in found):
            return torch.from_numpy(np.stack([array.data for array in found]))
        joined = np.zeros((len(found), *longest.data.shape), np.float32)
        for place, array in enumerate(found):
            if not _alike(array, longest):
                raise ExperimentError(f"inputs.{name}: rows of one batch need one shape but for their length in time; {self.key(rows[place])} "
                                      f"has {array.data.shape}, others have {longest.data.shape}. {DIFFERENT}")
            joined[place, ..., :array.data.shape[-1]] = array.data
        return torch.from_numpy(joined)

    def key(self, row: int) -> str:
        """"dataset/clip id" of a row."""
        d, c, _ = self.index[row].tolist()
        return self.data.datasets[d].key(c)

    @cached_property
    def targets(self) -> list[Mapping[str, Any]]:
        """Of each row its clip's targets, encoded, by task."""
        return [self.data.encoded[self.data.datasets[d].name][c] for d, c, _ in self.index.tolist()]

    def _array(self, row: int, name: str) -> Array:
        d, c, w = (int(v) for v in self.index[row])
        one = self.data.input(d, name)
        draw = Draw(self.data.seed, self.epoch, self.key(row), self.part, name)
        return one.chain.run(one.store.read(one.keys[c]), one.chain.cut, len(one.chain.steps), self.data.state(d, name), draw, w)

    def _targets(self, task: Task, values: list, arrays: list[Array] | None, longest: int) -> torch.Tensor:
        if task.kind == "multiclass":
            return torch.tensor(values)
        if task.kind == "regression":
            mean, deviation = self.data.scaling[task.name]
            return ((torch.tensor(values, dtype=torch.float64) - mean) / deviation).float()
        if task.kind == "multilabel":
            return torch.stack([torch.zeros(len(task.labels)).index_fill_(0, torch.tensor(v, dtype=torch.long), 1.0) for v in values])
        if task.framed and arrays is None:
            raise ExperimentError(f"task {task.name}: {task.kind} with frames need an input with a time axis")
        if task.kind == "events":
            target = torch.zeros(len(values), len(task.labels), longest)
            for one, events, array in zip(target, values, arrays):
                one[:, :array.data.shape[-1]] = rasterise(events, len(task.labels), array)
            return target
        if task.kind == "array":
            found = [dense(value, task) for value in values]
            return ragged([stretch(one, array, task) for one, array in zip(found, arrays)] if task.framed else found)
        return torch.zeros(len(values), 0) if task.kind == "none" else torch.tensor(np.asarray(values, np.float32))


def _itself(batch: Batch) -> Batch:
    return batch
