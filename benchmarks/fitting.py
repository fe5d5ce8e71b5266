"""Fitting a standardizer on a fold, and applying it to batches of log-mel.

    OMP_NUM_THREADS=1 python benchmarks/fitting.py [--clips 2000] [--rounds 7]

Fit: from the sums that the store keeps beside the features, against sklearn's StandardScaler with partial_fit over the clips, both from
arrays of 64 bins and 200 to 600 frames; first with the sums read from disk, then again for another fold. Apply: batches of 32 out of
`Rows.batch`, as training reads them, of 64 bins and 500 frames, with the step against without it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from sklearn.preprocessing import StandardScaler

from mtcore.builtin.preparers import Standardize
from mtcore.clip import Clip, File
from mtcore.extracting.chain import Array, Chain
from mtcore.extracting.store import Store, write_shard
from mtcore.plugin import Axis, Context, Task
from mtcore.plugin.registry import get_registry
from mtcore.preparing.data import RunData
from mtcore.preparing.inputs import Input


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


def applied(folder, clips, rounds):
    """Ratios of the time that batches take with the step and without."""
    random, registry, keys = np.random.default_rng(1), get_registry(), [f"{number:032x}:0:" for number in range(clips)]
    for start in range(0, clips, 64):
        write_shard(folder, {}, [(key, Array((random.standard_normal((1, 64, 500)) * 10 - 40).astype(np.float32), axis=Axis(0.01)))
                                 for key in keys[start:start + 64]])
    waveform, standardize = registry.make_step("core.waveform", kinds=("extractor",)), registry.make_step("core.standardize")
    task = Task.multiclass("label", ["a", "b"])
    dataset = SimpleNamespace(name="d", clips=[Clip(str(i), File("none"), {"label": "ab"[i % 2]}) for i in range(clips)], tasks={"label": task},
                              key=lambda i: f"d/{i}")
    rows, ratios = [], []
    for steps in ((waveform,), (waveform, standardize)):
        chain = Chain(steps)
        data = RunData([dataset], {"label": task}, {"d": {"main": Input(chain, Store(folder, {}), keys)}}, {"d": np.zeros(clips, int)},
                       {"d": np.arange(clips)})
        data.fit()
        rows.append(data.rows("train"))

    def read(one, drawn):
        for chosen in drawn:
            one.batch(chosen)

    for one in rows:
        read(one, np.arange(clips // 32 * 32).reshape(-1, 32))
    for _ in range(3 * rounds):
        drawn = [random.integers(0, clips, 32).tolist() for _ in range(20)]
        bare, step, again, last = (timed(read, rows[i], drawn)[0] for i in (0, 1, 1, 0))
        ratios.append((step + again) / (bare + last))
    return ratios


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    arrays = [(random.standard_normal((1, 64, int(random.integers(200, 600)))) * 10 - 40).astype(np.float32) for _ in range(options.clips)]
    keys = [f"{number:032x}:0:" for number in range(options.clips)]
    prepared = Standardize().prepare(Context((1, 64, None), axis=Axis(0.01)))
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, options.clips, 64):
            write_shard(Path(folder), {}, [(key, Array(array, axis=Axis(0.01)))
                                            for key, array in zip(keys[start:start + 64], arrays[start:start + 64])])
        first, again = [], []
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
        print(f"{options.clips} clips, folds of four fifths; median ratio (range) of {options.rounds} rounds")
        told("fit: times sklearn partial_fit, sums from disk", first)
        told("fit: times sklearn partial_fit, again", again)
        told("apply: time against the bare gather", applied(Path(folder) / "even", options.clips, options.rounds))


if __name__ == "__main__":
    main()
