"""Estimators beside the network: same rows, figures and files; scikit-learn by hand as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
import torch
from click.testing import CliRunner
from mtcore_trainers.estimators import Summary, raw
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
    summary, rows = Summary(data), data.rows("train")
    batch = rows.batch(range(8))
    assert batch.lengths is not None
    alone = np.concatenate([summary((one := rows.batch([row])).inputs, one.lengths) for row in range(8)])
    assert np.allclose(summary(batch.inputs, batch.lengths), alone)


def test_arrays_without_time_are_flattened(make):
    summary = object.__new__(Summary)
    summary.timed = {"x": False, "y": True}
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
