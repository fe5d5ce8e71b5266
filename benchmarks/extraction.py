"""From wav files to stored log-mel features, with resampling: one core against librosa, and what the second core adds.

    OMP_NUM_THREADS=1 python benchmarks/extraction.py [--clips 200] [--seconds 10] [--rounds 7]

One core: files of 48 kHz, 16 bit, mono ─► 16 kHz ─► log-mel ─► stored; theirs: librosa.load (soxr_hq) + melspectrogram + power_to_db, one
npy file per clip. Both cores: --jobs 2 against --jobs 1, beside what two processes that only count gain over one, in the same round.
"""

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import librosa
import numpy as np
import soundfile

from mtcore.clip import File
from mtcore.extracting.chain import Chain
from mtcore.extracting.fill import Wanted, fill, rows_of
from mtcore.extracting.store import Store
from mtcore.plugin.registry import get_registry


def ours(files, folder, jobs=1):
    registry = get_registry()
    chain = Chain((registry.make_step("core.mono"), registry.make_step({"use": "features.resample", "rate": 16000}),
                   registry.make_step("features.logmel", kinds=("extractor",))))
    store = Store(folder / chain.key, chain.prefix)
    want = Wanted(chain, store, {rows_of(f"{number:032x}", File(path)): (path.name, File(path)) for number, path in enumerate(files)})
    failed = fill([want], jobs=jobs)
    assert not failed and len(store.rows) == len(files)


def theirs(files, folder):
    folder.mkdir()
    for path in files:
        x, rate = librosa.load(path, sr=16000)
        mel = librosa.feature.melspectrogram(y=x, sr=rate, n_fft=512, win_length=400, hop_length=160, n_mels=64)
        np.save(folder / f"{path.stem}.npy", librosa.power_to_db(S=mel))


def count(number=12_000_000):
    while number:
        number -= 1


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def spun(processes):
    def run():
        workers = [multiprocessing.Process(target=count) for _ in range(processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return timed(run)


def told(name, ratios):
    print(f"{name:34} {statistics.median(ratios):5.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


def main():
    parser = argparse.ArgumentParser()
    for name, default in (("clips", 200), ("seconds", 10), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        place, files = Path(place), []
        for number in range(options.clips):
            files.append(place / f"{number}.wav")
            noise = np.random.default_rng(number).standard_normal(48000 * options.seconds) * 0.1
            soundfile.write(files[-1], noise, 48000, subtype="PCM_16")
        ours(files[:4], place / "warm")
        theirs(files[:4], place / "warm-theirs")

        def fresh(function, *more):
            folder = place / "work"
            seconds = timed(function, files, folder, *more)
            shutil.rmtree(folder)
            return seconds

        against, gain, capacity = [], [], []
        for number in range(options.rounds):
            pair = [(ours, theirs), (theirs, ours)][number % 2]
            seconds = {function: fresh(function) for function in pair}
            against.append(seconds[theirs] / seconds[ours])
            one, two = fresh(ours, 1), fresh(ours, 2)
            gain.append(one / two)
            capacity.append(2 * spun(1) / spun(2))
        print(f"{options.clips} files of {options.seconds} s, {options.rounds} rounds: median ratio (range)")
        told("times librosa, one core", against)
        told("two jobs against one", gain)
        told("what two spinning processes gain", capacity)
        told("share of that", [a / b for a, b in zip(gain, capacity)])


if __name__ == "__main__":
    main()
