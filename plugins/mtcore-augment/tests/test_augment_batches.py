"""Mixup and cutmix: inputs and targets are mixed in the same shares, of tasks that both rows have."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_augment.batches import Cutmix, Mixup

import mtcore
from mtcore.plugin import Batch, Context, Task

TASKS = {"word": Task.multiclass("word", "abc"), "tags": Task.multilabel("tags", "xy"), "size": Task.regression("size"),
         "beep": Task.events("beep", ["beep"])}


def batch(size, seed, frames=40):
    """Row i holds i in every frame of its input, and each task has some of the rows."""
    rng = np.random.default_rng(seed)
    rows = {name: torch.from_numpy(np.flatnonzero(rng.random(size) < 0.7)) for name in TASKS}
    targets = {"word": torch.from_numpy(rng.integers(0, 3, len(rows["word"]))), "size": rows["size"].double().float(),
               "tags": torch.from_numpy(rng.integers(0, 2, (len(rows["tags"]), 2))).float(),
               "beep": rows["beep"].float()[:, None, None].expand(-1, 1, frames).contiguous()}
    x = torch.arange(size).float()[:, None, None, None].expand(size, 1, 3, frames).contiguous()
    return Batch({"main": x}, targets, rows, [f"d/{i}" for i in range(size)])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([Mixup, Cutmix]), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([0.05, 1.0, 5.0]))
def test_targets_follow_the_inputs(kind, size, seed, alpha):
    before = batch(size, seed)
    prepared = kind(alpha=alpha).prepare(Context((), tasks=TASKS))
    after = prepared.apply(before, {}, np.random.default_rng(seed))
    again = prepared.apply(batch(size, seed), {}, np.random.default_rng(seed))
    assert torch.equal(after.inputs["main"], again.inputs["main"]) and torch.equal(before.inputs["main"], batch(size, seed).inputs["main"])
    mean = after.inputs["main"].mean((1, 2, 3))  # share * i + (1 - share) * partner
    for name, rows in after.rows.items():
        assert set(rows.tolist()) <= set(before.rows[name].tolist()) and len(after.targets[name]) == len(rows) > 0
    if "size" in after.rows:
        assert torch.allclose(after.targets["size"], mean[after.rows["size"]], atol=(size / 80 if kind is Cutmix else 1e-4))
    if "beep" in after.rows:
        heard = after.inputs["main"][after.rows["beep"], :, 0]
        assert torch.allclose(after.targets["beep"], heard)
    if "word" in after.rows:
        assert torch.allclose(after.targets["word"].sum(1), torch.ones(len(after.rows["word"])))
    if "tags" in after.rows:
        assert 0 <= float(after.targets["tags"].min()) and float(after.targets["tags"].max()) <= 1


def test_a_task_that_no_pair_shares_is_left_out():
    one = Batch({"main": torch.ones(2, 1, 4)}, {"size": torch.ones(1)}, {"size": torch.tensor([0])}, ["a", "b"])
    prepared = Mixup().prepare(Context((), tasks={"size": TASKS["size"]}))
    drawn = [prepared.apply(one, {}, np.random.default_rng(seed)) for seed in range(20)]
    assert {len(found.rows) for found in drawn} == {0, 1}  # alone with itself, or with a row without the task


@pytest.mark.parametrize("use", ["mixup", "cutmix"])
def test_an_experiment_with_mixed_batches(tmp_path, use):
    experiment = mtcore.Experiment({
        "name": "mixed", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 24}},
        "chords": {"reader": {"use": "core.chords", "count": 24}}},
        "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}}, "split": {"folds": 1, "validation": 0.2},
        "model": {"trunk": {"use": "core.cnn", "channels": [4]}}, "train": {"epochs": 2, "batch_size": 8}, "report": {"reporters": []},
        "batch": {"steps": [{"use": f"augment.{use}", "p": 0.5}]}}, tmp_path, cache=tmp_path / "cache")
    assert any("first losses" in line for line in experiment.check())
    run, = experiment.run()
    assert run.done and {step["use"] for step in run.folder.info["config"]["batch"]} == {f"augment.{use}"}
