"""Every balancer in an experiment through the public door: it trains, continues to the same bits, and knows its tasks' labels
lack."""

from __future__ import annotations

import math

import pytest
import torch
from mtcore_balancers.hooks import GRAMIAN, LOSSES, MEMORY, TORCHJD

import mtcore
from mtcore.progress import Progress

NAMES = [name for table in (LOSSES, TORCHJD, GRAMIAN, MEMORY) for name, _ in table.values()]


class Stop(Progress):
    """Interrupts after the first epoch."""

    def track(self, items, total, label):
        yield from items
        if "epoch 2" in label:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make(tmp_path, cache):
    def build(name, runs="runs", progress=None):
        content = {"name": "tones", "datasets": {"tones": {"reader": "core.tones"}, "chords": {"reader": "core.chords"}},
                   "inputs": {"main": {"extractor": "core.spectrogram",
                                       "steps": ["core.standardize", {"use": "core.crop_or_pad", "length": 20}]}},
                   "split": {"folds": 1, "validation": 0.2},
                   "model": {"trunk": {"use": "core.mlp", "hidden": [8], "dropout": 0.1}},
                   "train": {"epochs": 2, "batch_size": 4, "accumulate": 2, "optimizer": {"use": "adam", "lr": 1e-3},
                             "balancer": f"balancers.{name}"}, "report": {"reporters": []}}
        return mtcore.Experiment(content, tmp_path, tmp_path / runs, cache, sample=16,
                                 **({"progress": progress} if progress else {}))

    return build


def state(run):
    return torch.load(run.folder.checkpoint("last"), weights_only=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_trained(make, name):
    [run] = make(name).run()
    assert run.folder.info["status"] == "done" and run.folder.info["config"]["train"]["balancer"]["use"] == f"balancers.{name}"
    losses = [line["value"] for line in run.folder.metrics() if line["part"] == "train" and line["metric"] == "loss"]
    assert len(losses) >= 4 and all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("name", ["random", "uncertainty", "dwa", "famo", "gradvac", "gradnorm", "db_mtl", "sdmgrad"])
def test_an_interrupted_run_continues_to_the_same_bits(make, name):
    """One of each sort of state: drawn, learned, per epoch, an optimizer's, by pair, by task, by parameter, with several
    batches."""
    [whole] = make(name, "whole").run()
    with pytest.raises(KeyboardInterrupt):
        make(name, "cut", Stop()).run()
    [cut] = make(name, "cut").run()
    one, two = state(whole), state(cut)
    assert all(torch.equal(x, y) for x, y in zip(one["model"].values(), two["model"].values()))
    assert repr(one["balancing"]) == repr(two["balancing"])
