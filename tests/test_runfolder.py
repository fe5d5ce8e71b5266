"""Run folders: what is read is what was written, whatever was cut off in between."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcore.errors import DataError, PluginError
from mtcore.plugin import Predictions, Task
from mtcore.runfolder import RunFolder, atomic, atomic_write

LABELS = ("a", "b", "怒り")


def row(epoch, **changes):
    return {"epoch": epoch, "update": 10 * epoch, "part": "train", "task": "t", "metric": "loss", "value": 0.5,
            "checkpoint": None} | changes


# Atomic writes --------------------------------------------------------------------------------------------------------


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "deep" / "file"
    atomic_write(path, "a long old content")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    atomic_write(path, "old")
    with pytest.raises(ZeroDivisionError), atomic(path) as aside:
        aside.write_text("half")
        1 / 0
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_killed_between_write_and_rename_leaves_the_old_file(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_info({"epoch": 1})
    program = ("import os, signal, sys, mtcore.runfolder as r\n"
               "r.os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
               "r.RunFolder(sys.argv[1]).write_info({'epoch': 2})")
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert folder.info["epoch"] == 1
    assert len(os.listdir(tmp_path)) == 2  # what was written aside lies there until someone cleans
    folder.clean()
    assert os.listdir(tmp_path) == ["run.json"]


# run.json, run.log ----------------------------------------------------------------------------------------------------


def test_info_is_empty_without_a_file_and_updates_keep_the_rest(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert folder.info == {} and not folder.path.exists()
    folder.write_info({"status": "running", "root": tmp_path, "seconds": np.float32(0.5), "labels": LABELS})
    folder.update_info(status="done", epoch=np.int64(3))
    assert folder.info == {"format": 1, "status": "done", "root": str(tmp_path), "seconds": 0.5, "labels": list(LABELS), "epoch": 3}
    with pytest.raises(TypeError, match="object"):
        folder.write_info({"model": object()})
    assert folder.info["status"] == "done"


@pytest.mark.parametrize(("written", "told"), [('{"status": "done"}', "found None, which mtcore of another version wrote"),
                                               ('{"format": 0, "versions": {"mtcore": "0.0.1"}}', "found 0, which mtcore 0.0.1 wrote")])
def test_a_run_of_another_format_is_not_opened(tmp_path, written, told):
    (tmp_path / "run.json").write_text(written)
    with pytest.raises(DataError, match=f"expected a run of format 1, {told}"):
        RunFolder(tmp_path).info


def test_a_damaged_run_json_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"status": ')
    with pytest.raises(DataError, match="run.json: expected a run's JSON"):
        RunFolder(tmp_path).info


def test_log_lines_are_dated_and_appended(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log("first")
    folder.log("dropped two clips:\n7.wav\n8.wav")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line[20:] for line in lines[:2]] == ["first", "dropped two clips:"]
    assert lines[0][:2] == "20" and lines[2:] == ["    7.wav", "    8.wav"]


# metrics.jsonl --------------------------------------------------------------------------------------------------------


def test_metrics_come_back_as_plain_values(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.metrics() == []
    folder.append_metrics([row(1, value=np.float32(0.25)), row(np.int64(1), part="test", task="train", checkpoint="best")])
    folder.append_metrics([row(2, value=float("nan")), row(2, value=np.float32("inf"), metric="recall/怒り")])
    assert [line["value"] for line in folder.metrics()] == [0.25, 0.5, None, None]
    assert folder.metrics("test") == [row(1, part="test", task="train", checkpoint="best")]
    assert len(folder.metrics("train")) == 3
    for line in (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


@settings(max_examples=40, deadline=None)
@given(epochs=st.lists(st.integers(1, 5), max_size=8), kept=st.integers(0, 6), cut=st.integers(0, 100))
def test_continuing_after_an_epoch_drops_later_and_half_written_lines(tmp_path_factory, epochs, kept, cut):
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.append_metrics([row(epoch) for epoch in sorted(epochs)])
    path = folder.path / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:len(content) - cut])  # a kill in the middle of a write
    whole = content[:len(content) - cut].count(b"\n")
    assert folder.metrics() == [row(epoch) for epoch in sorted(epochs)[:whole]]
    folder.truncate_metrics(kept)
    folder.append_metrics([row(kept + 1)])
    assert folder.metrics() == [row(epoch) for epoch in sorted(epochs)[:whole] if epoch <= kept] + [row(kept + 1)]


# Fitted state ---------------------------------------------------------------------------------------------------------


def test_fitted_state_comes_back_with_types_and_shapes(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(DataError, match="pipeline: expected state.npz and pipeline.json .*; run it again"):
        folder.load_state()
    states = {("standardize", "shared"): {"mean": np.arange(6, dtype=np.float32).reshape(2, 3), "file": np.array(7)},
              ("crop/пад", "ravdess"): {"length": np.array([3], np.int64), "name": np.array("median")}, ("empty", "shared"): {}}
    folder.save_state({("old", "shared"): {"gone": np.ones(3)}})
    folder.save_state(states)
    loaded = folder.load_state()
    assert list(loaded) == list(states)
    for key, state in states.items():
        assert list(loaded[key]) == list(state)
        for name, array in state.items():
            np.testing.assert_array_equal(loaded[key][name], array, strict=True)


def test_fitted_state_is_never_pickled(tmp_path):
    folder = RunFolder(tmp_path)
    with pytest.raises(PluginError, match="step 'mine'.*'model'"):
        folder.save_state({("mine", "shared"): {"model": object()}})
    assert not (tmp_path / "pipeline" / "pipeline.json").exists()
    folder.save_state({("mine", "shared"): {"model": np.ones(1)}})
    np.savez(tmp_path / "pipeline" / "state.npz", **{"0-0": np.array([print], dtype=object)})
    with pytest.raises(DataError, match="allow_pickle"):
        folder.load_state()


# Predictions ----------------------------------------------------------------------------------------------------------


def every_kind():
    clips, rng = ["d/1", "d/ü 2"], np.random.default_rng(0)
    frames = [rng.random((3, 4)), rng.random((3, 2))]
    return {
        "binary": Predictions(Task.binary("binary"), clips, rng.random(2), np.array([0, 1]), np.array([1, 1])),
        "multiclass": Predictions(Task.multiclass("multiclass", LABELS), clips, rng.random((2, 3)),
                                  np.array([0, 2]), np.array([1, 2]), trained=(0, 2)),
        "multilabel": Predictions(Task.multilabel("multilabel", LABELS), clips, rng.random((2, 3)),
                                  np.eye(2, 3, dtype=np.uint8), np.ones((2, 3), np.uint8)),
        "regression": Predictions(Task.regression("regression", "s"), clips, np.array([0.1, 2]),
                                  np.array([0.1, 2]), np.array([0.3, 1e9])),
        "events": Predictions(Task.events("events", LABELS), clips, frames,
                              [[(0.25, 1.0, 2), (0.1, 0.7, 0)], []], [[], [(0.0, 9.5, 1)]], hop=0.02, first=0.01),
        "array": Predictions(Task.array("array", (None, 2)), clips, [np.ones((3, 2)), np.ones((1, 2))],
                             [np.zeros((3, 2)), np.ones((1, 2))], [np.ones((3, 2)), np.zeros((1, 2))]),
        "none": Predictions(Task.none("none"), clips, rng.random((2, 5)), None, [None, None])}


def same(one, other):
    if one is None or other is None:
        return one is other
    single = lambda value: np.asarray(value, np.float32)  # what scores are stored in
    return len(one) == len(other) and all(np.array_equal(single(a), single(b)) for a, b in zip(one, other))


@pytest.mark.parametrize("kind", list(every_kind()))
def test_predictions_of_every_kind_come_back(tmp_path, kind):
    found, folder = every_kind()[kind], RunFolder(tmp_path)
    decided = None if found.decided is None else found.decided[:1]
    fewer = Predictions(found.task, found.clips[:1], found.scores[:1], decided, found.targets[:1])
    folder.save_predictions("best", {"validation": {kind: fewer}, "test": {kind: found}})
    loaded = folder.load_predictions("best")
    assert list(loaded) == ["validation", "test"] and loaded["validation"][kind].clips == found.clips[:1]
    again = loaded["test"][kind]
    assert (again.task, again.clips, again.trained) == (found.task, found.clips, found.trained)
    assert (again.hop, again.first) == (found.hop, found.first)
    assert type(again.scores) is type(found.scores) and same(again.scores, found.scores)
    if kind == "none":
        assert again.decided is None and again.targets is None
    elif kind == "events":
        assert (again.decided, again.targets) == (found.decided, found.targets)
    else:
        assert same(again.decided, found.decided) and same(again.targets, found.targets)
    assert folder.load_predictions("last") == {}


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression", "events"])
def test_a_part_without_labelled_clips_comes_back_empty(tmp_path, kind):
    task, folder = every_kind()[kind].task, RunFolder(tmp_path)
    folder.save_predictions("last", {"test": {kind: Predictions(task, [], np.zeros((0,)), np.zeros((0,)), [])}})
    found = folder.load_predictions("last")["test"][kind]
    assert found.clips == [] and len(found.scores) == len(found.decided) == len(found.targets) == 0


def test_predictions_are_a_table_that_others_can_read(tmp_path):
    RunFolder(tmp_path).save_predictions("best", {"test": {"events": every_kind()["events"]}})
    table = pq.read_table(tmp_path / "predictions" / "best" / "events.parquet")
    assert table.column_names == ["part", "clip", "target", "decided", "scores", "shape"]
    assert table["decided"].to_pylist()[0][0] == {"onset": 0.25, "offset": 1.0, "label": 2}
    assert str(table.schema.field("scores").type.value_type) == "float"
    assert json.loads(table.schema.metadata[b"mtcore"])["task"]["labels"] == list(LABELS)
