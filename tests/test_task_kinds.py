"""Tasks of every kind: arrays and tasks without targets, thresholds that validation teaches, and all kinds in one run."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
import torch

from mtcore.builtin.heads import Array, Frames, Linear
from mtcore.builtin.losses import MeanAbsoluteError, MeanSquaredError
from mtcore.builtin.metrics import Events, Multilabel
from mtcore.errors import DataError, MtcoreError
from mtcore.plugin import (
    Batch,
    Clip,
    Event,
    File,
    Lazy,
    ParameterError,
    Predictions,
    Reader,
    Representation,
    RepresentationShape,
    Statistics,
    Task,
    TrainingError,
    param,
)

RATE = 1000
SHAPE = RepresentationShape(6, 5, 4)


def wave(number: int):
    """A tone whose height says its class, of a length of its own, with a burst of noise in it."""
    time = np.arange(RATE // 2 + 40 * (number % 4)) / RATE
    rng = np.random.default_rng(number)
    sound = np.sin(2 * np.pi * (60 + 90 * (number % 3)) * time) + 0.05 * rng.standard_normal(len(time))
    sound[100 * (number % 4):100 * (number % 4) + 100] += rng.standard_normal(100)
    return sound.astype(np.float32)[None], RATE


def louder(number: int) -> np.ndarray:
    """What the task `clean` asks for: the same, twice as loud."""
    return 2 * wave(number)[0]


@dataclass(frozen=True, kw_only=True)
class Everything(Reader):
    """Clips of three classes with targets of every kind; some lack some."""

    generated = True
    default_group = "take"
    chosen: tuple[str, ...] = param(help="tasks")
    clips_: int = param(36, help="number of clips")
    offset: int = param(0, help="number of the first clip")
    folder: str = param("", help="where the task `clean` has its files; empty: it has arrays")

    def tasks(self, root):
        known = [Task.binary("high"), Task.multiclass("height", ("low", "middle", "top")),
                 Task.multilabel("tags", ("low", "odd")),
                 Task.regression("pitch", "Hz"), Task.events("burst", ("burst",)), Task.array("clean", (1, None)),
                 Task.array("profile", (2, 3)), Task.none("again")]
        return [task for task in known if task.name in self.chosen]

    def clips(self, root):
        for i in range(self.offset, self.offset + self.clips_):
            at = 100 * (i % 4) / RATE
            targets = {"high": i % 3 == 2, "height": ("low", "middle", "top")[i % 3], "pitch": 60.0 + 90 * (i % 3),
                       "tags": {name for name, has in (("low", i % 3 == 0), ("odd", i % 2)) if has},
                       "burst": [Event(at, at + 0.1, "burst")], "profile": np.full((2, 3), i % 3, np.float32)}
            if "clean" in self.chosen:
                targets["clean"] = louder(i) if not self.folder else File(f"{self.folder}/{i}.wav")
            targets = {name: target for n, (name, target) in enumerate(targets.items()) if name in self.chosen and (i + n) % 5}
            yield Clip(f"c{i}", Lazy(wave, (i,), key=f"everything-{i}"), targets, {"take": f"e:{i}"})


WAVES = {"main": {"extractor": "core.waveform"}}


def losses(kind, output, target, task):
    return kind.build(task, Statistics(len(output)))(output, target, Batch({}, {}, {}, []))


# The head and the losses of arrays ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes, expected", [((3, 4), (2, 3, 4)), ((), (2,)), ((7,), (2, 7)), ((3, None), (2, 3, 40)),
                                             ((None,), (2, 40)), ((2, 3, None), (2, 2, 3, 40))])
def test_an_array_has_the_shape_of_its_task(sizes, expected):
    module = Array().build(Task.array("x", sizes), SHAPE)
    frames = torch.randn(2, 5, 10)
    output = module(Representation(torch.randn(2, 6), frames, 4))
    assert tuple(output.shape) == expected
    if None in sizes:  # each of the ten frames stands for four of the input's
        assert torch.equal(output[..., ::4], output[..., 3::4]) and not torch.equal(output[..., 0], output[..., 4])


@pytest.mark.parametrize("sizes, shape, message", [(None, SHAPE, "needs a shape"), ((None, 3), SHAPE, "needs a shape"),
                                                   ((3, None), RepresentationShape(6), "trunk that gives frames")])
def test_arrays_that_the_head_cannot_give(sizes, shape, message):
    with pytest.raises(ParameterError, match=message):
        Array().build(Task.array("x", sizes), shape)


@pytest.mark.parametrize("kind", [MeanSquaredError(), MeanAbsoluteError()])
def test_padding_of_arrays_costs_and_teaches_nothing(kind):
    task, generator = Task.array("x", (2, None)), torch.Generator().manual_seed(0)
    output = torch.randn(2, 2, 12, generator=generator, requires_grad=True)
    target = torch.randn(2, 2, 10, generator=generator)
    target[1, :, 6:] = torch.nan
    rows = losses(kind, output, target, task)
    power = 2 if isinstance(kind, MeanSquaredError) else 1
    expected = [((output[i, :, :size] - target[i, :, :size]).abs() ** power).mean() for i, size in enumerate((10, 6))]
    torch.testing.assert_close(rows, torch.stack(expected))
    rows.sum().backward()
    assert output.grad.isfinite().all() and not output.grad[1, :, 6:].any() and not output.grad[0, :, 10:].any()
    with pytest.raises(TrainingError, match=r"output of the target's shape \(2, 2, 10\)"):
        losses(kind, output[..., :9], target, task)


# Targets in batches ---------------------------------------------------------------------------------------------------


def data_of(make, inputs=WAVES, trunk=None, reader=None, **changes):
    [run] = make(datasets={"a": {"reader": reader or Everything(chosen=("clean",))}}, inputs=inputs, split={"folds": 1},
                 model={"trunk": trunk or {"use": "core.cnn1d", "channels": [4], "kernel": 5, "stride": 1}}, **changes).runs()
    return run, run.data()


def test_arrays_of_several_lengths_are_padded(make):
    _, data = data_of(make)
    rows = data.rows("train")
    batch = rows.batch(range(8))
    target, length = batch.targets["clean"], batch.lengths["main"][batch.rows["clean"]]
    assert len(set(length.tolist())) > 1
    for one, sound, size in zip(target, batch.inputs["main"][batch.rows["clean"]], length.tolist()):
        assert torch.equal(one[:, :size], 2 * sound[:, :size]) and one[:, size:].isnan().all()


@pytest.mark.parametrize("step", [{"use": "core.crop_or_pad", "length": 300, "where": "center"},
                                  {"use": "core.crop_or_pad", "length": 800},
                                  {"use": "features.window", "length": 200, "hop": 150}])
def test_an_array_follows_cuts(make, step):
    _, data = data_of(make, {"main": {"extractor": "core.waveform", "steps": [step]}})
    rows = data.rows("train")
    batch = rows.batch(range(min(len(rows), 20)))
    target, sound = batch.targets["clean"], batch.inputs["main"][batch.rows["clean"]]
    there = ~target.isnan()
    assert there.any() and torch.equal(target[there], 2 * sound[..., :target.shape[-1]][there])
    assert not sound[..., :target.shape[-1]][~there].any()  # zeros that a step has added


def test_files_as_targets_are_decoded(make, tmp_path):
    for i in range(36):
        soundfile.write(tmp_path / f"{i}.wav", louder(i)[0] / 8, RATE, subtype="FLOAT")
    _, arrays = data_of(make)
    _, files = data_of(make, reader=Everything(chosen=("clean",), folder=str(tmp_path)))
    one, other = (data.rows("train").batch(range(6)).targets["clean"] for data in (arrays, files))
    torch.testing.assert_close(one / 8, other, equal_nan=True)


@pytest.mark.parametrize("files", [True, False])
def test_another_array_to_learn_is_another_run(make, tmp_path, monkeypatch, files):
    def name(scale):
        monkeypatch.setattr(sys.modules[__name__], "louder", lambda number: scale * wave(number)[0])
        for i in range(36) if files else ():
            soundfile.write(tmp_path / f"{i}.wav", louder(i)[0] / 30, RATE)
        reader = Everything(chosen=("clean",), folder=str(tmp_path) if files else "")
        run, = make(datasets={"a": {"reader": reader}}, split={"folds": 1}, inputs=WAVES, model={"trunk": "core.cnn1d"}).runs()
        return run.name

    assert name(2) == name(2) != name(3)


def test_an_array_of_another_shape_is_refused_where_it_is_read():
    with pytest.raises(DataError, match=r"task x: expected an array of shape \(2, None\), found \(3, 5\)"):
        Task.array("x", (2, None)).check(np.zeros((3, 5)))
    Task.array("x", (2, None)).check(np.zeros((2, 9)))
    Task.array("x").check(np.zeros(4))


@pytest.mark.parametrize("steps, clips", [([], "whole"), ([{"use": "features.window", "length": 200, "hop": 150}], "windows"),
                                          ([{"use": "core.crop_or_pad", "length": 800}], "padded")])
def test_predicted_arrays_are_as_long_as_their_targets(make, steps, clips):
    run, data = data_of(make, {"main": {"extractor": "core.waveform", "steps": steps}}, train={"epochs": 1, "batch_size": 8})
    run.execute(run.experiment.progress)
    found = run.folder.load_predictions("best")["test"]["clean"]
    assert found.clips
    for clip, target, decided in zip(found.clips, found.targets, found.decided):
        wanted = louder(int(clip.split("/c")[1]))
        assert target.shape == decided.shape and target.shape[-1] <= wanted.shape[-1]
        assert clips == "windows" or target.shape == wanted.shape
        assert np.array_equal(target, wanted[:, :target.shape[-1]])
    errors = np.concatenate([(d - t).ravel() for d, t in zip(found.decided, found.targets)]).astype(float)
    figures = {row["metric"]: row["value"] for row in run.folder.metrics("test") if row["checkpoint"] == "best"}
    assert figures["mse"] == pytest.approx((errors ** 2).mean(), rel=1e-5)
    assert figures["mae"] == pytest.approx(abs(errors).mean(), rel=1e-5)


# Thresholds -----------------------------------------------------------------------------------------------------------


def f1(scores, true, threshold):
    decided = scores >= threshold
    return 2 * (decided & true).sum() / max((decided.sum() + true.sum()), 1)


@pytest.mark.parametrize("seed", range(5))
def test_tuned_thresholds_are_the_best_there_are(seed):
    rng = np.random.default_rng(seed)
    task = Task.multilabel("m", ("a", "b", "never"))
    true = rng.integers(0, 2, (40, 3)) * [1, 1, 0]
    scores = (0.4 * rng.random((40, 3)) + 0.2 * true * rng.random((40, 3))).round(2)
    head = Linear(tune=True)
    tuned = head.tuned(task, Predictions(task, [str(i) for i in range(40)], scores, None, true))
    assert isinstance(tuned, Linear) and tuned.thresholds[2] == 0.5
    for label in (0, 1):
        best = max(f1(scores[:, label], true[:, label] > 0, threshold) for threshold in np.unique(scores[:, label]))
        assert f1(scores[:, label], true[:, label] > 0, tuned.thresholds[label]) == pytest.approx(best)
    assert np.array_equal(tuned.decide(task, scores), (scores >= tuned.thresholds).astype(int))
    measures = [Multilabel().build(task) for _ in range(2)]
    for measure, one in zip(measures, (head, tuned)):
        measure.update(Predictions(task, [str(i) for i in range(40)], scores, one.decide(task, scores), true))
    assert measures[1].compute()["f1_macro"] > measures[0].compute()["f1_macro"]
    binary = Task.binary("b")
    single = head.tuned(binary, Predictions(binary, [str(i) for i in range(40)], scores[:, 0], None, true[:, 0]))
    assert single.thresholds == tuned.thresholds[:1]
    assert np.array_equal(single.decide(binary, scores[:, 0]), tuned.decide(task, scores)[:, 0])


def test_heads_tune_only_when_told_and_only_what_they_can():
    task = Task.multilabel("m", "ab")
    found = Predictions(task, ["1"], np.array([[0.1, 0.2]]), None, np.array([[1, 0]]))
    assert Linear().tuned(task, found) == Linear()
    assert Linear(tune=True).tuned(Task.regression("r"), found) == Linear(tune=True)
    assert Frames().tuned(Task.events("e", "ab"), found) == Frames()
    with pytest.raises(ParameterError, match="expected 2 values for the labels, found 1"):
        Linear(thresholds=[0.2]).decide(task, found.scores)


def test_tuned_events_have_the_best_segments():
    """By trying every threshold and filter, and counting with the core's metric, which works on events in seconds."""
    rng = np.random.default_rng(1)
    task, hop, first = Task.events("e", "ab"), 0.13, 0.05
    targets, scores = [], []
    for _ in range(6):
        events = [(float(at), float(at + 1.5), label) for label in (0, 1) for at in rng.uniform(0, 8, 2)]
        centres = first + hop * np.arange(80)
        score = 0.35 * rng.random((2, 80)) ** 2
        for onset, offset, label in events:
            score[label, (centres >= onset) & (centres <= offset)] += 0.2 * rng.random()
        targets.append(events)
        scores.append(score)
    clips = [str(i) for i in range(6)]

    def figures(head):
        seconds = lambda frame: max(0.0, first + (frame - 0.5) * hop)  # noqa: E731
        decided = [[(seconds(on), seconds(off), label) for on, off, label in some] for some in head.decide(task, scores)]
        measure = Events().build(task)
        measure.update(Predictions(task, clips, scores, decided, targets))
        return measure.compute()

    tuned = Frames(tune=True).tuned(task, Predictions(task, clips, scores, None, targets, hop, first))
    found, best = figures(tuned), {"a": 0.0, "b": 0.0}
    for median in (1, 3, 5, 9, 17, 33):
        for threshold in np.linspace(0.01, 0.5, 50):
            one = figures(Frames(threshold=threshold, median=median))
            best = {label: max(best[label], one[f"f1_segment/{label}"]) for label in best}
    assert all(found[f"f1_segment/{label}"] >= best[label] - 1e-9 for label in best)
    assert found["f1_segment"] > figures(Frames())["f1_segment"]


