"""What an experiment costs before its first training step: `mtcore check` on many clips, and a second run with all features stored.

    OMP_NUM_THREADS=1 python benchmarks/again.py [--clips 10000] [--rounds 5]

Clips of 0.5 s at 8 kHz, 16 bit, in a CSV file with 200 speakers. check: the whole command, the first time (files are digested) and later.
Second run: a fresh process, from just after `import torch` to the end of the first update of a run with other training parameters;
clips decoded meanwhile are counted. Beside the seconds, those of a processor: fewer where others use the machine.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

SECOND = """
import os, sys, time
import torch
start, processor = time.perf_counter(), time.process_time()
from torch.optim.optimizer import register_optimizer_step_post_hook
from mtcore import Experiment
from mtcore.extracting import fill
decoded, real = [], fill.decode
fill.decode = lambda audio: (decoded.append(audio), real(audio))[1]

def first(*given):
    print(time.perf_counter() - start, time.process_time() - processor, len(decoded), flush=True)
    os._exit(0)

register_optimizer_step_post_hook(first)
Experiment.from_file(sys.argv[1], {"train.batch_size": sys.argv[2]}, cache=sys.argv[3], runs_folder=sys.argv[4]).run()
"""


def spent():
    """Seconds of processors that processes took which have ended."""
    return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder, random = Path(folder), np.random.default_rng(0)
        (folder / "data").mkdir()
        lines = ["path,label,speaker"]
        for number in range(given.clips):
            soundfile.write(folder / "data" / f"{number}.wav", random.standard_normal(4000) * 0.1, 8000, subtype="PCM_16")
            lines.append(f"{number}.wav,{'abcd'[number % 4]},{number // 4 % 200}")
        (folder / "data" / "index.csv").write_text("\n".join(lines))
        file = folder / "again.toml"
        file.write_text(f'name = "again"\n[datasets.d]\nreader = "core.csv"\nroot = "{folder / "data"}"\ngroup = "speaker"\ntasks = ["label"]\n'
                        '[inputs.main]\nextractor = "core.spectrogram"\nsteps = ["core.standardize"]\n[model]\ntrunk = "core.mlp"\n'
                        '[split]\nfolds = 1\n[train]\nepochs = 1\n')

        def command(*arguments):
            start, processor = time.perf_counter(), spent()
            done = subprocess.run([sys.executable, "-m", "mtcore", *arguments, str(file), "--cache", str(folder / "cache"),
                                   "--runs", str(folder / "runs")], check=True, capture_output=True, text=True)
            return time.perf_counter() - start, spent() - processor, done.stdout.splitlines()[-1]

        print(f"{given.clips} clips, {given.rounds} rounds")
        print("check, first: {:.1f} s ({:.1f} s of processors), says {!r}".format(*command("check")))
        for _ in range(2):
            print("check, later: {:.1f} s ({:.1f} s of processors), says {!r}".format(*command("check")))
        print("extract: {:.1f} s ({:.1f} s of processors)".format(*command("extract")[:2]))
        found = []
        for number in range(given.rounds + 1):
            done = subprocess.run([sys.executable, "-c", SECOND, str(file), str(16 + number), str(folder / "cache"), str(folder / "runs")],
                                  check=True, capture_output=True, text=True)
            *seconds, decoded = done.stdout.split()[-3:]
            assert decoded == "0", done.stdout
            found.append([float(value) for value in seconds])
        for name, values in zip(("seconds", "seconds of a processor"), np.array(found[1:]).T):
            print(f"second run, torch imported to the first update, no clip decoded: {np.median(values):.2f} {name} "
                  f"({values.min():.2f} to {values.max():.2f})")


if __name__ == "__main__":
    main()
