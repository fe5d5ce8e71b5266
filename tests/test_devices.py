"""Networks on a device that is not the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtcore.runfolder import RunFolder
from mtcore.training.gradient import load_checkpoint

FAR = Path(__file__).parent / "extras" / "far.py"
FILE = """
name = "far"
[datasets.tones]
reader = {{use = "core.tones", count = 24}}
[datasets.chords]
reader = {{use = "core.chords", count = 12}}
[inputs.main]
extractor = {{use = "core.spectrogram", hop = 0.05}}
steps = ["core.standardize"]
[split]
folds = 1
validation = 0.2
[model]
trunk = {{use = "core.cnn", channels = [4, 6], dropout = 0.3}}
[tasks.timbre]
loss = {{use = "core.cross_entropy", class_weights = "balanced"}}
[train]
epochs = 2
batch_size = 8
save = {{updates = 1}}
{train}
[report]
reporters = []
"""


def ran(tmp_path, name, start, train):
    """What the command says, and the run's folder."""
    (tmp_path / f"{name}.toml").write_text(FILE.format(train=train))
    done = subprocess.run([sys.executable, *start, "run", str(tmp_path / f"{name}.toml"), "--runs", str(tmp_path / name)], capture_output=True,
                          text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "MTCORE_CACHE": str(tmp_path / "cache")})
    return done, next((tmp_path / name).glob("far/*"), None)


@pytest.mark.parametrize("train", ["average = 0.9\ninspect = 2", "balancer = 'balancers.uncertainty'\naccumulate = 2",
                                   "balancer = 'balancers.moco'", "balancer = 'balancers.gradvac'",
                                   "trainer = {use = 'lookahead.lookahead', every = 2}"])
def test_on_a_device_as_on_the_cpu(tmp_path, train):
    found = {}
    for name, start in (("far", [FAR]), ("near", ["-m", "mtcore"])):
        done, folder = ran(tmp_path, name, start, train)
        assert done.returncode == 0, done.stderr
        found[name] = load_checkpoint(folder / "checkpoints" / "last.pt")["model"], RunFolder(folder).metrics("test")
    (far, figures), (near, expected) = found["far"], found["near"]
    assert far.keys() == near.keys() and all(torch.equal(far[key], near[key]) for key in far)
    assert figures == expected and figures


@pytest.mark.parametrize(("start", "there"), [([FAR], "auto, cpu, far, far:0"), (["-m", "mtcore"], "auto, cpu")])
def test_a_device_that_is_not_there(tmp_path, start, there):
    done, _ = ran(tmp_path, "wrong", start, 'device = "cuda:1"')
    assert done.returncode and f"train.device: expected one of {there}, which torch finds here; found 'cuda:1'" in done.stderr
