"""Teachers that hear what augmentation has made of a clip."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mtcore import Experiment
from mtcore.errors import ExperimentError, LeakError
from mtcore.experiment.finding import trained_on
from mtcore.experiment.stored import StoredRun
from mtcore.extracting.chain import Array
from mtcore.plugin import Clip, Context, Lazy, Prepared, Preparer, Reader, Task
from mtcore.training.gradient import GradientRun, load_checkpoint

RATE = 2000
ONE = {"folds": 1, "validation": 0.2}
SHORT = {"epochs": 2, "batch_size": 8}
TASKS = ("label", "size", "tags")
LOUDER = {"use": "augment.gain", "gain": [6, 12]}
CNN = {"trunk": {"use": "core.cnn", "channels": [4], "stride": 2}}
SPECTROGRAM = {"extractor": "core.spectrogram", "steps": ["core.standardize"]}
INPUTS = {"main": SPECTROGRAM, "wave": {"extractor": "core.waveform"}}
"""Of students: `wave` is what their signal steps have made of a clip."""
OVER_MAIN = {"trunks": {"main": {"use": "core.cnn", "channels": [4], "inputs": ["main"]}}}


@pytest.fixture
def taught(make, generated):
    """`taught(teacher, …)`: a student on the same clips."""
    def student(teacher, live=True, chosen=TASKS, seconds=0.5, signal=(), **changes):
        return make(**{"name": "student", "datasets": {"a": {"reader": generated(chosen=chosen, seconds=seconds)}}, "split": ONE,
                       "train": SHORT, "inputs": INPUTS, "model": OVER_MAIN, "signal": {"steps": list(signal)},
                       "teachers": {"big": {"run": str(teacher.folder.path), "live": live}}} | changes)

    return student


@pytest.fixture
def trained(make, generated):
    """`trained(…)`: a run on clips of its own."""
    def teacher(chosen=TASKS, seconds=0.5, offset=1000, **changes):
        data = {"a": {"reader": generated(chosen=chosen, seconds=seconds, offset=offset)}}
        return make(**{"datasets": data, "split": ONE, "train": SHORT, "model": CNN} | changes).run()[0]

    return teacher


@pytest.fixture
def teacher(trained):
    return trained()


def batch_of(experiment, part="train", rows=range(6), epoch=1):
    found = experiment.runs()[0].data().rows(part)
    found.epoch = epoch
    return found.batch(rows)


def assert_close(one, other):
    assert one.clips == other.clips and one.teachers["big"].keys() == other.teachers["big"].keys()
    for task, values in one.teachers["big"].items():
        torch.testing.assert_close(values, other.teachers["big"][task], rtol=1e-4, atol=1e-5)


def said(teacher, sound, what="outputs"):
    """By the teacher of one sound: raw outputs of labels, size and tags in this order, or of one task."""
    return StoredRun(teacher.folder.path).outputs(Array(np.asarray(sound), RATE), what).data[0]


def assert_heard(batch, teacher):
    for i, sound in enumerate(batch.inputs["wave"]):
        expected = said(teacher, sound)
        np.testing.assert_allclose(batch.teachers["big"]["label"][i], expected[:3], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(batch.teachers["big"]["tags"][i], expected[4:], rtol=1e-4, atol=1e-5)


# What it hears ------------------------------------------------------------------------------------------------------------


def test_of_clips_as_they_lie_a_live_teacher_says_what_a_stored_one_does(taught, teacher):
    labels = {"tasks": {"label": {"labels": ["high", "low", "middle"]}}}
    live, stored = (batch_of(taught(teacher, live, signal=["core.mono"], **labels)) for live in (True, False))
    assert live.teachers["big"]["label"].shape == (6, 3) and live.teachers["big"]["size"].shape == (6,)
    assert_close(live, stored)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_outside_training_nothing_is_augmented(taught, teacher, part):
    live, stored = (batch_of(taught(teacher, live, signal=[LOUDER]), part) for live in (True, False))
    assert_close(live, stored)


@pytest.mark.parametrize("signal", [
    [LOUDER], [{"use": "augment.noise", "snr": [0, 6], "p": 0.7}],
    [{"use": "augment.mix_noise", "material": "noise", "snr": [0, 3]}],
    ["core.mono", {"use": "augment.random_crop", "length": "0.3s"}]], ids=lambda steps: steps[-1]["use"])
def test_a_live_teacher_hears_what_the_student_hears(taught, generated, teacher, signal):
    experiment = taught(teacher, signal=signal, materials={"noise": {"reader": generated(offset=500)}})
    plain, live, later = batch_of(taught(teacher, live=False)), batch_of(experiment), batch_of(experiment, epoch=2)
    assert_heard(live, teacher)
    assert_heard(later, teacher)
    for one, other in (live, plain), (live, later):
        assert (one.teachers["big"]["label"] - other.teachers["big"]["label"]).abs().max() > 1e-3


def test_events_are_where_the_moved_sound_has_them(taught, trained):
    of_beeps = trained(("beep",), 3.0)
    moving = [{"use": "augment.stretch", "speed": [0.7, 1.4]}, {"use": "augment.shift", "seconds": [-0.3, 0.3]}]
    batch = batch_of(taught(of_beeps, chosen=("beep",), seconds=3.0, signal=moving))
    assert len(set(batch.lengths["wave"].tolist())) > 1
    for row, (sound, length) in enumerate(zip(batch.inputs["wave"], batch.lengths["wave"])):
        frames = int(batch.lengths["main"][row])  # the student's and the teacher's are the same
        expected = said(of_beeps, sound[:, :length], "beep")
        assert expected.shape == (1, frames) and np.ptp(expected) > 1e-3
        np.testing.assert_allclose(batch.teachers["big"]["beep"][row, :, :frames], expected, rtol=1e-4, atol=1e-4)


def test_what_only_the_student_does_the_teacher_does_not_hear(taught, teacher):
    inputs = {"main": SPECTROGRAM | {"signal": [{"use": "features.resample", "rate": 1000}, LOUDER]}}
    assert_close(batch_of(taught(teacher, inputs=inputs)), batch_of(taught(teacher, live=False, inputs=inputs)))


def test_windows_of_features_have_what_is_said_of_the_whole_clip(taught, teacher):
    inputs = {"main": SPECTROGRAM | {"steps": [{"use": "features.window", "length": "0.1s", "hop": "0.1s"}]}}
    batch = batch_of(taught(teacher, inputs=inputs), rows=range(8))
    plain = batch_of(taught(teacher))
    assert batch.clips[0] == batch.clips[3] == plain.clips[0] and batch.clips[4] == plain.clips[1]
    for task, values in batch.teachers["big"].items():
        torch.testing.assert_close(values, plain.teachers["big"][task][:2].repeat_interleave(4, 0), rtol=1e-4, atol=1e-5)


@dataclass(frozen=True, kw_only=True)
class Halves(Preparer):
    """Windows of sound."""

    window = True

    def prepare(self, context: Context) -> Prepared:
        return context.then(lambda x, state, rng: x, count=lambda shape, state: 2,
                            slice=lambda shape, i, state: (i * (shape[-1] // 2), shape[-1] // 2))


@pytest.mark.parametrize("signal", [[Halves(), LOUDER], [LOUDER, Halves()]], ids=["drawn for each", "drawn for both"])
def test_windows_of_sound_are_heard_each_by_itself(taught, teacher, signal):
    batch = batch_of(taught(teacher, signal=signal))
    assert batch.clips[0] == batch.clips[1] and not torch.equal(batch.inputs["wave"][0], batch.inputs["wave"][1])
    assert_heard(batch, teacher)


def test_fitted_steps_of_the_signal_have_the_student_s_state(taught, generated, teacher):
    data = {"a": {"reader": generated(chosen=TASKS, clips_=18)},
            "b": {"reader": generated(chosen=TASKS, clips_=12, seconds=0.9, offset=200)}}
    batch = batch_of(taught(teacher, datasets=data, signal=[{"use": "core.crop_or_pad", "length": "max"}, LOUDER]))
    assert batch.inputs["wave"].shape == (6, 1, 1800)
    assert_heard(batch, teacher)


def test_datasets_may_have_signal_steps_of_their_own(taught, generated, teacher):
    data = {"a": {"reader": generated(chosen=TASKS), "signal": [LOUDER]}, "b": {"reader": generated(chosen=TASKS, offset=300)}}
    rows = taught(teacher, datasets=data).runs()[0].data().rows("train")
    chosen = [next(i for i in range(len(rows)) if rows.key(i).startswith(dataset)) for dataset in "ab"]
    assert_heard(rows.batch(chosen), teacher)


def test_the_teacher_s_own_random_steps_are_off(taught, trained):
    crop = {"use": "augment.random_crop", "length": 20}
    teacher = trained(signal={"steps": [LOUDER]}, inputs={"main": SPECTROGRAM | {"steps": ["core.standardize", crop]}})
    assert_close(batch_of(taught(teacher)), batch_of(taught(teacher, live=False)))


@dataclass(frozen=True, kw_only=True)
class Levels(Reader):
    """Noise of many lengths; its level per frame is a task of kind array."""

    generated = True
    first: int = 0

    def tasks(self, root):
        return [Task.multiclass("loudness", ("quiet", "loud")), Task.array("level", (1, None))]

    def clips(self, root):
        for i in range(self.first, self.first + 24):
            targets = {"loudness": ("quiet", "loud")[i % 2], "level": np.full((1, 20 + i % 5), i % 2, np.float32)}
            yield Clip(f"c{i}", Lazy(noise, (i,), key=f"live-levels-{i}"), targets)


def noise(number):
    return (0.1 + number % 2) * np.random.default_rng(number).uniform(-0.5, 0.5, (1, 500 + 60 * (number % 5))), RATE


def test_clips_of_many_lengths_and_windows_are_heard_together_as_one_by_one(trained, taught):
    """By a teacher with arrays per frame, too, which are nothing to learn from."""
    steps = ["core.standardize", {"use": "features.window", "length": "0.1s", "hop": "0.05s"}]
    teacher = trained(datasets={"a": {"reader": Levels()}}, tasks={"level": {"head": "core.array"}}, train=SHORT | {"batch_size": 5},
                      inputs={"main": SPECTROGRAM | {"steps": steps}}, model={"trunk": {"use": "core.cnn", "channels": [4], "stride": 1}})
    other = {"datasets": {"b": {"reader": Levels(first=100), "tasks": ["loudness"]}}}
    live, stored = (batch_of(taught(teacher, live, **other), rows=range(10)) for live in (True, False))
    assert_close(live, stored)
    assert live.teachers["big"]["loudness"].shape == (10, 2) and live.teachers["big"]["loudness"].std(0).min() > 1e-3


# Runs ---------------------------------------------------------------------------------------------------------------------


DISTILL = {name: {"loss": {"use": "losses.distill", "teacher": "big"}} for name in TASKS}


def weights(run):
    return (run.folder.path / "metrics.jsonl").read_text(), load_checkpoint(run.folder.checkpoint("last"))["model"]


def assert_same(one, other):
    (figures, model), (others, another) = weights(one), weights(other)
    assert figures == others and all(torch.equal(value, another[name]) for name, value in model.items())


def test_a_run_that_is_cut_off_ends_like_an_uninterrupted_one_whoever_prepares_batches(taught, teacher, monkeypatch):
    content = {"signal": [{"use": "augment.noise", "snr": [0, 6]}], "tasks": DISTILL, "batch": {"steps": ["augment.mixup"]}}
    train = {"epochs": 2, "batch_size": 8, "threads": 2, "save": {"updates": 1}}
    assert taught(teacher, train=train, **content).check()
    [whole] = taught(teacher, train=train, runs="whole", **content).run()
    update = GradientRun.one_update

    def cut(self, micro, total):
        if self.update == 4:
            raise InterruptedError
        update(self, micro, total)

    with monkeypatch.context() as patch:
        patch.setattr(GradientRun, "one_update", cut)
        with pytest.raises(InterruptedError):
            taught(teacher, train=train, runs="cut", **content).run()
    [continued] = taught(teacher, train=train | {"workers": 2}, runs="cut", **content).run()
    assert "updates" in (continued.folder.path / "run.log").read_text() and continued.name == whole.name
    assert_same(continued, whole)


def test_the_teacher_s_network_has_one_thread_as_in_a_process_that_prepares_batches(taught, teacher, monkeypatch):
    seen, whole = [], StoredRun.taught
    monkeypatch.setattr(StoredRun, "taught", lambda *given: seen.append(torch.get_num_threads()) or whole(*given))
    experiment, before = taught(teacher), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        batch_of(experiment)
        assert seen == [1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_live_is_part_of_a_run_s_identity_and_it_answers_for_its_teacher(taught, teacher, generated):
    [live], [stored] = (taught(teacher, live, signal=[LOUDER], chosen=("size",)).runs() for live in (True, False))
    assert live.identity != stored.identity
    data = {"b": {"reader": generated(offset=100)}}
    [run] = taught(teacher, datasets=data).run()
    assert set(trained_on(teacher.folder.path)) < set(trained_on(run.folder.path))


FILE = """
name = "{name}"
[datasets.tones]
reader = {{use = "core.tones", count = 24}}
[signal]
steps = ["core.mono"{noise}]
[inputs.main]
extractor = {{use = "core.spectrogram", hop = 0.05}}
steps = ["core.standardize"]
[split]
folds = 1
validation = 0.2
[model]
trunk = {{use = "core.cnn", channels = [4], batch_norm = false}}
[train]
epochs = 1
batch_size = 4
accumulate = {accumulate}
optimizer = {{use = "sgd", lr = 0.01}}
[report]
reporters = []
"""
TAUGHT = """
[teachers]
live = {run = "runs/teacher", live = true}
stored = {run = "runs/teacher"}
[tasks]
timbre.loss = {use = "losses.distill", teacher = "live"}
pitch.loss = {use = "losses.distill", teacher = "stored"}
"""


def test_two_processes_have_the_teachers_that_one_has(tmp_path):
    """Each listens for itself, to what it extracts and to its own batches."""
    noise = ', {use = "augment.noise", snr = [0, 6]}'
    files = {name: tmp_path / f"{name}.toml" for name in ("teacher", "one", "two")}
    for name, path in files.items():
        taught = "" if name == "teacher" else TAUGHT
        path.write_text(FILE.format(name=name, noise=noise if taught else "", accumulate=2 if name == "one" else 1) + taught)
    for name in ("teacher", "one"):
        Experiment.from_file(files[name], cache=tmp_path / name).run()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", "-m", "mtcore"]
    done = subprocess.run([*start, "run", files["two"]], capture_output=True, text=True, timeout=200,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "MTCORE_CACHE": str(tmp_path / "two")})
    assert done.returncode == 0, done.stderr
    one, two = (load_checkpoint(path)["model"] for name in ("one", "two")
                for path in (tmp_path / "runs" / name).glob("run*/checkpoints/last.pt"))
    assert all(torch.allclose(value, two[name], atol=1e-5) for name, value in one.items())


# Errors -------------------------------------------------------------------------------------------------------------------


def test_a_live_teacher_that_has_trained_on_what_is_tested_is_refused(taught, trained):
    teacher = trained(offset=0)
    assert taught(teacher).runs()
    with pytest.raises(LeakError, match=r"teachers.big: .* has trained on \d+ clips.*a/c\d+"):
        taught(teacher, split=ONE | {"seed": 5}).runs()


def of_rates(taught, trained, own, rate):
    """A student that hears 2000 Hz as `rate`, of a teacher that makes `own` of it, or leaves it."""
    mel = {"use": "features.logmel", "filters": 8}  # of one shape at any rate
    teacher = trained(inputs={"main": {"extractor": mel, "signal": [{"use": "features.resample", "rate": own}] if own else []}})
    return taught(teacher, signal=[{"use": "features.resample", "rate": rate}, LOUDER])


@pytest.mark.parametrize(("own", "rate"), [(None, 1000), (None, 4000), (2000, 1000), (4000, 1000)])
def test_sound_of_a_rate_that_the_teacher_does_not_know_is_refused(taught, trained, own, rate):
    student, told = of_rates(taught, trained, own, rate), f"expected sound of 2000 Hz, .*found {rate} Hz.*into inputs.NAME.signal"
    for call in (student.check, student.run):
        with pytest.raises(ExperimentError, match=f"teachers.big: .*{told}"):
            call()


@pytest.mark.parametrize(("own", "rate"), [(2000, 4000), (1000, 1000)])
def test_a_teacher_that_resamples_hears_sound_of_any_rate_that_holds_what_it_needs(taught, trained, own, rate):
    assert of_rates(taught, trained, own, rate).check()
