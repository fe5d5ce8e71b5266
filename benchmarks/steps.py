"""One training step of the whole engine against a plain hand-written loop.

    OMP_NUM_THREADS=1 python benchmarks/steps.py [--network mlp cnn] [--tasks 3 8 32] [--rounds 15]

Each task has a dataset of its own; batches of 32 are mixed from all of them; default optimizer, metrics, checkpoints and reporters.
The plain loop keeps all rows in one tensor, takes a batch by index, masks the rows of each task, adds up the cross-entropies and takes a
step of torch's Adam as it comes. `mlp`: 4 layers of 512 over 384 values; `cnn`: the core's over spectra of 40 x 64. A round is an epoch of
either, in turns; the engine's ends with its validation and checkpoint, which are not in its steps' time but shown apart, against a bare
forward loop over the same rows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from mtcore.experiment.run import Experiment
from mtcore.plugin import Clip, Lazy, Reader, Task, param
from mtcore.progress import Progress
from mtcore.training.gradient import GradientRun

ROWS, LABELS = 640, 5
SHAPES = {"mlp": (1, 384), "cnn": (1, 40, 64)}


def values(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32), None


@dataclass(frozen=True, kw_only=True)
class Noise(Reader):
    """Random arrays with random labels of one task."""

    generated = True
    task: str = param(help="name of the task")
    shape: list[int] = param(help="of an array")
    rows: int = param(100, help="clips")

    def tasks(self, root):
        return [Task.multiclass(self.task, map(str, range(LABELS)))]

    def clips(self, root):
        for i in range(self.rows):
            seed = int(self.task[1:]) * 100_000 + i
            yield Clip(str(i), Lazy(values, (tuple(self.shape), seed), key=f"{self.shape}-{seed}"), {self.task: str(seed * 7 % LABELS)})


class Timed(GradientRun):
    """Gives control back after each epoch."""

    def run(self, *arguments):
        self.seconds = []
        super().run(*arguments)

    def train_epoch(self):
        start = time.perf_counter()
        super().train_epoch()
        self.seconds.append((time.perf_counter() - start) / self.per_epoch)
        start = time.perf_counter()
        self._evaluate("validation")
        self.evaluated = time.perf_counter() - start
        self.between(self)


def plain(model, tasks, data, chosen):
    """Seconds per step of an epoch of the plain loop."""
    inputs, labels, owner = data
    optimizer = plain.optimizers.setdefault(id(model), torch.optim.Adam(model.parameters(), lr=1e-3))
    model.train()
    order = np.random.default_rng(len(chosen)).permutation(len(inputs))
    batches = [order[i:i + 32] for i in range(0, len(order), 32)]
    total = dict.fromkeys(tasks, 0.0)
    start = time.perf_counter()
    for rows in batches:
        rows = torch.from_numpy(rows)
        x, y, of = inputs[rows], labels[rows], owner[rows]
        representation = model.trunks["main"]({"main": x}, None)
        loss = 0.0
        for number, task in enumerate(tasks):
            mask = of == number
            if mask.any():
                one = F.cross_entropy(model.heads[task](type(representation)(representation.vector[mask])), y[mask])
                total[task] += one.item()
                loss = loss + one
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - start) / len(batches)


plain.optimizers = {}


def measure(network, tasks, rounds, folder):
    names = [f"t{i}" for i in range(tasks)]
    shape, rows = list(SHAPES[network]), ROWS // tasks
    trunk = {"use": "core.mlp", "hidden": [512] * 4} if network == "mlp" else {"use": "core.cnn"}
    content = {"name": f"{network}{tasks}", "datasets": {name: {"reader": Noise(task=name, shape=shape, rows=int(rows * 1.25))} for name in names},
               "inputs": {"main": {"extractor": "core.waveform"}}, "split": {"folds": 1, "test": 0.0, "validation": 0.2},
               "model": {"trunk": trunk}, "train": {"epochs": rounds + 2}}
    experiment = Experiment(content, folder, folder / "runs", folder / "cache")
    run, = experiment.runs()
    data = run.data()
    steps, evaluations, ours = [], [], []

    def between(engine):
        theirs = plain(model, names, everything, steps)
        steps.append(engine.seconds[-1] / theirs)
        ours.append(engine.seconds[-1])
        rows, start = engine.rows["validation"], time.perf_counter()
        with torch.no_grad():
            for first in range(0, len(rows), 32):
                batch = rows.batch(range(first, min(first + 32, len(rows))))
                engine.model.eval()
                engine.model(batch.inputs, batch.lengths, batch.rows)
        evaluations.append(engine.evaluated / (time.perf_counter() - start))
        engine.model.train()

    model = run.model(data)
    train = data.rows("train")
    batch = train.batch(range(len(train)))
    labels, owner = torch.zeros(len(train), dtype=torch.long), torch.zeros(len(train), dtype=torch.long)
    for number, name in enumerate(names):
        labels[batch.rows[name]], owner[batch.rows[name]] = batch.targets[name], number
    everything = batch.inputs["main"], labels, owner
    engine = Timed()
    engine.between = between
    engine.run(run.model(data), data, run.folder, run.setup(data, Progress()))
    low, middle, high = min(steps[2:]), statistics.median(steps[2:]), max(steps[2:])
    print(f"| {network}, {tasks} tasks | {1e3 * statistics.median(ours[2:]):.2f} | {middle:.2f} | {low:.2f} to {high:.2f} | "
          f"{statistics.median(evaluations[2:]):.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", default=["mlp", "cnn"])
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 8, 32])
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| | ms per step | against the plain loop | range | evaluation against a bare forward loop |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for network in given.network:
            for tasks in given.tasks:
                measure(network, tasks, given.rounds, Path(folder))


if __name__ == "__main__":
    main()
