"""Clips of different lengths in one batch: padded with zeros that neither outputs nor losses see."""

from __future__ import annotations

import re

import pytest
import torch

from mtcore.errors import ExperimentError, TrainingError
from mtcore.training.evaluate import predict


@pytest.fixture
def uneven(make, generated):
    """Clips of one and of two seconds; with beeps, events too."""
    def build(**changes):
        chosen = changes.pop("chosen", ("label",))
        datasets = {name: {"reader": generated(seconds=seconds, offset=offset, chosen=chosen)} for name, seconds, offset in
                    (("a", 2.0, 0), ("b", 3.5, 100))}
        return make(**{"datasets": datasets, "model": {"trunk": {"use": "core.cnn", "channels": [4, 8]}}, **changes})
    return build


@pytest.mark.parametrize("chosen", [("label",), ("size", "beep")])
def test_a_row_in_a_padded_batch_is_as_it_is_alone(uneven, chosen):
    experiment = uneven(chosen=chosen)
    experiment.extract()
    run = experiment.runs()[0]
    data = run.data()
    rows, model = data.rows("train"), run.model(data).eval()
    losses = run.setup(data, experiment.progress).losses
    chosen_rows = [0, 1, len(rows) - 2, len(rows) - 1]
    together = rows.batch(chosen_rows)
    shapes = {tuple(rows.batch([row]).inputs["main"].shape[1:]) for row in chosen_rows}
    assert len(shapes) == 2 and together.lengths["main"].tolist() == [rows.batch([row]).inputs["main"].shape[-1] for row in chosen_rows]
    with torch.no_grad():
        output = model(together.inputs, together.lengths, together.rows)
        for place, row in enumerate(chosen_rows):
            alone = rows.batch([row])
            assert alone.lengths is None
            single = model(alone.inputs, alone.lengths, alone.rows)
            for task in chosen:
                frames = single.tasks[task].shape[-1] if task == "beep" else None
                found = output.tasks[task][place:place + 1, ..., :frames] if frames else output.tasks[task][place:place + 1]
                assert torch.allclose(found, single.tasks[task], atol=1e-5)
                assert torch.allclose(losses[task](output.tasks[task], together.targets[task], together)[place],
                                      losses[task](single.tasks[task], alone.targets[task], alone)[0], atol=1e-5)


def test_figures_do_not_depend_on_which_clips_share_a_batch(uneven):
    """Events of a clip that was padded lie where they lie alone."""
    experiment = uneven(chosen=("size", "beep"), inputs={"main": {"extractor": {"use": "core.spectrogram", "hop": 0.03},
        "steps": ["core.standardize"]}})
    experiment.extract()
    run = experiment.runs()[0]
    data = run.data()
    model, setup = run.model(data), run.setup(data, experiment.progress)
    alone, together = (predict(model, setup.heads, setup.losses, data.rows("train"), size) for size in (1, 64))
    assert alone[1] == pytest.approx(together[1], rel=1e-4)
    one, other = alone[0]["beep"], together[0]["beep"]
    assert one.clips == other.clips and len({scores.shape for scores in one.scores}) == 2
    assert all(a.shape == b.shape and abs(a - b).max() < 1e-5 for a, b in zip(one.scores, other.scores))
    assert one.decided == other.decided


def test_events_of_the_shorter_clips_only(make, generated):
    """The longest clip of a batch has no events: the others' still lie where they lie alone."""
    experiment = make(datasets={"a": {"reader": generated(chosen=("beep",))}, "b": {"reader": generated(seconds=3.5, offset=100)}},
                      inputs={"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}},
                      model={"trunk": {"use": "core.cnn", "channels": [4, 8]}})
    experiment.extract()
    run = experiment.runs()[0]
    data = run.data()
    model, setup, rows = run.model(data).eval(), run.setup(data, experiment.progress), data.rows("train")
    mixed, alone = rows.batch([0, len(rows) - 1]), rows.batch([0])
    assert mixed.targets["beep"].shape[-1] == mixed.inputs["main"].shape[-1] > alone.inputs["main"].shape[-1]
    losses = [setup.losses["beep"](model(one.inputs, one.lengths, one.rows).tasks["beep"], one.targets["beep"], one) for one in (mixed, alone)]
    assert torch.allclose(*losses, atol=1e-5)


def test_a_run_over_clips_of_different_lengths(uneven):
    run, = [run for run in uneven(split={"folds": 1, "validation": 0.2}, chosen=("label", "beep")).run()]
    assert run.done and {"label", "beep"} == set(run.folder.info["tasks"])


def test_a_network_of_one_size_refuses_them(uneven):
    with pytest.raises(ExperimentError, match="mlp needs inputs of one size"):
        uneven(model={"trunk": "core.mlp"}).check()


def test_what_differs_in_more_than_time_is_refused(make, generated):
    experiment = make(datasets={"a": {"reader": generated()}, "b": {"reader": generated(offset=100), "inputs": {"main": {
        "extractor": {"use": "core.spectrogram", "fft": 128}}}}}, model={"trunk": "core.cnn"},
        inputs={"main": {"extractor": "core.spectrogram"}})
    with pytest.raises(ExperimentError, match="one shape but for their length in time, found a/.*b/"):
        experiment.check()


def test_workers_give_the_same_batches_in_order(uneven):
    experiment = uneven(signal={"steps": []}, inputs={"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}})
    experiment.extract()
    rows = experiment.runs()[0].data().rows("train")
    drawn = [[0, 3, len(rows) - 1], [2], [5, 1]]
    before = torch.random.get_rng_state()
    for a, b in zip(rows.batches(drawn), rows.batches(drawn, workers=2), strict=True):
        assert a.clips == b.clips and torch.equal(a.inputs["main"], b.inputs["main"])
        assert torch.equal(a.targets["label"], b.targets["label"]) and str(a.rows) == str(b.rows)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_loss_that_is_not_finite_names_its_clip(make):
    experiment = make(split={"folds": 1}, train={"epochs": 1})
    experiment.extract()
    run = experiment.runs()[0]
    data = run.data()
    model, setup, rows = run.model(data), run.setup(data, experiment.progress), data.rows("train")
    bad = rows.key(len(rows) // 2)
    losses = {name: lambda raw, target, batch: torch.tensor([float("nan") if clip == bad else 1.0 for clip in batch.clips])
              for name in setup.losses}
    with pytest.raises(TrainingError, match=rf"not finite for train clips {re.escape(bad)}: the network"):
        predict(model, setup.heads, losses, rows, 4)