def test_tuned_events_know_that_a_step_has_moved_them():
    task, scores = Task.events("e", "a"), np.full((1, 40), 0.1)
    scores[0, 10:20] = 0.4  # from 1 s on, which a crop has moved there from 5 s
    scores[0, 25:35] = 0.6
    found = Predictions(task, ["1"], [scores], None, [[(5.0, 6.0, 0)]], 0.1, 0.05, moved=[(4.0, 1.0)])
    assert Frames(tune=True).tuned(task, found).thresholds == [pytest.approx(0.25)]


# All together ---------------------------------------------------------------------------------------------------------


def test_all_kinds_in_one_run(make):
    names = ("high", "height", "tags", "pitch", "burst", "clean", "profile", "again")
    experiment = make(
        datasets={"a": {"reader": Everything(chosen=names[:5] + names[-1:])},
                  "b": {"reader": Everything(chosen=names[3:], offset=36)}},
        inputs=WAVES, split={"folds": 1, "validation": 0.2, "test": 0.25},
        model={"trunk": {"use": "core.cnn1d", "channels": [8, 8], "kernel": 21, "stride": 1}},
        tasks={"again": {"head": {"use": "losses.reconstruction", "shape": [1, -1]}, "loss": "losses.reconstruction"},
               "burst": {"head": {"use": "core.frames", "tune": True}, "metrics": ["core.events", "metrics.event_based"]},
               "tags": {"head": {"use": "core.linear", "tune": True}}, "clean": {"metrics": ["core.arrays", "metrics.si_sdr"]}},
        train={"epochs": 6, "batch_size": 12, "optimizer": {"use": "adam", "lr": 5e-3}})
    experiment.check()
    [run] = experiment.run()
    assert run.folder.info["status"] == "done"
    train = {}
    for row in run.folder.metrics("train"):
        train.setdefault(row["task"], []).append(row["value"])
    assert set(train) == set(names) and all(np.isfinite(values).all() for values in train.values())
    assert all(values[-1] < values[0] for values in train.values())
    found: dict[str, dict[str, float]] = {}
    for row in run.folder.metrics("test"):
        if row["checkpoint"] == "last":
            found.setdefault(row["task"], {})[row["metric"]] = row["value"]
    wanted = {"high": "accuracy", "height": "recall_macro", "tags": "f1_micro", "pitch": "mae", "burst": "f1_event",
              "clean": "si_sdr", "profile": "mse", "again": "loss"}
    assert all(np.isfinite(found[task][figure]) for task, figure in wanted.items())
    assert set(found["again"]) == {"loss"}
    assert found["pitch"]["r2"] > 0.5
    predictions, data = run.folder.load_predictions("last")["test"], run.data()
    for name in names:
        labelled = [data.datasets[d].key(c) for d, c in data.clips("test")
                    if name == "again" or name in data.encoded[data.datasets[d].name][c]]
        assert sorted(predictions[name].clips) == sorted(labelled)
    assert len(predictions["again"].clips) == len(data.clips("test")) > len(predictions["profile"].clips)


