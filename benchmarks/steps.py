"""One training step of the whole engine against a plain hand-written loop.

    OMP_NUM_THREADS=1 python benchmarks/steps.py [--network mlp cnn] [--tasks 3 8 32] [--rounds 15]

Each task has a dataset of its own; batches of 32 are mixed from all of them; default optimizer, metrics, checkpoints and
reporters. The plain loop keeps all rows in one tensor, takes a batch by index, masks the rows of each task, adds up the
cross-entropies and takes a step of torch's Adam as it comes. `mlp`: 4 layers of 512 over 384 values; `cnn`: the core's over
spectra of 40 x 64. A round is an epoch of either, in turns, in the thread's own time; the engine's ends with its validation and
checkpoint, which are not in its steps' time; the validation is shown apart, against a bare forward loop over the same rows.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from mtcore import Experiment
from mtcore.plugin import Clip, Lazy, Reader, Task, param
from mtcore.progress import Progress
from mtcore.training.gradient import GradientRun

ROWS, LABELS, BATCH, WARM = 640, 5, 32, 2
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
            noise = Lazy(values, (tuple(self.shape), seed), key=f"{self.shape}-{seed}")
            yield Clip(str(i), noise, {self.task: str(seed * 7 % LABELS)})


class Timed(GradientRun):
    """Measures its epochs, evaluations and, in turns with them, others: seconds by name."""

    def __init__(self, others):
        self.others, self.seconds = others, {name: [] for name in ("mtcore", "evaluation", *others)}

    def train_epoch(self):
        start = time.thread_time()
        super().train_epoch()
        self.seconds["mtcore"].append((time.thread_time() - start) / self.per_epoch)
        start = time.thread_time()
        self._evaluate("validation")
        self.seconds["evaluation"].append(time.thread_time() - start)
        for name, other in self.others.items():
            self.seconds[name].append(other.epoch())


class Plain:
    """The plain loop."""

    def __init__(self, run, data):
        self.model, (self.inputs, self.labels, self.owner) = run.model(data), tensors(data)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.rng = np.random.default_rng(0)

    def epoch(self):
        """Seconds per step."""
        model, tasks = self.model.train(), list(self.model.heads)
        order = self.rng.permutation(len(self.inputs))
        batches = [order[i:i + BATCH] for i in range(0, len(order), BATCH)]
        total = dict.fromkeys(tasks, 0.0)
        start = time.thread_time()
        for rows in batches:
            rows = torch.from_numpy(rows)
            x, y, of = self.inputs[rows], self.labels[rows], self.owner[rows]
            representation = model.trunks["main"]({"main": x}, None)
            loss = 0.0
            for number, task in enumerate(tasks):
                mask = of == number
                if mask.any():
                    one = F.cross_entropy(model.heads[task](type(representation)(representation.vector[mask])), y[mask])
                    total[task] += one.item()
                    loss = loss + one
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return (time.thread_time() - start) / len(batches)


class Forward:
    """A bare forward loop over the validation rows."""

    def __init__(self, run, data):
        self.model, self.rows = run.model(data).eval(), data.rows("validation")

    def epoch(self):
        """Seconds."""
        start = time.thread_time()
        with torch.no_grad():
            for first in range(0, len(self.rows), BATCH):
                batch = self.rows.batch(range(first, min(first + BATCH, len(self.rows))))
                self.model(batch.inputs, batch.lengths, batch.rows)
        return time.thread_time() - start


def tensors(data):
    """The training rows' inputs, labels and numbers of their tasks."""
    train = data.rows("train")
    batch = train.batch(range(len(train)))
    labels, owner = torch.zeros(len(train), dtype=torch.long), torch.zeros(len(train), dtype=torch.long)
    for number, (name, rows) in enumerate(batch.rows.items()):
        labels[rows], owner[rows] = batch.targets[name], number
    return batch.inputs["main"], labels, owner


def measure(network, tasks, rounds, folder, others):
    """Seconds by name and round: the engine's, and those of `others`, classes that are called with run and data."""
    names = [f"t{i}" for i in range(tasks)]
    shape, rows = list(SHAPES[network]), ROWS // tasks
    trunk = {"use": "core.mlp", "hidden": [512] * 4} if network == "mlp" else {"use": "core.cnn"}
    datasets = {name: {"reader": Noise(task=name, shape=shape, rows=int(rows * 1.25))} for name in names}
    content = {"name": f"{network}{tasks}", "datasets": datasets,
               "inputs": {"main": {"extractor": "core.waveform"}}, "split": {"folds": 1, "test": 0.0, "validation": 0.2},
               "model": {"trunk": trunk}, "train": {"epochs": rounds + WARM}}
    run, = Experiment(content, folder, folder / "runs", folder / "cache").runs()
    data = run.data()
    engine = Timed({name: other(run, data) for name, other in others.items()})
    engine.run(run.model(data), data, run.folder, run.setup(data, Progress()))
    return {name: values[WARM:] for name, values in engine.seconds.items()}


def ratio(seconds, one, other):
    """Median, least and largest of one's times against another's in the same round."""
    ratios = [a / b for a, b in zip(seconds[one], seconds[other])]
    return statistics.median(ratios), min(ratios), max(ratios)


def arguments(text):
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="+", choices=tuple(SHAPES), default=list(SHAPES))
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 8, 32])
    parser.add_argument("--rounds", type=int, default=15)
    return parser


def main():
    given = arguments(__doc__).parse_args()
    torch.set_num_threads(1)
    print("| | ms per step | against the plain loop | range | evaluation against a bare forward loop |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for network, tasks in itertools.product(given.network, given.tasks):
            seconds = measure(network, tasks, given.rounds, Path(folder), {"plain": Plain, "forward": Forward})
            middle, low, high = ratio(seconds, "mtcore", "plain")
            cells = (f"{network}, {tasks} tasks", f"{1e3 * statistics.median(seconds['mtcore']):.2f}", f"{middle:.2f}",
                     f"{low:.2f} to {high:.2f}", f"{ratio(seconds, 'evaluation', 'forward')[0]:.2f}")
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
