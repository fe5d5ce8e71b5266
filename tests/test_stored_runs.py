"""Runs that are done: on new recordings, as inputs and as teachers of others, and what they must not have seen."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from mtcore import Experiment
from mtcore.builtin.examples import make_csv
from mtcore.cli import main
from mtcore.errors import ClipError, ExperimentError, LeakError
from mtcore.experiment.finding import trained_on
from mtcore.experiment.stored import RunOutputs, StoredRun
from mtcore.extracting.chain import Array
from mtcore.plugin import Clip, File, Lazy, Reader, Task
from mtcore.reading.decode import decode
from mtcore.runfolder import RunFolder

ONE = {"folds": 1, "validation": 0.2}
SHORT = {"epochs": 1, "batch_size": 8}
TASKS = ("label", "size", "tags")
BEEPS = {"split": ONE, "train": SHORT, "model": {"trunk": {"use": "core.cnn", "channels": [4], "stride": 2}},
         "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}}}


def clip(run, name):
    dataset, _, ident = name.partition("/")
    return next(c.audio for d in run.experiment.corpus.datasets if d.name == dataset for c in d.clips if c.id == ident)


@pytest.fixture
def trained(make, generated):
    """A run of three tasks that is done."""
    [run] = make(datasets={"a": {"reader": generated(chosen=TASKS)}}, split=ONE, train=SHORT).run()
    return run


def predictions(run, stored):
    for tasks in run.folder.load_predictions(stored.checkpoint).values():
        for task, found in tasks.items():
            for i, name in enumerate(found.clips[:4]):
                yield task, stored.predict(clip(run, name))[task], found.scores[i], found.decided[i]


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_a_stored_run_predicts_what_the_run_did_wherever_it_lies(trained, tmp_path, checkpoint):
    moved = tmp_path / "elsewhere"
    shutil.copytree(trained.folder.path, moved)
    for _task, found, scores, decided in predictions(trained, StoredRun(moved, checkpoint)):
        np.testing.assert_allclose(found.scores[0], scores, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.decided[0], decided, rtol=1e-4)


@pytest.mark.parametrize("steps", [["core.standardize"],
                                   ["core.standardize", {"use": "features.window", "length": "1s", "hop": "0.5s"}]])
def test_events_are_stitched_as_in_the_run(make, generated, steps):
    inputs = {"main": {"extractor": "core.spectrogram", "steps": steps}}
    [run] = make(**BEEPS | {"datasets": {"a": {"reader": generated(chosen=("beep",), seconds=3.0)}}, "inputs": inputs}).run()
    for _, found, scores, decided in predictions(run, StoredRun(run.folder.path)):
        np.testing.assert_allclose(found.scores[0], scores, atol=1e-5)
        assert found.decided[0] == decided


def teacher_of(run):
    return {"big": {"run": str(run.folder.path)}}


def test_a_teacher_hands_over_its_raw_outputs(make, generated, trained):
    student = make(datasets={"a": {"reader": generated(chosen=TASKS)}}, split=ONE, train=SHORT, name="student",
                   tasks={"label": {"labels": ["high", "low", "middle"]}}, teachers=teacher_of(trained))
    [run] = student.runs()
    rows = run.data().rows("train")
    batch, stored = rows.batch(range(6)), StoredRun(trained.folder.path)
    mean, deviation = rows.data.scaling["size"]
    for i, name in enumerate(batch.clips):
        found = stored.predict(clip(run, name))
        mine = {task: values[i].double().numpy() for task, values in batch.teachers["big"].items()}
        order = [stored.tasks["label"].labels.index(label) for label in ("high", "low", "middle")]
        np.testing.assert_allclose(torch.tensor(mine["label"]).softmax(0), found["label"].scores[0][order], rtol=1e-4)
        np.testing.assert_allclose(torch.tensor(mine["tags"]).sigmoid(), found["tags"].scores[0], rtol=1e-4)
        np.testing.assert_allclose(mine["size"] * deviation + mean, found["size"].scores[0], rtol=1e-4)
    assert batch.teachers["big"]["label"].shape == (6, 3) and batch.teachers["big"]["size"].shape == (6,)


def test_a_teacher_of_events_follows_the_student_s_frames(make, generated):
    data = {"datasets": {"a": {"reader": generated(chosen=("beep",), seconds=3.0)}}}
    [teacher] = make(**BEEPS | data).run()
    inputs = {"main": {"extractor": {"use": "core.spectrogram", "hop": 0.02},
                       "steps": [{"use": "features.window", "length": "1s", "hop": "1s"}]}}
    [run] = make(**BEEPS | data | {"name": "student", "inputs": inputs, "teachers": teacher_of(teacher)}).runs()
    rows = run.data().rows("train")
    batch = rows.batch(range(len(rows)))
    raw = StoredRun(teacher.folder.path).outputs
    for row in range(6):
        array, seen = raw(Array(*decode(clip(run, batch.clips[row]))), "beep"), rows._array(row, "main")
        times = (seen.frames[0] + np.arange(seen.data.shape[-1])) * seen.axis.hop + seen.axis.first
        expected = np.interp(times, array.axis.first + array.axis.hop * np.arange(array.data.shape[-1]), array.data[0, 0])
        found = batch.teachers["big"]["beep"][row, 0].numpy()
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= np.abs(np.diff(array.data[0, 0])).max()


def test_a_student_learns_and_a_teacher_that_is_trained_again_makes_another_run(make, generated, trained, tmp_path):
    content = {"datasets": {"a": {"reader": generated(chosen=TASKS)}}, "split": ONE, "train": SHORT, "name": "student",
               "teachers": teacher_of(trained)}
    assert make(**content).check()
    [run] = make(**content).run()
    path = trained.folder.checkpoint("best")
    state = torch.load(path, weights_only=True)
    next(iter(state["model"].values())).add_(1)
    torch.save(state, path)
    [other] = make(**content).runs()
    assert run.done and other.identity != run.identity
    before = {path.name for path in (tmp_path / "cache" / "features").iterdir()}
    other.data()
    assert len({path.name for path in (tmp_path / "cache" / "features").iterdir()} - before) == 1


def outputs(run, **changes):
    return {"use": "core.run", "run": str(run.folder.path), **changes}


def test_outputs_of_a_run_are_an_input_and_such_a_run_is_applied_in_its_turn(make, generated, trained, tmp_path):
    inputs = {"main": {"extractor": "core.spectrogram"},
              "parallel": {"extractor": outputs(trained), "steps": ["core.standardize"]},
              "scores": {"extractor": outputs(trained, what="label")}}
    [run] = make(split=ONE, train=SHORT, name="upper", inputs=inputs).run()
    row = run.data().rows("train").batch([0])
    assert row.inputs["parallel"].shape == (1, 1, 16) and row.inputs["scores"].shape == (1, 1, 3)
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "runs", moved)
    shutil.rmtree(tmp_path / "runs")
    run.folder = RunFolder(moved / "upper" / run.name)
    for _, found, scores, _ in predictions(run, StoredRun(run.folder.path)):
        np.testing.assert_allclose(found.scores[0], scores, rtol=1e-4, atol=1e-5)


def test_the_key_of_outputs_follows_the_weights_and_not_the_place(trained, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(trained.folder.path, moved)
    described = RunOutputs(run=str(moved)).parameters()
    assert described == RunOutputs(run=str(trained.folder.path)).parameters() and "run" not in described
    state = torch.load(moved / "checkpoints" / "best.pt", weights_only=True)
    next(iter(state["model"].values())).add_(1)
    torch.save(state, moved / "checkpoints" / "best.pt")
    assert RunOutputs(run=str(moved)).parameters() != described


# What a run has trained on ---------------------------------------------------------------------------------------------


def test_a_run_that_has_trained_on_what_is_tested_is_refused(make, generated, trained):
    content = {"datasets": {"a": {"reader": generated(chosen=TASKS)}}, "train": SHORT, "name": "student"}
    for changes in ({"teachers": teacher_of(trained)}, {"inputs": {"main": {"extractor": outputs(trained)}}}):
        [run] = make(**content, split=ONE, **changes).runs()
        with pytest.raises(LeakError, match=r"has trained on \d+ clips.*a/c\d+"):
            make(**content, split=ONE | {"seed": 5}, **changes).runs()
        with pytest.raises(LeakError):
            make(**content, split=ONE | {"seed": 5}, **changes).check()
    assert len(trained_on(trained.folder.path)) == len(trained.data().clips("train"))


def test_of_a_folder_of_runs_the_one_of_the_same_fold_is_taken(make, generated, tmp_path):
    teachers = make(train=SHORT).run()
    student = {"name": "student", "train": SHORT, "teachers": {"big": {"run": "runs/test"}}}
    for run, teacher in zip(make(**student).runs(), teachers, strict=True):
        assert list(run.builder.runs.values()) == [teacher.folder.path]
    make(train=SHORT, vary={"seed": [1, 2]}).run()
    with pytest.raises(ExperimentError, match="expected one run of fold 1 .* found 3"):
        make(**student).runs()
    student["teachers"]["big"]["run"] = "runs/test/2-*"
    assert ["2-fold1", "2-fold2", "2-fold3"] == [next(iter(run.builder.runs.values())).name[:7] for run in make(**student).runs()]
    student["teachers"]["big"]["run"] = "runs/nowhere"
    with pytest.raises(ExperimentError, match="found nothing there"):
        make(**student).runs()


def test_a_student_answers_for_what_its_teacher_has_seen(make, generated, trained):
    data = {"b": {"reader": generated(offset=100)}}
    [student] = make(datasets=data, split=ONE, train=SHORT, name="student", teachers=teacher_of(trained)).run()
    assert set(trained_on(trained.folder.path)) < set(trained_on(student.folder.path))
    with pytest.raises(LeakError):
        make(split=ONE | {"seed": 5}, name="grandchild", teachers=teacher_of(student)).runs()


# Errors -----------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_used_is_told(make, generated, trained, tmp_path):
    content = {"split": ONE, "train": SHORT, "name": "student"}
    with pytest.raises(ExperimentError, match="expected vector, .* one of its tasks label, size, tags; found 'lable'"):
        make(**content, inputs={"main": {"extractor": outputs(trained, what="lable")}}).runs()
    with pytest.raises(ExperimentError, match="expected a run's folder, .*found nothing there"):
        make(**content, inputs={"main": {"extractor": {"use": "core.run", "run": "runs/nothing"}}}).runs()
    with pytest.raises(ExperimentError, match="found no run.json"):
        StoredRun(tmp_path)
    with pytest.raises(ExperimentError, match="task label as multiclass of low, middle, high; this experiment .* low, middle;"):
        data = {"a": {"reader": generated(offset=100), "tasks": {"label": {"labels": {"high": ""}}}}}
        one = make(**content, datasets=data, teachers=teacher_of(trained))
        one._data(one.runs()[0])
    trained.folder.update_info(status="interrupted")
    with pytest.raises(ExperimentError, match="expected a run that is done, found one that is interrupted"):
        make(**content, teachers=teacher_of(trained)).runs()


def test_code_out_of_a_folder_is_not_imported_unless_trusted(trained, tmp_path, monkeypatch):
    path = trained.folder.path / "run.json"
    info = json.loads(path.read_text())
    info["config"]["model"]["main"]["use"] = "ours_for_trust:Mlp"
    path.write_text(json.dumps(info))
    (tmp_path / "ours_for_trust.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExperimentError, match="only with --trust"):
        StoredRun(trained.folder.path).model
    (tmp_path / "ours_for_trust.py").write_text("from mtcore.builtin.trunks import Mlp")
    assert StoredRun(trained.folder.path, trust=True).model


# Targets as an input ------------------------------------------------------------------------------------------------------


def test_targets_of_a_task_are_an_input(make, generated):
    inputs = {"main": {"extractor": "core.spectrogram"}, **{name: {"task": name} for name in ("label", "size", "tags")}}
    content = {"datasets": {"a": {"reader": generated(chosen=(*TASKS, "beep"), missing=5, seconds=3.0)}}, "split": ONE,
               "inputs": inputs, "train": SHORT, "model": {"trunk": {"use": "core.mlp", "hidden": [8]}}}
    one = make(**content, vary={"tasks": [["beep"]]})
    with pytest.raises(ExperimentError, match="would see its own targets"):
        make(**content).runs()
    [run] = one.runs()
    batch = run.data().rows("train").batch(range(8))
    for i, name in enumerate(batch.clips):
        number = int(name.removeprefix("a/c"))
        assert batch.inputs["label"][i].tolist() == [float(number % 5 != 0 and k == number % 3) for k in range(3)]
        assert batch.inputs["size"][i].tolist() == [10.0 + number % 3]
        assert batch.inputs["tags"][i].tolist() == [number % 3 == 0, number % 2]


def test_targets_as_an_input_go_with_windows_and_to_training(make, generated):
    inputs = {"main": {"extractor": "core.spectrogram", "steps": [{"use": "features.window", "length": "0.2s", "hop": "0.1s"}]},
              "size": {"task": "size", "steps": ["core.standardize"]}}
    content = {"datasets": {"a": {"reader": generated(chosen=TASKS)}}, "inputs": inputs, "split": ONE, "train": SHORT}
    [run] = make(**content, vary={"tasks": [["label"]]}).run()
    batch = run.data().rows("train").batch(range(4))
    assert batch.clips[0] == batch.clips[1] and torch.equal(batch.inputs["size"][0], batch.inputs["size"][1])
    assert abs(float(batch.inputs["size"][0])) < 2 and run.done
    assert StoredRun(run.folder.path).predict(clip(run, batch.clips[0]))["label"].scores.shape == (1, 3)
    with pytest.raises(ExperimentError, match="inputs.size: expected an extractor or a task"):
        make(**content | {"inputs": {"size": {"task": "size", "extractor": "core.waveform"}}})


# The command --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recordings(tmp_path):
    """A run of the core's CSV reader over real files with all that `mtcore predict` needs on disk, and some of its files."""
    make_csv(tmp_path / "data")
    content = {"name": "files",
               "datasets": {"d": {"reader": {"use": "core.csv", "kinds": {"pitch": "regression"}}, "root": "data"}},
               "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}}, "split": ONE,
               "signal": {"steps": ["core.mono"]}, "model": {"trunk": {"use": "core.mlp", "hidden": [8]}}, "train": SHORT,
               "report": {"reporters": []}}
    [run] = Experiment(content, tmp_path, tmp_path / "runs", tmp_path / "cache").run()
    return run, [str(path) for path in sorted((tmp_path / "data" / "audio").iterdir())[:3]]


