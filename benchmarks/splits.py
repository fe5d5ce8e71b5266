"""A million clips in 100,000 groups with 50 classes: seconds and growth of memory for split, leak check and what goes before.

    python benchmarks/splits.py [clips] [groups] [classes]
"""

import sys
import threading
from pathlib import Path
from time import perf_counter, process_time, sleep

import numpy as np

from mtcore.preparing.split import SplitDataset, check_leaks, draw_parts, joined_groups, labels_in_one_group


def anonymous() -> float:
    """Anonymous memory of this process in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


class Measured:
    """Seconds, and the highest anonymous memory above that at the start."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self):
        self.start, self.processor, self.base, self.peak, self.running = perf_counter(), process_time(), anonymous(), 0.0, True
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while self.running:
            self.peak = max(self.peak, anonymous() - self.base)
            sleep(0.01)

    def __exit__(self, *_):
        seconds, processor, self.running = perf_counter() - self.start, process_time() - self.processor, False
        self.thread.join()
        print(f"{self.name:<28} {seconds:6.2f} s ({processor:.2f} of a processor)   + {max(self.peak, anonymous() - self.base):4.0f} MB at most")


def dataset(name: str, clips: int, groups: int, classes: int, rng: np.random.Generator) -> SplitDataset:
    owner = rng.integers(groups, size=clips)
    names = [f"{name}:group{number}" for number in range(groups)]
    labels = np.zeros((clips, classes), np.uint8)
    labels[np.arange(clips), (classes * rng.random(clips)**2).astype(int)] = 1
    audio = [(f"{name}{number // 4:x}", 10.0 * (number % 4), 10.0 * (number % 4 + 1)) for number in range(clips)]
    values = [names[number] for number in owner] if groups < clips else [None] * clips
    return SplitDataset(name, values, audio, [{}] * clips, labels)


def main(clips: int = 1_000_000, groups: int = 100_000, classes: int = 50) -> None:
    rng = np.random.default_rng(0)
    for title, number in ((f"{groups} groups", groups), ("every clip for itself", clips)):
        print(f"{clips} clips, {classes} classes, {title}")
        data = [dataset("a", clips // 2, number // 2, classes, rng), dataset("b", clips // 2, number // 2, classes, rng)]
        with Measured("joined groups"):
            components = joined_groups(data)
        with Measured("5 folds with validation"):
            parts = draw_parts(data, folds=5, test=0.0, validation=0.1, seed=1)
        with Measured("leak check"):
            check_leaks(data, parts)
        with Measured("labels in one group"):
            labels_in_one_group(data[0].labels, components[0])
        for one in data:
            tested = np.stack([(fold[one.name] == 2) @ one.labels.astype(float) for fold in parts.folds])
            off = np.abs(tested / tested.sum(axis=0) - 0.2).max()
            print(f"  dataset {one.name}: a class's share in a fold differs from a fifth by at most {off:.5f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
