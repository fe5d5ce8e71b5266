"""Estimators beside the network: same rows, figures and files; scikit-learn by hand as the oracle."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import sklearn.metrics
import torch
from click.testing import CliRunner
from mtcore_trainers.estimators import SklearnRun, Summary, raw
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from mtcore.cli import main
from mtcore.plugin import MtcoreError, Task

ALL = {"a": {"chosen": ("label", "size"), "missing": 5}, "b": {"chosen": ("tags", "odd"), "offset": 100, "clips_": 36}}


def summarised(run, part):
    """[clips, values], and the targets of each, one clip at a time."""
    data, x, targets = run.data(), [], []
    for row, (d, c) in enumerate(data.clips(part)):
        one = data.rows(part).batch([row]).inputs["main"].double().numpy()[0]
        x.append(np.concatenate([one.mean(-1, keepdims=True), one.std(-1, keepdims=True)], -1).ravel())
        targets.append(data.encoded[data.datasets[d].name][c])
    return np.stack(x), targets


FOREST = {"use": "sklearn.ensemble:RandomForestClassifier", "n_estimators": 5}
NAMED = {"label": {"use": "sklearn.svm:SVC", "C": 3.0}, "size": {"use": "sklearn.linear_model:Ridge", "alpha": 9.0},
         "tags": FOREST}


@pytest.mark.parametrize("estimators", [{}, NAMED], ids=["default", "named"])
def test_predictions_are_those_of_scikit_learn(make, estimators):
    run, = make({"use": "trainers.sklearn", "estimators": estimators}, {**ALL, "a": {**ALL["a"], "longer": 0.1}},
                model={"trunk": {"use": "core.cnn", "channels": [4]}}).run()
    train, encoded = summarised(run, "train")
    tested, truths = summarised(run, "test")
    plain = LogisticRegression(max_iter=1000)
    models = {"label": SVC(C=3.0) if estimators else plain, "size": Ridge(9.0) if estimators else Ridge(), "odd": plain,
              "tags": None if estimators else OneVsRestClassifier(plain)}
    found = {name: run.folder.load_predictions(name)["test"] for name in ("best", "last")}
    for task, model in models.items():
        one, has = found["best"][task], [task in some for some in encoded]
        assert np.array_equal(one.scores, found["last"][task].scores) and len(one.clips) == sum(task in some for some in truths)
        if model is None:
            continue
        y = [some[task] for some in encoded if task in some]
        y = np.array([[label in some for label in range(2)] for some in y]) if task == "tags" else np.array(y)
        mean, deviation = (y.mean(), y.std()) if task == "size" else (0, 1)
        y = (y - mean) / deviation if task == "size" else y.astype(int)
        fitted = make_pipeline(StandardScaler(), model).fit(train[has], y)
        x = tested[[task in some for some in truths]]
        if task == "size":
            assert np.allclose(one.scores, fitted.predict(x) * deviation + mean, atol=1e-4)
        elif isinstance(model, SVC):
            assert np.array_equal(one.decided, fitted.predict(x))
        else:
            p = fitted.predict_proba(x)
            assert np.allclose(one.scores, p[:, 1] if task == "odd" else p, atol=1e-4)
            assert np.array_equal(one.decided, fitted.predict(x))


def test_figures_are_in_the_tables_beside_the_network(make, tmp_path):
    vary = {"train.trainer": [{"use": "gradient", "as": "network"}, {"use": "trainers.sklearn", "as": "baseline"}]}
    network, baseline = make("gradient", ALL, vary=vary).run()
    for checkpoint in ("best", "last"):
        test = {(line["task"], line["metric"]): line["value"] for line in baseline.folder.metrics("test")
                if line["checkpoint"] == checkpoint}
        other = {(line["task"], line["metric"]) for line in network.folder.metrics("test") if line["checkpoint"] == checkpoint}
        assert set(test) == other
        label, size, odd = (baseline.folder.load_predictions(checkpoint)["test"][task] for task in ("label", "size", "odd"))
        assert test["odd", "accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(odd.targets, odd.decided))
        assert test["size", "mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(size.targets, size.decided), rel=1e-5)
        loss = sklearn.metrics.log_loss(label.targets, label.scores, labels=[0, 1, 2])
        assert test["label", "loss"] == pytest.approx(loss, rel=1e-3)
    assert set(baseline.folder.load_predictions("best")) == {"validation", "test"}
    result = CliRunner().invoke(main, ["compare", str(tmp_path / "runs" / "t")])
    assert result.exit_code == 0 and "baseline" in result.output and "network" in result.output, result.output


def test_no_model_is_kept_and_a_second_run_skips(make):
    experiment = make("trainers.sklearn", ALL)
    run, = experiment.run()
    before = {path: path.stat().st_mtime_ns for path in run.folder.path.rglob("*") if path.is_file()}
    assert not list(run.folder.path.rglob("*.pt")) and run.done and run.folder.info["parameters"] == 0
    make("trainers.sklearn", ALL).run()
    assert {path: path.stat().st_mtime_ns for path in run.folder.path.rglob("*") if path.is_file()} == before


def test_cut_off_it_fits_again(make, monkeypatch):
    trainer = {"use": "trainers.sklearn", "estimators": {"label": FOREST}}
    whole, = make(trainer, ALL, runs="whole").run()
    from mtcore.runfolder import RunFolder
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "save_predictions", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        make(trainer, ALL, runs="cut").run()
    again, = make(trainer, ALL, runs="cut").run()
    assert again.done and (again.folder.path / "metrics.jsonl").read_text() == (whole.folder.path / "metrics.jsonl").read_text()


def test_padding_is_no_part_of_a_summary(make):
    run, = make("trainers.sklearn", {"a": {"longer": 0.1}}).runs()
    data = run.data()
    summary, rows = Summary.of(data), data.rows("train")
    batch = rows.batch(range(8))
    assert batch.lengths is not None
    alone = np.concatenate([summary((one := rows.batch([row])).inputs, one.lengths) for row in range(8)])
    assert np.allclose(summary(batch.inputs, batch.lengths), alone)


def test_arrays_without_time_are_flattened(make):
    summary = Summary(["y"])
    x, y = torch.randn(3, 2, 4), torch.randn(3, 5, 7)
    expected = np.concatenate([x.flatten(1), y.mean(-1), y.std(-1, correction=0)], 1)
    found = summary({"x": x, "y": y})
    assert np.allclose(np.sort(found), np.sort(expected), atol=1e-6) and np.allclose(found[:, :8], x.flatten(1))


@pytest.mark.parametrize("estimator", [LinearSVC(dual="auto"), SVC(), LogisticRegression()], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("task", [Task.multiclass("t", tuple("abcd")), Task.binary("t")], ids=lambda task: task.kind)
def test_outputs_decide_as_the_estimator_does(estimator, task):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 3)), rng.choice([0, 1] if task.kind == "binary" else [0, 2, 3], 60)  # no row has "b"
    x[:, 0] += 3 * y
    found = raw(task, estimator.fit(x, y), x)
    decided = (found >= 0).astype(int) if task.kind == "binary" else found.argmax(1)
    assert np.isfinite(found).all() and np.array_equal(decided, estimator.predict(x))


def test_one_label_in_training_is_predicted_and_told(make):
    run, = make("trainers.sklearn", {"a": {"chosen": ("always", "odd")}}).run()
    assert run.folder.load_predictions("best")["test"]["always"].decided.all()
    assert "warning: task always: all training rows have one label" in (run.folder.path / "run.log").read_text()


@pytest.mark.parametrize("estimators, says", [
    ({"label": {"use": "sklearn.svm.SVC"}}, "estimators.label.use: expected an import path such as"),
    ({"label": {"use": "sklearn.svm:SVCC"}}, "found 'sklearn.svm:SVCC'"),
    ({"label": {"use": "pathlib:Path"}}, "expected an estimator of scikit-learn's kind with fit and predict; found pathlib:Path"),
    ({"label": {"use": "sklearn.preprocessing:StandardScaler"}}, "with fit and predict"),
    ({"label": {"use": "sklearn.svm:SVC", "c": 1}}, "estimators.label.c: SVC takes C, "),
    ({"label": {"use": "sklearn.linear_model:Ridge"}}, "kind multiclass needs a classifier; found sklearn.linear_model"),
    ({"size": {"use": "sklearn.svm:SVC"}}, "a task of kind regression needs a regressor; found sklearn.svm"),
    ({"label": {"use": "sklearn.svm:SVC", "C": -1.0}}, "task label: SVC cannot be fitted on .* rows of .* values: Invalid")])
def test_estimators_that_cannot_be(make, estimators, says):
    experiment = make({"use": "trainers.sklearn", "estimators": estimators})
    if "cannot be fitted" not in says:
        with pytest.raises(MtcoreError, match=says):
            experiment.check()
    with pytest.raises(MtcoreError, match=says):
        experiment.run()


def test_tasks_that_no_estimator_learns(make):
    for act in ("check", "run"):
        experiment = make("trainers.sklearn", {"a": {"chosen": ("label", "beep")}},
                          model={"trunk": {"use": "core.cnn", "channels": [4]}})
        with pytest.raises(MtcoreError, match="sklearn learns .* binary, multiclass, multilabel; beep is of kind events"):
            getattr(experiment, act)()


# Applied --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimators", [{}, {"label": FOREST, "odd": {"use": "sklearn.svm:LinearSVC"}}], ids=["default", "named"])
def test_predict_fits_again_and_says_what_the_run_did(recorded, estimators):
    run = recorded({"use": "trainers.sklearn", "estimators": estimators})
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["best.npz"]
    run.agrees()


def test_estimators_are_fitted_again_to_the_same_bits(make, monkeypatch):
    found, whole = [], SklearnRun.fit
    monkeypatch.setattr(SklearnRun, "fit", lambda *given: found.append(whole(*given)) or found[-1])
    run, = make({"use": "trainers.sklearn", "estimators": {"label": FOREST}}, ALL, seed=7).run()
    trainer = run.builder.training("trainer").component.build()
    trainer.restore(run.folder.checkpoint("best"), run.tasks, {}, False)
    first, again = found
    assert np.array_equal(first["size"][-1].coef_, again["size"][-1].coef_) and first["label"][-1].random_state == 7
    x = np.random.default_rng(0).standard_normal((50, first["label"].n_features_in_))
    assert np.array_equal(first["label"].predict_proba(x), again["label"].predict_proba(x))


def test_what_is_kept_is_numbers_and_small(make):
    run, = make("trainers.sklearn", ALL).run()
    data, path = run.data(), run.folder.checkpoint("best")
    with np.load(path, allow_pickle=False) as kept:
        x, rows = summarised(run, "train")
        assert np.allclose(kept["x"], x, atol=1e-6) and kept["x"].dtype == np.float32 and list(kept["timed"]) == ["main"]
        for task in data.tasks:
            assert np.flatnonzero([task in some for some in rows]).tolist() == kept[f"rows/{task}"].tolist()
    assert 4 * x.size < path.stat().st_size < 4 * x.size + 20000


def test_a_run_that_keeps_nothing_says_so(recorded):
    run = recorded({"use": "trainers.sklearn", "keep": "nothing"})
    result = run.predict()
    assert result.exit_code == 2 and not (run.path / "checkpoints").exists()
    assert "expected a checkpoint 'best', found none; what a trainer keeps, its parameters say: mtcore info t" in result.output


def test_of_last_there_is_no_other_model(recorded):
    result = recorded("trainers.sklearn").predict("--checkpoint", "last")
    assert result.exit_code == 2 and "expected a checkpoint 'last', found best.npz" in result.output


def change(path, values):
    """The estimator of `label` that a run's folder names."""
    info = json.loads((path / "run.json").read_text())
    info["config"]["train"]["trainer"]["estimators"] = {"label": values}
    (path / "run.json").write_text(json.dumps(info))