def call(*arguments):
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def test_predict_on_the_command_line(recordings, tmp_path):
    run, files = recordings
    done = call(run.folder.path, *files, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == files and set(found[files[0]]) == {"instrument", "pitch"}
    assert sum(found[files[0]]["instrument"]["scores"].values()) == pytest.approx(1)
    table, lines = call(run.folder.path, *files), list(csv.reader(call(run.folder.path, *files, "--csv").stdout.splitlines()))
    assert table.stdout.splitlines()[0].split() == ["file", "task", "decision", "score"] and len(table.stdout.splitlines()) == 7
    assert lines[0] == ["file", "task", "decision", "score", "onset", "offset"]
    assert [row[2] for row in lines[1:] if row[1] == "instrument"] == [found[path]["instrument"]["decision"] for path in files]
    assert found[files[0]]["pitch"]["decision"] == pytest.approx(float(lines[2][2]), rel=1e-5)


def test_predict_names_recordings_that_it_cannot_use_and_tells_of_the_others(recordings, tmp_path):
    run, files = recordings
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    done = call(run.folder.path, tmp_path / "broken.wav", files[0], "--csv")
    assert done.exit_code == 1 and "1 of 2 recordings cannot be used" in done.stderr and "broken.wav" in done.stderr
    assert len(done.stdout.splitlines()) == 3
    assert call(tmp_path / "data", files[0]).exit_code == 2


def test_events_are_printed_with_their_times(make, generated, tmp_path):
    [run] = make(**BEEPS | {"datasets": {"a": {"reader": generated(chosen=("beep", "tags"), seconds=3.0)}}}).run()
    sound, rate = clip(run, "a/c4").load(*clip(run, "a/c4").args)
    soundfile.write(tmp_path / "one.wav", sound[0], rate, subtype="FLOAT")
    told = json.loads(call(run.folder.path, tmp_path / "one.wav", "--json").stdout)
    events = told[str(tmp_path / "one.wav")]["beep"]["decision"]
    expected = StoredRun(run.folder.path).predict(File(tmp_path / "one.wav"))["beep"]
    assert [(one["onset"], one["offset"]) for one in events] == [(onset, offset) for onset, offset, _ in expected.decided[0]]
    assert call(run.folder.path, tmp_path / "one.wav").stdout.splitlines()[0].split()[-2:] == ["onset", "offset"] or not events


# What a folder must tell --------------------------------------------------------------------------------------------------


def test_random_steps_and_materials_are_not_needed(make, generated):
    steps = ["core.mono", {"use": "augment.mix_noise", "material": "noise", "snr": [0, 10]},
             {"use": "augment.random_crop", "length": "0.4s"}]
    [run] = make(materials={"noise": {"reader": generated(offset=500)}}, signal={"steps": steps}, split=ONE, train=SHORT).run()
    for _, found, scores, _ in predictions(run, StoredRun(run.folder.path)):
        np.testing.assert_allclose(found.scores[0], scores, rtol=1e-4, atol=1e-5)
    assert len(trained_on(run.folder.path)) > len(run.data().clips("train"))


def test_a_dataset_with_a_chain_of_its_own_is_named(make, generated):
    [run] = make(datasets={"a": {"reader": generated()}, "b": {"reader": generated(offset=100), "signal": ["core.mono"]}},
                 inputs={"main": {"extractor": "core.spectrogram", "steps": [{"use": "core.standardize", "fit": "dataset"}]}},
                 extract={"dtype": "float16"}, split=ONE, train=SHORT).run()
    with pytest.raises(ExperimentError, match="its datasets have chains of their own.*a, b"):
        StoredRun(run.folder.path)
    for dataset in "ab":
        stored = StoredRun(run.folder.path, dataset=dataset)
        for part in run.folder.load_predictions("best").values():
            [(name, scores)] = [(n, s) for n, s in zip(part["label"].clips, part["label"].scores) if n.startswith(dataset)][:1]
            np.testing.assert_allclose(stored.predict(clip(run, name))["label"].scores[0], scores, rtol=1e-4, atol=1e-5)


def test_clips_of_any_length_and_several_trunks(make, generated):
    data = {"a": {"reader": generated(seconds=0.5)}, "b": {"reader": generated(seconds=0.7, offset=100)}}
    inputs = {"main": {"extractor": "core.spectrogram"}, "wave": {"extractor": "core.waveform"}}
    trunks = {"one": {"use": "core.cnn", "channels": [4], "inputs": ["main"]},
              "two": {"use": "core.cnn1d", "channels": [4], "kernel": 9, "inputs": ["wave"]}}
    [run] = make(datasets=data, inputs=inputs, model={"trunks": trunks}, split=ONE, train=SHORT).run()
    stored = StoredRun(run.folder.path)
    for _, found, scores, _ in predictions(run, stored):
        np.testing.assert_allclose(found.scores[0], scores, rtol=1e-3, atol=1e-4)
    name = run.folder.load_predictions("best")["test"]["label"].clips[0]
    sound, rate = clip(run, name).load(*clip(run, name).args)
    vector = stored.outputs(Array(sound, rate), "vector").data
    with torch.no_grad():
        batch = stored.data({"clip": Array(sound, rate)}).rows("test").batch([0])
        expected = stored.model(batch.inputs, batch.lengths, batch.rows).representation
    np.testing.assert_allclose(vector, torch.cat([one.vector for one in expected.values()], 1), rtol=1e-5)
    with pytest.raises(ExperimentError, match="frames in one representation, found 2"):
        stored.outputs(Array(sound, rate), "frames")


@dataclass(frozen=True, kw_only=True)
class Levels(Reader):
    """Noise whose level per frame, and overall, are tasks of kind array."""

    generated = True

    def tasks(self, root):
        return [Task.array("level", (1, None)), Task.array("both", (2,))]

    def clips(self, root):
        for i in range(24):
            targets = {"level": np.full((1, 40), i / 10, np.float32), "both": np.array([i, -i], np.float32)}
            yield Clip(f"c{i}", Lazy(noise, (i,), key=f"levels-{i}"), targets)


def noise(number):
    return np.random.default_rng(number).uniform(-0.5, 0.5, (1, 1000)).astype(np.float32), 2000


def test_arrays_are_predicted_for_all_frames(make):
    tasks = {name: {"head": "core.array"} for name in ("level", "both")}
    [run] = make(datasets={"a": {"reader": Levels()}}, tasks=tasks, split=ONE, train=SHORT,
                 model={"trunk": {"use": "core.cnn", "channels": [4], "stride": 1}}).run()
    stored = StoredRun(run.folder.path)
    for task, found, scores, _ in predictions(run, stored):
        length = scores.shape[-1] if task == "level" else None
        np.testing.assert_allclose(found.scores[0][..., :length], scores, rtol=1e-3, atol=1e-4)
    assert found.scores[0].shape[-1] == 2 or found.scores[0].shape[-1] >= 40


def test_students_of_labels_and_of_events_learn_from_their_teachers(make, generated):
    data = {"datasets": {"a": {"reader": generated(chosen=("beep", "tags", "size"), seconds=3.0)}}}
    [teacher] = make(**BEEPS | data).run()
    loss = {"use": "losses.distill", "teacher": "big"}
    tasks = {name: {"loss": loss} for name in ("beep", "tags", "size")}
    content = {"name": "student", "teachers": teacher_of(teacher), "tasks": tasks, "batch": {"steps": ["augment.mixup"]}}
    [run] = make(**BEEPS | data | content).run()
    assert run.done and np.isfinite([line["value"] for line in run.folder.metrics() if line["metric"] == "loss"]).all()


def test_tasks_may_be_called_like_what_a_module_has(make, generated):
    """Trained, continued and applied: the same figures as under other names."""
    found = []
    for names in (("a", "b", "c"), ("half", "training", "keys")):
        tasks = {old: {"as": new} for old, new in zip(TASKS, names)}
        content = {"datasets": {"a": {"reader": generated(chosen=TASKS), "tasks": tasks}}, "split": ONE}
        for epochs in (1, 2):
            run, = make(runs=names[0], train={"epochs": epochs, "batch_size": 8, "average": 0.9, "parameters": {
                f"heads.{names[0]}.*": {"lr": 1e-4}}}, **content).run()
        lines = [(names.index(line["task"]), line["metric"], line["value"]) for line in run.folder.metrics()]
        assert "continued after epoch 1" in (run.folder.path / "run.log").read_text()
        clip = run.experiment.corpus.datasets[0].clips[0].audio
        found.append((lines, [StoredRun(run.folder.path).predict(clip)[name].scores for name in names]))
        assert any(name.startswith(f"heads.{names[1]}.") for name, _ in run.model(run.data()).named_parameters())
    assert found[0][0] == found[1][0] and all(map(np.array_equal, found[0][1], found[1][1]))


@pytest.mark.parametrize("name", ["a.b", ""])
def test_a_trunk_has_a_name_without_dots(make, name):
    with pytest.raises(ExperimentError, match="model.trunks: expected names without dots, found '" + name):
        make(model={"trunks": {name: "core.mlp"}})


def test_trunks_may_be_called_like_what_a_module_has(make):
    [run] = make(model={"trunks": {"half": "core.mlp", "training": "core.mlp"}}, split=ONE).runs()
    data = run.data()
    batch = data.rows("train").batch(range(2))
    assert list(run.model(data).train()(batch.inputs).representation) == ["half", "training"]


def test_a_recording_of_other_channels_is_told_with_what_the_run_has_learned_from(trained):
    stored = StoredRun(trained.folder.path)
    with pytest.raises(ClipError, match=r"input main is of shape \[2, .*learned from \[1, .*mono"):
        stored.predict(Array(np.random.default_rng(0).standard_normal((2, 1000), dtype=np.float32), 2000.0))
