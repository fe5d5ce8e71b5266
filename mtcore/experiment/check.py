"""Everything that can go wrong with an experiment, found before hours are spent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping

import numpy as np

from ..clip import PARTS
from ..errors import MtcoreError
from ..extracting.chain import Chain
from ..extracting.fill import array_of, rows_of
from ..preparing.data import Input, Material, RunData
from ..progress import Progress
from ..reading.dataset import Dataset
from ..streams import stream
from ..training.optimizers import build_optimizer, build_schedule
from .corpus import grouping

if TYPE_CHECKING:
    from .run import Experiment, Run

__all__ = ["check_experiment"]


def check_experiment(experiment: Experiment, clips: int) -> list[str]:
    """What is found, in lines; nothing is stored. Raises what a run would raise."""
    lines, seen = [], set()
    experiment._refuse(experiment.corpus.bad)
    for dataset in experiment.corpus.datasets:
        lines.append(f"dataset {dataset.name}: {len(dataset.clips)} clips by {dataset.reader.name}; tasks {', '.join(dataset.tasks)}; "
                     + grouping(dataset, experiment.config))
    for fold, parts in enumerate(experiment.corpus.parts.folds):
        counts = {name: "/".join(str(int((codes == code).sum())) for code in range(3)) for name, codes in parts.items()}
        lines.append(f"fold {fold + 1}: train/validation/test clips: " + ", ".join(f"{name} {text}" for name, text in counts.items()))
    for run in experiment.runs():
        if run.fold or run.variation.name in seen:
            continue
        seen.add(run.variation.name)
        try:
            lines += _check_run(experiment, run, clips)
        except MtcoreError as error:
            raise type(error)(f"{run.variation.name}: {error}") from error
    return lines + experiment.corpus.notes


def _check_run(experiment: Experiment, run: Run, clips: int) -> list[str]:
    lines, data = [], experiment._data(run)
    materials: dict[str, dict[str, Material]] = {part: {} for part in PARTS}
    for one in experiment.corpus.materials:
        parts = experiment.corpus.parts.folds[run.fold][one.name]
        memory = _few(experiment, one, parts, run.builder.material(one.name), clips)
        for code, part in enumerate(PARTS):
            materials[part][one.name] = Material(one.name, part, memory, [c for c in np.flatnonzero(parts == code) if memory.keys[c]])
    for dataset in data.datasets:
        for name, one in data.inputs[dataset.name].items():
            one.chain.materials = materials
            data.inputs[dataset.name][name] = _few(experiment, dataset, data.parts[dataset.name], one.chain, clips)
            steps = [step.id for step in one.chain.steps]
            lines.append(f"{run.variation.name}: inputs.{name} of {dataset.name}: stored: {' > '.join(steps[:one.chain.cut]) or 'the samples'}"
                         f"; per epoch: {' > '.join(steps[one.chain.cut:]) or 'nothing'} ({one.chain.reason})")
    data = RunData(data.datasets, data.tasks, data.inputs, data.parts, data.groups, data.seed)
    data.fit()
    setup, model = run.setup(data, Progress()), run.model(data)
    build_schedule(setup.scheduler, build_optimizer(setup.optimizer, model.parameters()), 1)
    rows = data.rows("train")
    batch = rows.batch(range(min(len(rows), 2 * clips)))
    for step, prepared in setup.batch_steps:
        batch = prepared.apply(batch, {}, stream(data.seed, "check", step.id))
    output, losses = model(batch.inputs, batch.lengths, batch.rows), {}
    for name, raw in (output if isinstance(output, Mapping) else output.tasks).items():
        losses[name] = setup.losses[name](raw, batch.targets.get(name), batch).mean()
    sum(losses.values()).backward()
    shapes = ", ".join(f"{name} {list(tensor.shape[1:])}" for name, tensor in batch.inputs.items())
    lines.append(f"{run.variation.name}: rows {shapes}; {sum(p.numel() for p in model.parameters()):,} parameters; first losses "
                 + ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items()))
    return lines


def _few(experiment: Experiment, dataset: Dataset, parts: np.ndarray, chain: Chain, clips: int) -> Input:
    """The prefix of a chain for the first clips of each part, in memory."""
    digests = experiment.corpus.digests[dataset.name]
    usable = np.array([digest is not None for digest in digests])
    few = {int(c) for code in range(len(PARTS)) for c in np.flatnonzero((parts == code) & usable)[:clips]}
    keys = [rows_of(digests[c], clip.audio) if c in few else None for c, clip in enumerate(dataset.clips)]
    return Input(chain, _Memory({keys[c]: array_of(chain, dataset.clips[c].audio) for c in few}), keys)


class _Memory:
    """A few rows held in memory in place of a store."""

    def __init__(self, arrays):
        self.rows = self.arrays = arrays

    def shape(self, key):
        return self.arrays[key].data.shape

    def read(self, key):
        return self.arrays[key]

    def sums(self, keys):
        return None