def test_a_task_without_targets_needs_a_head_and_a_loss(make):
    experiment = make(datasets={"a": {"reader": Everything(chosen=("again", "height"))}}, inputs=WAVES,
                      tasks={"again": {"head": {"use": "losses.reconstruction", "shape": [1, -1]}}})
    with pytest.raises(MtcoreError, match="tasks.again.loss: a task of kind none needs one"):
        experiment.runs()


def test_a_reconstruction_of_another_shape_says_which_one_is_needed(make):
    wrong = {"head": {"use": "losses.reconstruction", "shape": [2, -1]}, "loss": "losses.reconstruction"}
    experiment = make(datasets={"a": {"reader": Everything(chosen=("again", "height"))}}, inputs=WAVES, tasks={"again": wrong},
                      model={"trunk": {"use": "core.cnn1d", "channels": [4], "kernel": 5}})
    with pytest.raises(TrainingError, match=r"set the head's shape to that of the input, \[1, \d+\]"):
        experiment.check()


def test_estimators_see_windows_and_clips_are_predicted(make, generated):
    window = {"use": "features.window", "length": 20, "hop": 20}
    inputs = {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize", window]}}
    run, = make(datasets={"a": {"reader": generated(seconds=1.0)}}, inputs=inputs, split={"folds": 1, "validation": 0.2},
                train={"trainer": "trainers.sklearn"}).run()
    data = run.data()
    assert len(data.rows("test")) > len(data.clips("test")) == len(run.folder.load_predictions("best")["test"]["label"].clips)
