"""Figures against scikit-learn and sed_eval, and the properties that all metrics share."""

import pickle
import sys
import types
import warnings

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcore.builtin.metrics import Classification, Events, Multilabel, Regression, confusion
from mtcore.plugin import Predictions, Task

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # dcase_util, which sed_eval rests on, imports a module that setuptools 81 dropped, and needs it for its examples only
    absent = "pkg_resources" not in sys.modules
    sys.modules.setdefault("pkg_resources", types.ModuleType("pkg_resources"))
    from sed_eval.sound_event import SegmentBasedMetrics
    if absent:
        del sys.modules["pkg_resources"]

LABELS = ("a", "b", "c", "d")
quick = settings(max_examples=30, deadline=None)


def predictions(task, targets, decided, scores=None, trained=None):
    scores = decided if scores is None else scores
    return Predictions(task, [f"set/{i}" for i in range(len(targets))], scores, decided, targets, trained=trained)


def figures(metric, found):
    measure = metric.build(found.task)
    measure.update(found)
    return measure.compute()


def close(found, expected):
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@st.composite
def classes(draw):
    pairs = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
    return predictions(Task.multiclass("t", LABELS), *np.array(pairs).T)


@st.composite
def sets(draw):
    clips, labels = draw(st.integers(1, 20)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = rng.random((clips, labels)).round(1)
    targets, decided = rng.integers(0, 2, (clips, labels)), (scores > 0.5).astype(np.uint8)
    return predictions(Task.multilabel("t", LABELS[:labels]), targets, decided, scores)


@st.composite
def values(draw):
    pairs = draw(st.lists(st.tuples(*[st.floats(-1e3, 1e3, width=16)] * 2), min_size=1, max_size=20))
    return predictions(Task.regression("t"), *np.array(pairs).T)


@st.composite
def events(draw):
    event = st.builds(lambda start, length, label: (start / 8, (start + length) / 8, label),
                      st.integers(0, 60), st.integers(0, 40), st.integers(0, 3))
    clips = draw(st.lists(st.tuples(*[st.lists(event, max_size=4)] * 2), min_size=1, max_size=6))
    return predictions(Task.events("t", LABELS), [true for true, _ in clips], [decided for _, decided in clips])


@quick
@given(classes())
def test_classification_equals_sklearn_over_the_tested_labels(found):
    got = figures(Classification(), found)
    tested = sorted(set(found.targets))
    rates = oracle.precision_recall_fscore_support(found.targets, found.decided, labels=range(4), zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "support"), rates):
        close({key: value for key, value in got.items() if key.startswith(f"{name}/")},
              {f"{name}/{LABELS[i]}": column[i] for i in (range(4) if name == "support" else tested)})
    for average in ("macro", "weighted"):
        means = oracle.precision_recall_fscore_support(found.targets, found.decided, labels=tested, average=average,
                                                       zero_division=0)
        close([got[f"{name}_{average}"] for name in ("precision", "recall", "f1")], list(means[:3]))
    close(got["accuracy"], oracle.accuracy_score(found.targets, found.decided))
    assert (confusion(found) == oracle.confusion_matrix(found.targets, found.decided, labels=range(4))).all()


@quick
@given(sets())
def test_multilabel_equals_sklearn_over_the_tested_labels(found):
    got = figures(Multilabel(), found)
    tested = [i for i, column in enumerate(found.targets.T) if column.any()]
    for i, label in enumerate(found.task.labels):
        true, decided = found.targets[:, i], found.decided[:, i]
        rates = oracle.precision_recall_fscore_support(true, decided, average="binary", zero_division=0)
        assert got[f"support/{label}"] == found.targets[:, i].sum()
        assert (f"f1/{label}" in got) == (i in tested)
        if i in tested:
            close([got[f"{name}/{label}"] for name in ("precision", "recall", "f1")], list(rates[:3]))
    if tested:
        close(got["f1_macro"], np.mean([got[f"f1/{found.task.labels[i]}"] for i in tested]))
    else:
        assert "f1_macro" not in got
    if found.targets.any() or found.decided.any():
        close(got["f1_micro"], oracle.f1_score(found.targets.ravel(), found.decided.ravel(), zero_division=0))
    close(got["accuracy_subset"], (found.targets == found.decided).all(axis=1).mean())
    ranked = [i for i in tested if not found.targets[:, i].all()]
    if ranked:
        close(got["average_precision_macro"],
              np.mean([oracle.average_precision_score(found.targets[:, i], found.scores[:, i]) for i in ranked]))
    else:
        assert "average_precision_macro" not in got


@quick
@given(values())
def test_regression_equals_sklearn(found):
    got = figures(Regression(), found)
    close(got["mae"], oracle.mean_absolute_error(found.targets, found.decided))
    close(got["rmse"], oracle.root_mean_squared_error(found.targets, found.decided))
    assert ("r2" in got) == (len(set(found.targets)) > 1)
    if "r2" in got:
        close(got["r2"], oracle.r2_score(found.targets, found.decided))