def test_a_strangers_run_imports_nothing_but_scikit_learn(recorded, tmp_path, monkeypatch):
    run = recorded("trainers.sklearn")
    (tmp_path / "strange.py").write_text(
        "from sklearn.linear_model import LogisticRegression\nclass Mine(LogisticRegression): pass\nprint('it runs')\n")
    monkeypatch.syspath_prepend(tmp_path)
    change(run.path, {"use": "strange:Mine"})
    result = run.predict()
    assert result.exit_code == 2 and "it runs" not in result.output
    assert "the estimator of label is strange:Mine, code that is not scikit-learn's; only with --trust" in result.output
    result = run.predict("--trust")
    assert result.exit_code == 0 and "it runs" in result.output
    change(run.path, {"use": "absent:Mine"})
    result = run.predict("--trust")
    assert result.exit_code == 2 and "expected an import path" in result.output and "No module named 'absent'" in result.output


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(path.read_bytes()[:200]), lambda path: np.savez(path, x=np.zeros(3)),
    lambda path: np.savez(path, x=np.array([{}]))], ids=["cut", "lacking", "objects"])
def test_rows_that_are_not_as_they_were(recorded, spoil):
    run = recorded("trainers.sklearn")
    spoil(run.path / "checkpoints" / "best.npz")
    result = run.predict()
    assert result.exit_code == 1 and "best.npz: expected the rows that estimators were fitted on, found " in result.output


