"""Estimators that are kept through skops."""

from __future__ import annotations

import sys

import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

TRAINER = {"use": "trainers.sklearn", "keep": "skops", "estimators": {
    "label": {"use": "sklearn.svm:SVC"}, "size": {"use": "sklearn.svm:SVR"},
    "odd": {"use": "sklearn.neighbors:KNeighborsClassifier"}}}


class Strange(LogisticRegression):
    """A type that skops does not know."""


@pytest.fixture
def run(recorded):
    return recorded(TRAINER)


def test_predict_reads_what_was_fitted(run, monkeypatch):
    from mtcore_trainers.estimators import SklearnRun

    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["best.skops"] and "only --trust" not in run.log
    monkeypatch.setattr(SklearnRun, "fit", None)  # nothing is fitted again
    run.agrees()


def test_a_strange_type_is_named_and_not_read(run):
    path = run.path / "checkpoints" / "best.skops"
    kept = skops.io.load(path)
    steps = kept["fitted"]["label"].steps
    strange = Strange().fit([[one] * kept["fitted"]["label"].n_features_in_ for one in (0.0, 1.0)], [0, 1])
    kept["fitted"]["label"].steps = [*steps[:-1], ("strange", strange)]
    skops.io.dump(kept, path)
    result = run.predict()
    assert result.exit_code == 2 and "best.skops: expected types that skops trusts, found" in result.output
    assert f"{Strange.__module__}.Strange" in result.output
    assert run.predict("--trust").exit_code == 0


def test_trees_whose_indices_nobody_checks_need_trust(recorded):
    run = recorded({**TRAINER, "estimators": {"label": {"use": "sklearn.tree:DecisionTreeClassifier"}}})
    result = run.predict()
    assert result.exit_code == 2 and "found sklearn.tree._tree.Tree" in result.output
    run.agrees("--trust")


def test_types_that_only_trust_reads_are_told_when_they_are_kept(recorded, monkeypatch):
    monkeypatch.setitem(sys.modules, "strange_estimators", type("Module", (), {"Strange": Strange}))
    run = recorded({**TRAINER, "estimators": {"label": {"use": "strange_estimators:Strange"}}})
    assert f"warning: of the estimators kept, only --trust reads {Strange.__module__}.Strange" in run.log
    run.agrees("--trust")


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:200]), lambda path: skops.io.dump([1], path),
                                   lambda path: skops.io.dump({"timed": []}, path)], ids=["cut", "list", "lacking"])
def test_a_file_that_is_not_as_it_was(run, spoil):
    spoil(run.path / "checkpoints" / "best.skops")
    result = run.predict()
    assert result.exit_code == 1 and "best.skops: expected estimators as skops writes them, found " in result.output
