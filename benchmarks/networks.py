"""What a sharing scheme costs on each trunk: parameters, and the time of forward and of backward against the trunk by itself.

    python benchmarks/networks.py [--trunks cnn vgg …] [--schemes soft …] [--tasks 3] [--rows 8] [--repeats 5] [--threads 1]

All with their default parameters. Rows are 1 x 64 x 100 spectra, 1 x 16000 samples for cnn1d, 1 x 512 values for mlp; the loss is
a mean over all tasks' representations. Passes are interleaved A B B A, for a second at least. Figures are of the shortest, in
time of the processor, since others use the machine: milliseconds of the trunk by itself, ratios to them of the schemes.
docs/networks.md has a table.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from mtcore.plugin import Representation
from mtcore.plugin.registry import Registry

TRUNKS = {"core.mlp": (1, 512), "core.cnn": (1, 64, 100), "core.cnn1d": (1, 16000), "networks.vgg": (1, 64, 100),
          "networks.resnet": (1, 64, 100), "networks.crnn": (1, 64, 100), "networks.conv_transformer": (1, 64, 100)}
SCHEMES = {"soft": "trunk", "cross_stitch": "trunk", "mtan": "trunk", "mmoe": "expert", "cgc": "expert", "ple": "expert"}

AT_LEAST = 1.0
"""Seconds for each pair"""


class Passes:
    """A network with a batch of its own."""

    def __init__(self, registry: Registry, value: Any, shape: tuple[int, ...], rows: int, tasks: list[str]):
        torch.manual_seed(0)
        trunk, sizes = registry.make("trunk", value).component, {"main": shape}
        self.network = trunk.build(sizes, tasks) if trunk.per_task else trunk.build(sizes)
        self.inputs, self.tasks = {"main": torch.randn(rows, *shape)}, tasks
        self.parameters = sum(one.numel() for one in self.network.parameters())

    def once(self) -> tuple[float, float]:
        """Seconds of forward and of backward."""
        self.network.zero_grad()
        start = time.process_time()
        found = self.network(self.inputs, None)
        middle = time.process_time()
        every = [found] * len(self.tasks) if isinstance(found, Representation) else list(found.values())
        loss = sum(values.square().mean() for one in every for values in one[:2] if values is not None)
        if costs := getattr(self.network, "costs", None):
            loss = loss + sum(costs().values())
        loss.backward()
        return middle - start, time.process_time() - middle


def compared(one: Passes, two: Passes, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of forward and of backward of both, the shortest of each."""
    one.once(), two.once()
    first, second, start = [], [], time.perf_counter()
    while len(first) < 2 * repeats or time.perf_counter() - start < AT_LEAST:
        first.append(one.once())
        second += [two.once(), two.once()]
        first.append(one.once())
    return [min(values) for values in zip(*first)], [min(values) for values in zip(*second)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trunks", nargs="+", default=[name.partition(".")[2] for name in TRUNKS])
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES))
    for name, default in (("tasks", 3), ("rows", 8), ("repeats", 5), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    registry, tasks = Registry(), [f"t{i}" for i in range(options.tasks)]
    print("| trunk | by itself: parameters; ms | " + " | ".join(f"`{name}`" for name in options.schemes) + " |")
    print("|---" * (len(options.schemes) + 2) + "|", flush=True)
    for name, shape in TRUNKS.items():
        if name.partition(".")[2] not in options.trunks:
            continue
        plain, cells, passes = Passes(registry, name, shape, options.rows, tasks), [], []
        for scheme in options.schemes:
            other = Passes(registry, {"use": f"networks.{scheme}", SCHEMES[scheme]: name}, shape, options.rows, tasks)
            one, two = compared(plain, other, options.repeats)
            passes.append(one)
            cells.append(f"{other.parameters / plain.parameters:.2f}; {two[0] / one[0]:.1f}, {two[1] / one[1]:.1f}")
        forward, backward = (1e3 * min(values) for values in zip(*passes))
        cells = [f"`{name.partition('.')[2]}`", f"{plain.parameters:,}; {forward:.1f}, {backward:.1f}", *cells]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
