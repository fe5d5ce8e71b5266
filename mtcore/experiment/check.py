"""Everything that can go wrong with an experiment, found before hours are spent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..clip import PARTS
from ..errors import at
from ..extracting.chain import Chain
from ..extracting.fill import array_of
from ..preparing.inputs import Input, Memory
from ..progress import Progress
from ..reading.dataset import Dataset
from ..streams import stream
from ..training.evaluate import figures, predict
from ..training.optimizers import build_optimizer, build_schedule, freeze
from ..training.setup import check_watched
from .corpus import Corpus, grouping

if TYPE_CHECKING:
    from .plan import Experiment
    from .run import Run

__all__ = ["check_experiment", "mixed_rates"]


def check_experiment(experiment: Experiment, clips: int) -> list[str]:
    """What is found, in lines; nothing is stored but digests and the vectors of `split.similar`. Raises what a run would raise."""
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
        with at(run.variation.name):
            lines += _check_run(experiment, run, clips)
    return lines + experiment.corpus.notes


def _check_run(experiment: Experiment, run: Run, clips: int) -> list[str]:
    lines, data = [], experiment._data(run, partial(few, experiment.corpus, clips))
    for dataset in data.datasets:
        for name, one in data.inputs[dataset.name].items():
            steps = [step.id for step in one.chain.steps]
            where = f"inputs.{name}" if isinstance(name, str) else f"teachers.{'.'.join(name)}"
            lines.append(f"{run.variation.name}: {where} of {dataset.name}: stored: {' > '.join(steps[:one.chain.cut]) or 'the samples'}"
                         f"; per epoch: {' > '.join(steps[one.chain.cut:]) or 'nothing'} ({one.chain.reason})")
    data.fit()
    setup, model = run.setup(data, Progress()), run.model(data)
    freeze(model, setup.parameters, 1)
    build_schedule(setup.scheduler, build_optimizer(setup.optimizer, model, setup.balancing.parameters(), setup.parameters), 1)
    trainer = run.builder.training("trainer").component.build()
    if hasattr(trainer, "check"):
        trainer.check(model, data, setup)
    rows = data.rows("train")
    lines += [f"{run.variation.name}: of these few clips, {line}" for line in rows.dropped]
    batch = rows.batch(_spread(np.arange(len(rows)), 2 * clips * len(data.datasets)))
    for step, prepared in setup.batch_steps:
        batch = prepared.apply(batch, {}, stream(data.seed, "check", step.id))
    output = model(batch.inputs, batch.lengths, batch.rows)
    losses = {name: setup.losses[name](raw, batch.targets.get(name), batch).mean()
              for name, raw in (output if isinstance(output, Mapping) else output.tasks).items()}
    sum(losses.values()).backward()
    predictions, means = predict(model, setup.heads, setup.losses, rows, len(batch.clips))
    for text in check_watched(setup.watched, figures(predictions, means, setup.metrics), data.tasks):
        lines.append(f"warning: {run.variation.name}: of these few clips, {text}")
    rates = {rate for inputs in data.inputs.values() for name in data.names for rate in inputs[name].chain.rates}
    lines += [f"warning: {run.variation.name}: {line}" for line in mixed_rates(rates)]
    shapes = ", ".join(f"{name} {list(tensor.shape[1:])}" for name, tensor in batch.inputs.items())
    lines.append(f"{run.variation.name}: rows {shapes}; {sum(p.numel() for p in model.parameters()):,} parameters; first losses "
                 + ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses.items()))
    return lines


def mixed_rates(rates: Iterable[float]) -> list[str]:
    """What is to be said where an extractor has met several sampling rates, in Hz."""
    met = sorted(set(rates))
    return [f"recordings come to the extractor with {', '.join(f'{rate:g}' for rate in met)} Hz, so that the same bin may be another "
            "frequency; add resample to signal.steps"] if len(met) > 1 else []


def few(corpus: Corpus, clips: int, dataset: Dataset, chain: Chain, parts: np.ndarray) -> Input:
    """The prefix of a chain for a few clips of each part and of each task in it, in memory."""
    keys = corpus.keys(dataset)
    usable = np.array([key is not None for key in keys])
    having = [usable, *(usable & [task in clip.targets for clip in dataset.clips] for task in dataset.tasks)]
    chosen = {c for code in range(len(PARTS)) for has in having for c in _spread(np.flatnonzero((parts == code) & has), clips)}
    keys = [key if c in chosen else None for c, key in enumerate(keys)]
    return Input(chain, Memory({keys[c]: array_of(chain, dataset.clips[c].audio) for c in chosen}), keys)


def _spread(values: np.ndarray, most: int) -> list[int]:
    """At most so many of them, at equal distances, so that what lies in order does not show its beginning only."""
    return values[np.linspace(0, len(values) - 1, min(most, len(values))).astype(int)].tolist()
