"""A whole model by import path, in place of trunks and heads."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODEL = """
import torch

class Net(torch.nn.Module):
    def __init__(self, shapes, tasks):
        super().__init__()
        self.shared = torch.nn.Linear(shapes["main"][1], 8)
        self.outputs = torch.nn.ModuleDict({name: torch.nn.Linear(8, len(task.labels) or 1) for name, task in tasks.items()})

    def forward(self, inputs, lengths=None, rows=None):
        vector = self.shared(inputs["main"].mean((1, 3))).relu()
        return {name: output(vector[rows[name]]) for name, output in self.outputs.items() if name in rows}
"""
FILE = """
name = "own"
[datasets.tones]
reader = {use = "core.tones", count = 40}
tasks = ["timbre"]
[datasets.chords]
reader = {use = "core.chords", count = 20}
[inputs.main]
extractor = {use = "core.spectrogram", hop = 0.05}
[split]
folds = 1
validation = 0.2
[model]
module = "nets:Net"
[train]
epochs = 2
[report]
reporters = []
"""


@pytest.fixture
def mtcore(tmp_path):
    (tmp_path / "nets.py").write_text(MODEL)
    (tmp_path / "own.toml").write_text(FILE)

    def call(*arguments):
        done = subprocess.run([sys.executable, "-m", "mtcore", "--cache", "cache", *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def test_check_run_draw_and_predict(mtcore, tmp_path):
    assert "first losses" in mtcore("check", "own.toml") and "outputs" in mtcore("info", "own.toml")
    mtcore("run", "own.toml")
    run, = (tmp_path / "runs" / "own").iterdir()
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "new.wav", np.random.default_rng(0).standard_normal(16000) * 0.1, 8000)
    told = mtcore("predict", str(run), "new.wav", "--trust")
    assert "timbre" in told and "notes" in told
    mtcore("run", "own.toml")
    (tmp_path / "nets.py").write_text(MODEL.replace("relu", "tanh"))
    mtcore("run", "own.toml")
    assert len(list((tmp_path / "runs" / "own").iterdir())) == 2  # another source is another run
