"""Reading features back: memory and speed of the store against other ways to keep ragged arrays.

    OMP_NUM_THREADS=1 python benchmarks/store.py FOLDER [--gigabytes 20] [--rounds 21] [--matrices 20000]

FOLDER must have room. Peers that are not installed are left out: h5py, safetensors (Arrow comes with mtcore).

memory   growth of anonymous memory (RssAnon) of a fresh process, after imports, that opens a store and reads all rows in random order
batches  32 x 64 x 500 at random from ragged log-mel-like matrices of 64 bins and 450 to 650 frames, cut or filled with zeros; one
         thread. Each way is timed against the store, A B B A on the same batches, after both have read everything once, so that it
         lies in the page cache: needs some 12 GB of free memory. A ratio is of one round; medians and ranges over rounds
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from mtcore.extracting.chain import Array
from mtcore.extracting.store import Store, row_key, write_shard
from mtcore.plugin import Axis

BATCH, BINS, FRAMES, SHARD = 32, 64, 500, 64
MEMORY = """
import random, re, sys, time
from pathlib import Path
import numpy, torch, pyarrow.parquet
from mtcore.extracting.store import Store

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000

batch, before = numpy.zeros((32, 64, 500), numpy.float32), anonymous()
start = time.perf_counter()
store = Store(Path(sys.argv[1]), {})
opened, keys = time.perf_counter() - start, list(store.rows)
after = anonymous() - before
random.Random(0).shuffle(keys)
start, most = time.perf_counter(), 0
for i, key in enumerate(keys):
    store.read_into(batch[i % 32], key)
    if i % 1000 == 0:
        most = max(most, anonymous())
seconds = time.perf_counter() - start
size = sum(path.stat().st_size for path in Path(sys.argv[1]).glob("*.npy")) / 1e9
print(f"{size:.1f} GB, {len(keys)} rows: opened in {opened:.1f} s (+{after:.0f} MB), read in random order in {seconds:.0f} s "
      f"({size / seconds:.1f} GB/s); anonymous memory grew by {max(most, anonymous()) - before:.0f} MB at most")
