"""A run that is cut off at any update continues to the bits of an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mtcore.training.gradient import GradientRun, load_checkpoint


class Cut(Exception):
    """In place of a kill."""


@pytest.fixture
def cut(monkeypatch):
    """`cut(n)`: the n-th update from now on does not happen; `cut(None)`: all do."""
    whole, left = GradientRun.one_update, [None]

    def one_update(self, micro, total):
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Cut
        whole(self, micro, total)

    monkeypatch.setattr(GradientRun, "one_update", one_update)
    return lambda number: left.__setitem__(0, number)


def told(run):
    """Figures and weights of both checkpoints."""
    weights = [load_checkpoint(run.folder.checkpoint(name)) for name in ("best", "last")]
    return (run.folder.path / "metrics.jsonl").read_text(), [state["model"] for state in weights], [state["optimizer"] for state in weights]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("options", [
    {"sampler": "mixed"}, {"sampler": "proportional", "accumulate": 2}, {"sampler": "alternating", "epochs": None, "updates": 11},
    {"sampler": "mixed", "workers": 2, "scheduler": {"use": "cosine", "warmup": 3}},
    {"trainer": {"use": "trainers.pretrain_finetune", "stages": [{"epochs": 1}, {"epochs": 2, "freeze": ["trunks.*"]}]}, "epochs": None,
     "balancer": "balancers.pcgrad"}], ids=str)
def test_cut_at_any_update(make, generated, cut, options):
    content = {"datasets": {"a": {"reader": generated(missing=3)}, "b": {"reader": generated(offset=100, clips_=9)}},
               "split": {"folds": 1, "validation": 0.2}, "model": {"trunk": {"use": "core.mlp", "hidden": [8], "dropout": 0.3}}}
    train = {"epochs": 3, "batch_size": 4, "save": {"updates": 1}, **options}
    train = {key: value for key, value in train.items() if value is not None}
    whole, = make(runs="whole", **content, train=train).run()
    for number in (1, 2, 4):
        cut(number)
        with pytest.raises(Cut):
            make(runs="cut", **content, train={**train, "workers": number % 2}).run()
    cut(None)
    continued, = make(runs="cut", **content, train=train).run()
    assert continued.name == whole.name and same(told(continued), told(whole))
    assert "updates" in (continued.folder.path / "run.log").read_text()


def test_cut_within_an_epoch_that_is_no_longer_wanted(make, cut):
    """The checkpoint is ahead of the new length: trained anew, to what that length gives from the start."""
    train = {"epochs": 3, "batch_size": 8, "save": {"updates": 1}}
    whole, = make(runs="whole", split={"folds": 1}, train={**train, "epochs": 1}).run()
    updates = max(line["update"] for line in whole.folder.metrics())
    cut(updates + 1)
    with pytest.raises(Cut):
        make(runs="cut", split={"folds": 1}, train=train).run()
    cut(None)
    fewer, = make(runs="cut", split={"folds": 1}, train={**train, "epochs": 1}).run()
    assert same(told(fewer), told(whole))


FILE = """
name = "killed"
[datasets.tones]
reader = {use = "core.tones", count = 60}
[datasets.chords]
reader = {use = "core.chords", count = 40}
[inputs.main]
extractor = {use = "core.spectrogram", hop = 0.03}
steps = ["core.standardize"]
[split]
folds = 1
[model]
trunk = {use = "core.cnn", channels = [4, 8]}
[train]
epochs = 6
batch_size = 4
sampler = "proportional"
save = {updates = 1}
[report]
reporters = []
"""


def test_killed_within_epochs(tmp_path):
    """SIGKILL, whatever the process is at; the same command again until it is done."""
    (tmp_path / "killed.toml").write_text(FILE)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MTCORE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "mtcore", "run", str(tmp_path / "killed.toml"), "--runs"]
    subprocess.run([*command, str(tmp_path / "whole")], env=environment, check=True, capture_output=True)
    log, kills = tmp_path / "cut" / "killed", 0
    for delay in (0.05, 0.3, 0.6):
        process = subprocess.Popen([*command, str(tmp_path / "cut")], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = [path.stat().st_mtime_ns for path in log.glob("*/checkpoints/last.pt")]
        while process.poll() is None and [path.stat().st_mtime_ns for path in log.glob("*/checkpoints/last.pt")] == before:
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 3
    subprocess.run([*command, str(tmp_path / "cut")], env=environment, check=True, capture_output=True)
    (whole,), (cut,) = ((tmp_path / name / "killed").glob("run*") for name in ("whole", "cut"))
    assert (whole / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text()
    assert same(*(load_checkpoint(path / "checkpoints" / "last.pt")["model"] for path in (whole, cut)))