def test_as_an_input_and_as_a_teacher(recorded):
    """Logarithms of what the run says, up to a constant; of a representation there is none."""
    run = recorded("trainers.sklearn")
    label = {"main": {"extractor": {"use": "core.run", "run": str(run.path), "what": "label"}}}
    heard, = run.beside(inputs=label, model={"trunk": "core.mlp"}).runs()
    said = dict(zip(run.found["label"].clips, run.found["label"].scores))
    batch = heard.data().rows("test").batch(range(5))
    for clip, values in zip(batch.clips, batch.inputs["main"]):
        assert np.allclose(values[0].softmax(0), said[clip], atol=1e-5)
    taught, = run.beside(teachers={"old": {"run": str(run.path)}}).runs()
    batch = taught.data().rows("test").batch(range(5))
    for clip, values in zip(batch.clips, batch.teachers["old"]["label"]):
        assert np.allclose(values.softmax(0), said[clip], atol=1e-5)
    with pytest.raises(MtcoreError, match="its model hands over no representation; take one of "):
        run.beside(inputs={"main": {"extractor": {"use": "core.run", "run": str(run.path)}}}).extract()


def test_without_skops_it_is_said_before_anything_is_fitted(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops.io", None)
    for act in ("check", "run"):
        with pytest.raises(MtcoreError, match=r'expected the library skops, .*pip install "mtcore-trainers\[skops\]"') as caught:
            getattr(make({"use": "trainers.sklearn", "keep": "skops"}), act)()
        assert caught.value.exit_code == 3
