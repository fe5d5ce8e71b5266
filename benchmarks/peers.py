"""One training step of the whole engine against those of LibMTL and of CombinaTorch.

    OMP_NUM_THREADS=1 python -W ignore benchmarks/peers.py --libmtl DIR --combinatorch DIR \\
        [--network mlp cnn] [--tasks 3 8 32] [--rounds 15]

DIR is a checkout of github.com/median-research-group/LibMTL, of github.com/KilianCallebaut/CombinaTorch; one left out is not
measured. Beside the extra `benchmarks` LibMTL needs `pip install cvxpy qpsolvers torch_geometric`, CombinaTorch `pip install
matplotlib`. (LibMTL 1.1.5 of PyPI is older than the checkout of the same number and does not run: it asks loaders' iterators
for a method `next` and torchvision for a module `models.utils`, which are both gone.)

Rows, networks, optimizer (torch's Adam as it comes) and rows per update are those of steps.py; rounds take turns as there, in
the thread's own time. Each runs its own training loop with its own losses, metrics and records of each step; what it does after
an epoch does not count. LibMTL's trainer has hard sharing, equal weights and a shuffled loader for each task, which is what it
offers for several datasets: each task's share of the 32 rows goes through the network by itself. CombinaTorch's
`run_gradient_descent` goes through a `ConcatTaskDataset` with torch's shuffled loader, so that batches are mixed as the
engine's.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from steps import BATCH, LABELS, Plain, arguments, measure, ratio, tensors
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Encoder(nn.Module):
    """The engine's trunk, from tensor to tensor."""

    def __init__(self, run, data):
        super().__init__()
        model = run.model(data)
        self.trunk, self.tasks = model.trunks["main"], list(model.heads)

    def forward(self, x):
        return self.trunk({"main": x}, None).vector

    def heads(self, inputs):
        """A linear layer for each task."""
        with torch.no_grad():
            width = self(inputs[:2]).shape[1]
        return nn.ModuleDict({task: nn.Linear(width, LABELS) for task in self.tasks})


class LibMTL:
    def __init__(self, run, data):
        from LibMTL import Trainer
        from LibMTL.loss import CELoss
        from LibMTL.metrics import AccMetric

        class OnCpu(Trainer):
            device = property(lambda self: torch.device("cpu"), lambda self, given: None)  # it is "cuda:0" there

        inputs, labels, owner = tensors(data)
        encoder = Encoder(run, data)
        each, more = divmod(BATCH, len(encoder.tasks))
        self.loaders = {task: DataLoader(TensorDataset(inputs[owner == number], labels[owner == number]), each + (number < more),
                                         shuffle=True, drop_last=True) for number, task in enumerate(encoder.tasks)}
        described = {task: {"metrics": ["Acc"], "metrics_fn": AccMetric(), "loss_fn": CELoss(), "weight": [1]}
                     for task in encoder.tasks}
        self.trainer = OnCpu(described, "EW", "HPS", lambda: encoder, encoder.heads(inputs), rep_grad=False, multi_input=True,
                             optim_param={"optim": "adam", "lr": 1e-3}, scheduler_param=None, weight_args={}, arch_args={})
        self.times, record = [], self.trainer.meter.record_time
        self.trainer.meter.record_time = lambda mode: (self.times.append(time.thread_time()), record(mode))

    def epoch(self):
        """Seconds per step."""
        self.times.clear()
        self.trainer.train(self.loaders, self.loaders, epochs=1)
        return (self.times[1] - self.times[0]) / max(map(len, self.loaders.values()))


class Outputs(nn.Module):
    """What CombinaTorch's models give: log-probabilities of all tasks for all rows."""

    def __init__(self, run, data, inputs):
        super().__init__()
        self.encoder = Encoder(run, data)
        self.heads = self.encoder.heads(inputs)

    def forward(self, x):
        vector = self.encoder(x)
        return tuple(torch.log_softmax(head(vector), -1) for head in self.heads.values())


class Started(DataLoader):
    """Knows when a loop over it began."""

    def __iter__(self):
        self.start = time.thread_time()
        return super().__iter__()


class CombinaTorch:
    """With all rows in memory."""

    index_mode = False

    def __init__(self, run, data):
        from CombinaTorch.DataReaders.ExtractionMethod import NeutralExtractionMethod
        from CombinaTorch.Tasks.Task import MultiClassTask
        from CombinaTorch.Tasks.TaskDatasets.ConcatTaskDataset import ConcatTaskDataset
        from CombinaTorch.Tasks.TaskDatasets.TaskDataset import TaskDataset
        from CombinaTorch.Training.Training import Training
        from CombinaTorch.Training.TrainingUtils import TrainingUtils

        class Utils(TrainingUtils):
            def extra_operation(self, **_):
                self.end = time.thread_time()

        inputs, labels, owner = tensors(data)
        self.model = Outputs(run, data, inputs)
        self.folder = tempfile.TemporaryDirectory()
        datasets = []
        for number, task in enumerate(self.model.heads):
            rows = torch.nonzero(owner == number).flatten().tolist()
            dataset = TaskDataset(NeutralExtractionMethod(), self.folder.name, self.index_mode)
            dataset.task = MultiClassTask(task, [str(label) for label in range(LABELS)])  # whose name is in its files' names
            for row in rows:
                dataset.add_input(inputs[row].clone())
            dataset.add_task_and_targets(dataset.task, nn.functional.one_hot(labels[rows], LABELS).tolist())
            datasets.append(dataset)
        self.dataset, self.utils, self.training = ConcatTaskDataset(datasets), Utils(), Training
        self.loader = Started(self.dataset, batch_size=BATCH, shuffle=True)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.epochs = itertools.count()
        self.results = Training.create_results("peer", self.dataset.get_task_list(), 1000, self.folder.name)

    def epoch(self):
        """Seconds per step."""
        number = next(self.epochs)
        self.training.run_gradient_descent(
            self.model, self.dataset, self.results, start_epoch=number, num_epochs=number + 1, optimizer=self.optimizer,
            train_loader=self.loader, device="cpu", training_utils=self.utils)
        return (self.utils.end - self.loader.start) / len(self.loader)


class Indexed(CombinaTorch):
    """With a file for each row, read as it is drawn."""

    index_mode = True


def main():
    parser = arguments(__doc__)
    parser.add_argument("--libmtl", metavar="DIR")
    parser.add_argument("--combinatorch", metavar="DIR")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.path += filter(None, (given.libmtl, given.combinatorch))
    peers = {"LibMTL": LibMTL} if given.libmtl else {}
    if given.combinatorch:
        peers |= {"CombinaTorch in memory": CombinaTorch, "CombinaTorch in index mode": Indexed}
    print("| | mtcore ms | " + " | ".join(f"{name} ms | mtcore against it | range" for name in ("plain", *peers)) + " |")
    print("|---|---|" + "---|---|---|" * (1 + len(peers)))
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        for network, tasks in itertools.product(given.network, given.tasks):
            with contextlib.redirect_stdout(nowhere):  # both print what they do
                seconds = measure(network, tasks, given.rounds, Path(folder), {"plain": Plain, **peers})
            cells = [f"{network}, {tasks} tasks", f"{1e3 * statistics.median(seconds['mtcore']):.2f}"]
            for name in ("plain", *peers):
                middle, low, high = ratio(seconds, "mtcore", name)
                cells += [f"{1e3 * statistics.median(seconds[name]):.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