"""


def matrices(count):
    rng = np.random.default_rng(0)
    for length in rng.integers(450, 651, count):
        yield rng.standard_normal((BINS, int(length)), dtype=np.float32)


def keys(count):
    return [row_key(f"{i:032x}") for i in range(count)]


def stored(folder, arrays, kind=np.float32):
    """A store of these arrays; what lies there is kept."""
    if not folder.exists():
        for first in range(0, len(arrays), SHARD):
            some = arrays[first:first + SHARD]
            write_shard(folder, {}, [(row_key(f"{first + i:032x}"), Array(a.astype(kind), None, Axis(0.01, 0.0))) for i, a in enumerate(some)])
    return Store(folder, {"dtype": np.dtype(kind).name})


def memory(folder, gigabytes):
    if not folder.exists():
        rng = np.random.default_rng(1)
        some = [rng.standard_normal((BINS, int(n)), dtype=np.float32) for n in rng.integers(450, 651, SHARD)]
        shards = round(gigabytes * 1e9 / sum(a.nbytes for a in some))
        for number in range(shards):
            write_shard(folder, {}, [(row_key(f"{number * SHARD + i:032x}"), Array(a, None, Axis(0.01, 0.0))) for i, a in enumerate(some)])
    done = subprocess.run([sys.executable, "-c", MEMORY, str(folder)], check=True, capture_output=True, text=True)
    print(done.stdout, flush=True)


def put(into, array):
    frames = min(array.shape[-1], FRAMES)
    into[:, :frames] = array[:, :frames]
    into[:, frames:] = 0


class Saved(torch.utils.data.Dataset):
    """One torch.save file per clip."""

    def __init__(self, folder, arrays):
        self.folder = folder
        if not folder.exists():
            folder.mkdir()
            for i, array in enumerate(arrays):
                torch.save(torch.from_numpy(array), folder / f"{i}.pt")

    def __getitem__(self, i):
        array = torch.load(self.folder / f"{i}.pt", weights_only=True)
        return torch.nn.functional.pad(array, (0, max(FRAMES - array.shape[-1], 0)))[:, :FRAMES]


def ways(folder, arrays):
    """By name: a function of indices that fills the batch."""
    names, batch = keys(len(arrays)), np.zeros((BATCH, BINS, FRAMES), np.float32)
    flat, half = stored(folder / "float32", arrays), stored(folder / "float16", arrays, np.float16)
    saved = Saved(folder / "saved", arrays)
    lengths = [array.shape[1] for array in arrays]
    starts = np.cumsum([0, *(array.size for array in arrays)])

    def gather(store):
        def fill(chosen):
            store.gather(batch, store.places(names)[chosen])
        return fill

    def from_flat(get):
        def fill(chosen):
            for into, i in zip(batch, chosen):
                put(into, get(i))
        return fill

    def loader(chosen):
        for _ in torch.utils.data.DataLoader(saved, batch_sampler=[list(chosen)]):
            pass

    found = {"mtcore": gather(flat), "mtcore, float16": gather(half), "copy of arrays in memory": from_flat(arrays.__getitem__),
             "DataLoader, torch.save each": loader}
    path = folder / "all.arrow"
    if not path.exists():
        kind = pa.schema([("x", pa.list_(pa.float32()))])
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, kind) as writer:
            for first in range(0, len(arrays), SHARD):
                some = arrays[first:first + SHARD]
                offsets = np.cumsum([0, *(a.size for a in some)]).astype(np.int32)
                values = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate([a.ravel() for a in some])))
                writer.write_batch(pa.record_batch([values], schema=kind))
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    columns = [reader.get_batch(i).column(0) for i in range(reader.num_record_batches)]
    found["Arrow, memory-mapped"] = from_flat(lambda i: columns[i // SHARD][i % SHARD].values.to_numpy().reshape(BINS, -1))
    try:
        import h5py
    except ImportError:
        print("h5py is not installed")
    else:
        path = folder / "flat.h5"
        if not path.exists():
            with h5py.File(path, "w") as file:
                data = file.create_dataset("x", (int(starts[-1]),), np.float32)
                for first in range(0, len(arrays), SHARD):
                    some = arrays[first:first + SHARD]
                    data[starts[first]:starts[first + len(some)]] = np.concatenate([a.ravel() for a in some])
        data = h5py.File(path)["x"]
        found["h5py, one flat dataset"] = from_flat(lambda i: data[starts[i]:starts[i + 1]].reshape(BINS, lengths[i]))
    try:
        from safetensors import safe_open
        from safetensors.numpy import save_file
    except ImportError:
        print("safetensors is not installed")
    else:
        (folder / "safe").mkdir(exist_ok=True)
        files = [folder / "safe" / f"{first}.safetensors" for first in range(0, len(arrays), SHARD)]
        for number, path in enumerate(files):
            if not path.exists():
                save_file({str(i): a for i, a in enumerate(arrays[number * SHARD:(number + 1) * SHARD])}, path)
        opened = [safe_open(path, "numpy") for path in files]
        found["safetensors, 64 each"] = from_flat(lambda i: opened[i // SHARD].get_tensor(str(i % SHARD)))
    return found


def clock(fill, batches):
    start = time.perf_counter()
    for chosen in batches:
        fill(chosen)
    return (time.perf_counter() - start) / len(batches)


def batches(folder, count, rounds):
    arrays = list(matrices(count))
    found, rng = ways(folder, arrays), np.random.default_rng(2)
    os.sync()  # what is written back meanwhile is not measured
    for name in ("float32", "float16"):
        print(f"{name}: {sum(path.stat().st_size for path in (folder / name).iterdir()) / 1e9:.2f} GB")
    ours = found.pop("mtcore")
    print(f"\n{count} matrices, {sum(a.nbytes for a in arrays) / 1e9:.1f} GB, {rounds} rounds of twice 8 batches\n\n"
          "| way | ms per batch | mtcore ms | time against mtcore | range |\n|---|---|---|---|---|")
    for name, fill in found.items():
        times = []
        for one in (fill, ours):
            clock(one, np.arange(count).reshape(-1, BATCH).tolist())
        for _ in range(rounds + 1):
            chosen = [rng.integers(0, count, BATCH).tolist() for _ in range(8)]
            a, b, c, d = (clock(one, chosen) for one in (ours, fill, fill, ours))
            times.append(((b + c) / 2, (a + d) / 2))
        theirs, own = np.array(times[1:]).T
        low, middle, high = np.quantile(theirs / own, [0, 0.5, 1])
        print(f"| {name} | {1e3 * np.median(theirs):.2f} | {1e3 * np.median(own):.2f} | {middle:.2f} | {low:.2f} to {high:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--matrices", type=int, default=20_000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if given.rounds:
        batches(given.folder, given.matrices, given.rounds)
    if given.gigabytes:
        memory(given.folder / f"memory-{given.gigabytes:g}", given.gigabytes)


if __name__ == "__main__":
    main()
