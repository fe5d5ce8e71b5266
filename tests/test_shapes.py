"""Four small experiments that keep the interfaces wide: several inputs, events in windows, steps that draw, missing labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mtcore.plugin import Preparer, param

CNN1D = {"use": "core.cnn1d", "inputs": ["wave"]}


@dataclass(frozen=True, kw_only=True)
class Noise(Preparer):
    """White noise."""

    random = True
    level: float = param(0.1, help="standard deviation")

    def prepare(self, context):
        return context.then(lambda x, state, rng: x + rng.standard_normal(x.shape).astype(np.float32) * self.level)


def weights(run):
    return torch.load(run.folder.checkpoint("last"), weights_only=True)["model"]


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_two_inputs_at_different_rates_go_into_two_trunks(make):
    experiment = make(
        inputs={"wave": {"extractor": "core.waveform"},
                "spec": {"signal": [{"use": "features.resample", "rate": 1000}], "extractor": {"use": "core.spectrogram"},
                         "steps": ["core.standardize"]}},
        model={"trunks": {"fast": CNN1D, "slow": {"use": "core.mlp", "hidden": [8], "inputs": ["spec"]}}}, split={"folds": 1})
    [run] = experiment.run()
    data = run.data()
    shapes = data.check_shapes()
    assert shapes["wave"] == (1, 1000)
    batch = data.rows("train").batch([0, 1, 2])
    assert {name: tuple(tensor.shape[1:]) for name, tensor in batch.inputs.items()} == shapes
    chains = data.inputs["a"]
    assert chains["wave"].store.read(chains["wave"].keys[0]).axis.hop == pytest.approx(1 / 2000)
    model = run.model(data)
    assert set(model.trunks) == {"fast", "slow"}
    assert run.folder.info["status"] == "done"


def test_events_with_overlapping_windows_are_stitched_per_clip(make, generated):
    experiment = make(
        datasets={"a": {"reader": generated(clips_=48, seconds=4.0, chosen=("beep",))}},
        inputs={"main": {"extractor": {"use": "core.spectrogram"},
                         "steps": ["core.standardize", {"use": "features.window", "length": "1.9s", "hop": "1s"}]}},
        model={"trunk": {"use": "core.cnn", "channels": [8, 8]}}, split={"folds": 1, "test": 0.25, "validation": 0.1},
        train={"epochs": 12, "batch_size": 8, "optimizer": {"use": "adam", "lr": 1e-2}})
    [run] = experiment.run()
    data, found = run.data(), run.folder.load_predictions("best")["test"]["beep"]
    rows = data.rows("test")
    assert len(rows) == 3 * len(data.clips("test"))  # from 0, 1 and 2 s on
    assert len(found.clips) == len(set(found.clips)) == len(data.clips("test"))
    score = {line["metric"]: line["value"] for line in run.folder.metrics() if line["part"] == "test" and line["checkpoint"] == "best"}
    assert score["f1_segment"] > 0.8
    one = rows.batch([0, 1, 2])
    hop = data.inputs["a"]["main"].store.read(data.inputs["a"]["main"].keys[0]).axis.hop
    # the second window shows the last second of the first one, and its targets move along
    moved = round(1.0 / hop)
    assert torch.equal(one.targets["beep"][0][:, moved:], one.targets["beep"][1][:, :one.targets["beep"].shape[-1] - moved])


def test_a_random_signal_step_moves_the_cut_and_draws_anew_each_epoch(make):
    noisy = {"signal": {"steps": [Noise(level=0.2)]}, "split": {"folds": 1}}
    experiment = make(**noisy)
    chain = experiment.runs()[0].builder.chain("a", "main")
    assert chain.cut == 0 and "random" in chain.reason
    [run] = experiment.run()
    rows = run.data().rows("train")
    first = rows.batch([0]).inputs["main"]
    rows.epoch = 1
    second = rows.batch([0]).inputs["main"]
    assert not torch.equal(first, second)
    rows.epoch = 0
    assert torch.equal(first, rows.batch([0]).inputs["main"])
    test = run.data().rows("test")
    calm = test.batch([0]).inputs["main"]
    test.epoch = 1
    assert torch.equal(calm, test.batch([0]).inputs["main"])
    # one epoch, then the second one: as if never interrupted
    [short] = make(runs="other", **noisy, train={"epochs": 1, "batch_size": 8}).run()
    [more] = make(runs="other", **noisy).run()
    assert short.folder.path == more.folder.path
    assert same(weights(run), weights(more))


@pytest.mark.parametrize("batch_size,accumulate", [(4, 3), (3, 4)])
def test_missing_labels_with_accumulation_equal_one_large_batch(make, generated, batch_size, accumulate):
    changes = {"datasets": {"a": {"reader": generated(chosen=("label", "size"), missing=2)}}, "split": {"folds": 1, "validation": 0.0},
               "model": {"trunk": {"use": "core.mlp", "hidden": [16], "batch_norm": False, "dropout": 0.0}}}
    train = {"epochs": 3, "optimizer": {"use": "sgd", "lr": 0.01}}
    [large] = make(**changes, train=train | {"batch_size": 12}).run()
    [small] = make(**changes, train=train | {"batch_size": batch_size, "accumulate": accumulate}).run()
    one, other = weights(large), weights(small)
    assert large.folder.path != small.folder.path
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
