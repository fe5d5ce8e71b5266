"""Fitting a standardizer on a fold, and applying it to batches of log-mel.

    OMP_NUM_THREADS=1 python benchmarks/fitting.py [--clips 2000] [--rounds 7]

Fit: from the sums that the store keeps beside the features, against sklearn's StandardScaler with partial_fit over the clips, both from
arrays of 64 bins and 200 to 600 frames; first with the sums read from disk, then again for another fold. Apply: batches of 32 with the
step, against the same batches without it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.preprocessing import StandardScaler

from mtcore.builtin.preparers import Standardize
from mtcore.extracting.chain import Array, Chain
from mtcore.extracting.store import Store, write_shard
from mtcore.plugin import Axis, Context
from mtcore.plugin.registry import get_registry


def timed(function, *arguments):
    start = time.perf_counter()
    found = function(*arguments)
    return time.perf_counter() - start, found


def sklearn_fit(arrays):
    scaler = StandardScaler()
    for array in arrays:
        scaler.partial_fit(array[0].T)
    return scaler


def told(name, ratios):
    print(f"{name:52} {statistics.median(ratios):8.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    arrays = [(random.standard_normal((1, 64, int(random.integers(200, 600)))) * 10 - 40).astype(np.float32) for _ in range(options.clips)]
    keys = [f"{number:032x}:0:" for number in range(options.clips)]
    prepared = Standardize().prepare(Context((1, 64, None), axis=Axis(0.01)))
    registry = get_registry()
    chain = Chain((registry.make_step("core.waveform", kinds=("extractor",)), registry.make_step("core.standardize")))
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, options.clips, 64):
            write_shard(Path(folder), {}, [(key, Array(array, axis=Axis(0.01))) for key, array in zip(keys[start:start + 64], arrays[start:start + 64])])
        first, again, apply = [], [], []
        for number in range(options.rounds):
            store = Store(Path(folder), {})
            fold = [i for i in range(options.clips) if i % 5 != number % 5]
            chosen = [keys[i] for i in fold]
            theirs, scaler = timed(sklearn_fit, [arrays[i] for i in fold])
            seconds, state = timed(lambda: prepared.fit_sums(store.sums(chosen)))
            first.append(theirs / seconds)
            seconds, state = timed(lambda: prepared.fit_sums(store.sums(chosen)))
            again.append(theirs / seconds)
            assert np.allclose(state["mean"].ravel(), scaler.mean_, rtol=1e-5) and np.allclose(state["deviation"].ravel(), scaler.scale_, rtol=1e-5)
            batch = np.empty((32, 1, 64, 200), np.float32)

            def gather(step, rounds=20):
                for r in range(rounds):
                    for place, key in enumerate(chosen[32 * r:32 * r + 32]):
                        row = Array(store.read(key, (0, 200)).data, axis=Axis(0.01))
                        batch[place] = chain.run(row, 1, 2, {1: state}).data if step else row.data

            pair = [timed(gather, step)[0] for step in ((True, False), (False, True))[number % 2]]
            apply.append(pair[0] / pair[1] if number % 2 == 0 else pair[1] / pair[0])
        print(f"{options.clips} clips, folds of four fifths; median ratio (range) of {options.rounds} rounds")
        told("fit: times sklearn partial_fit, sums from disk", first)
        told("fit: times sklearn partial_fit, again", again)
        told("apply: time against the bare gather", apply)


if __name__ == "__main__":
    main()