@pytest.mark.parametrize("segment", [1.0, 0.25, 0.7])
@settings(max_examples=15, deadline=None)
@given(found=events())
def test_events_equal_sed_eval(found, segment):
    reference = SegmentBasedMetrics(list(LABELS), time_resolution=segment)
    for true, decided in zip(found.targets, found.decided):
        if true or decided:
            reference.evaluate(*([{"event_onset": onset, "event_offset": offset, "event_label": LABELS[label]}
                                  for onset, offset, label in listed] for listed in (true, decided)))
    got, overall = figures(Events(segment=segment), found), reference.overall
    assert ("error_rate_segment" in got) == (overall["Nref"] > 0)
    assert ("f1_segment" in got) == (overall["Nref"] + overall["Nsys"] > 0)
    if overall["Nref"]:
        close(got["error_rate_segment"], reference.overall_error_rate()["error_rate"])
    if overall["Nref"] and overall["Nsys"]:
        close(got["f1_segment"], reference.overall_f_measure()["f_measure"])
    for label in LABELS:
        count = reference.class_wise[label]
        assert got.get(f"support/{label}", 0) == count["Nref"]
        assert (f"f1_segment/{label}" in got) == (count["Nref"] > 0)
        if count["Nref"]:
            close(got[f"f1_segment/{label}"], 2 * count["Ntp"] / (count["Nref"] + count["Nsys"]))


@quick
@given(st.one_of(st.tuples(st.just(Classification()), classes()), st.tuples(st.just(Multilabel()), sets()),
                 st.tuples(st.just(Regression()), values()), st.tuples(st.just(Events()), events())), st.randoms())
def test_any_order_and_any_partition_give_the_same_figures(case, random):
    metric, found = case
    order = list(range(len(found.clips)))
    random.shuffle(order)
    cut = random.randrange(len(order) + 1)

    def piece(rows):
        take = lambda column: [column[i] for i in rows] if isinstance(column, list) else column[rows]
        return predictions(found.task, take(found.targets), take(found.decided), take(found.scores))

    here, there = metric.build(found.task), metric.build(found.task)
    here.update(piece(order[:cut]))
    there.update(piece(order[cut:]))
    here.merge(pickle.loads(pickle.dumps(there)))  # as between processes
    close(here.compute(), figures(metric, found))
    assert metric.primary in here.compute() or not any(map(np.any, found.targets))


@pytest.mark.parametrize("metric, task, nothing", [
    (Classification(), Task.binary("t"), np.empty(0, int)), (Multilabel(), Task.multilabel("t", LABELS), np.empty((0, 4))),
    (Regression(), Task.regression("t"), np.empty(0)), (Events(), Task.events("t", LABELS), [])])
def test_without_clips_nothing_is_defined(metric, task, nothing):
    assert task.kind in metric.kinds
    assert figures(metric, predictions(task, nothing, nothing)) == {}
    assert metric.build(task).compute() == {}


def test_a_class_absent_from_training_counts_as_recall_0_even_if_hit_by_luck():
    found = predictions(Task.multiclass("t", LABELS[:3]), np.array([0, 0, 1, 2]), np.array([0, 0, 1, 2]), trained=(0, 2))
    got = figures(Classification(), found)
    assert (got["recall/b"], got["recall_macro"], got["accuracy"]) == pytest.approx((0, 2 / 3, 3 / 4))
    assert confusion(found)[1, 1] == 1  # what was decided stays visible


def test_a_class_absent_from_test_is_left_out_of_the_macro_mean():
    got = figures(Classification(), predictions(Task.multiclass("t", LABELS), np.array([0, 0, 1]), np.array([0, 3, 1])))
    assert got["recall_macro"] == pytest.approx((1 / 2 + 1) / 2)
    assert got["support/d"] == 0 and "recall/d" not in got


def test_labels_that_training_lacked_count_for_sets_and_events_too():
    both = np.ones((2, 2), int)
    got = figures(Multilabel(), predictions(Task.multilabel("t", "ab"), both, both, trained=(0,)))
    assert (got["f1/a"], got["f1/b"], got["f1_macro"]) == (1, 0, 0.5)
    heard = [[(0.0, 1.0, 0), (0.0, 1.0, 1)]]
    got = figures(Events(), predictions(Task.events("t", "ab"), heard, heard, trained=(0,)))
    assert (got["f1_segment/b"], got["error_rate_segment"]) == (0, 0.5)


def test_hand_counted_error_rate():
    """One segment with a substitution, one with an insertion, one with a deletion, of three true segments."""
    found = predictions(Task.events("t", "ab"), [[(0.0, 1.0, 0), (2.0, 4.0, 0)]], [[(0.0, 2.0, 1), (2.5, 3.0, 0)]])
    got = figures(Events(), found)
    assert got["error_rate_segment"] == pytest.approx(3 / 3)
    assert got["f1_segment"] == pytest.approx(2 * 1 / (3 + 3))
