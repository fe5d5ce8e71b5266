"""What a balancer costs: time of one update against a plain sum of the losses (`core.sum`).

    MALLOC_TRIM_THRESHOLD_=2000000000 MALLOC_MMAP_THRESHOLD_=1000000000 \\
        python benchmarks/balancers.py [--tasks 3 8] [--repeats 30] [--network mlp|shared|cnn] [--only NAME ...]

MLP with 4 layers of 512, SGD, batches of 32 rows, one thread; each pair of updates is interleaved A B B A, figures are medians
of the ratios of the thread's own time, `modo` and `sdmgrad` per batch. `mlp`: each row belongs to one task; `shared`: every row
has all tasks; `cnn`: three convolutions and a linear layer. The two variables keep memory from going back to the system, which
now and then costs either side a quarter of an update. On 2 cores with 3 to 5 busy processes beside it, torch 2.13, noise of 0.02:

    3 and 8 tasks                                  mlp            shared         cnn
    of losses, without famo                        1.1, 1.1
    famo                                           1.5, 1.6       1.6, 1.5       1.5, 1.5
    pcgrad, aligned_mtl, imtl_g, dualproj, config  1.11, 1.10
    fairgrad, mgda, nash_mtl                       1.13, 1.12
    upgrad                                         1.13, 1.15     2.8, 6.7       2.4, 5.2
    cagrad                                         1.14, 1.16     2.8, 6.6       2.4, 5.2
    cr_mogm, gradvac, gradnorm, pcd                1.2, 1.1 to 1.3
    moco, db_mtl, excess_mtl                       3, 8           3, 7           3, 6
    graddrop                                       8, 15          9, 15          3, 8
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from mtcore.plugin import Representation
from mtcore.plugin.registry import Registry


def network(kind: str) -> torch.nn.Module:
    nn = torch.nn
    if kind == "cnn":
        return nn.Sequential(nn.Unflatten(1, (1, 16, 24)), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2),
                             nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(512), nn.ReLU())
    widths = [384, 512, 512, 512, 512]
    return nn.Sequential(*(layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU())))


class Training:
    """Updates of a network of its own, with the same data for all balancers."""

    def __init__(self, registry: Registry, name: str, kind: str, tasks: int):
        torch.manual_seed(0)
        self.trunk, names = network(kind), [f"t{i}" for i in range(tasks)]
        self.data = torch.randn(32, 384), torch.randint(0, 5, (32,))
        self.trunk(self.data[0])
        self.heads = {task: torch.nn.Linear(512, 5) for task in names}
        self.rows = {task: torch.arange(32) if kind == "shared" else torch.arange(i, 32, tasks) for i, task in enumerate(names)}
        self.balancing = registry.make("balancer", name).component.build(dict.fromkeys(names, 1.0))
        self.several = self.balancing.batches_per_update
        heads = (p for head in self.heads.values() for p in head.parameters())
        self.optimizer = torch.optim.SGD([*self.trunk.parameters(), *heads, *self.balancing.parameters()], lr=1e-3)

    def losses(self):
        vector, rate = self.trunk(self.data[0]), torch.nn.functional.cross_entropy
        return vector, {task: rate(self.heads[task](vector[rows]), self.data[1][rows]) for task, rows in self.rows.items()}

    def update(self) -> float:
        """Seconds of this thread per batch of one update."""
        start = time.thread_time()
        self.optimizer.zero_grad()
        for i in range(self.several):
            vector, losses = self.losses()
            self.balancing.backward(losses, list(self.trunk.parameters()), {"main": Representation(vector)}, self.rows,
                                    i == self.several - 1)
        self.optimizer.step()
        self.balancing.after_update(lambda: self.losses()[1])
        return (time.thread_time() - start) / self.several


def ratio(registry: Registry, name: str, kind: str, tasks: int, repeats: int) -> float:
    one, two = Training(registry, "core.sum", kind, tasks), Training(registry, name, kind, tasks)
    for _ in range(5):
        one.update(), two.update()
    found = []
    for _ in range(repeats):
        a, b, c, d = one.update(), two.update(), two.update(), one.update()
        found.append((b + c) / (a + d))
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--network", nargs="+", default=["mlp", "shared", "cnn"])
    parser.add_argument("--only", nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)
    registry = Registry()
    names = [full for full, _ in registry.specs("balancer") if full.startswith("balancers.")]
    columns = [(kind, tasks) for kind in options.network for tasks in options.tasks]
    print(f"{'':24}" + "".join(f"{f'{kind} {tasks}':>10}" for kind, tasks in columns), flush=True)
    for name in ["core.sum", *names]:
        if not options.only or name.partition(".")[2] in options.only:
            found = [ratio(registry, name, kind, tasks, options.repeats) for kind, tasks in columns]
            print(f"{name:24}" + "".join(f"{one:10.2f}" for one in found), flush=True)


if __name__ == "__main__":
    main()
