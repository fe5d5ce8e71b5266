"""Figures against scikit-learn and scipy; what is undefined; pieces in any order; runs through the public door."""

import pickle
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_metrics.agreement import CohenKappa, Concordance, Mcc, Pearson
from mtcore_metrics.events import Psds
from mtcore_metrics.probability import CalibrationError, LogLoss
from mtcore_metrics.ranking import AveragePrecision, EqualErrorRate, MapAtK, RocAuc, TopK
from scipy import optimize, stats

import mtcore
from mtcore.plugin import Clip, Lazy, ParameterError, PluginError, Predictions, Reader, Task
from mtcore.testing import parametrize_checks

NAMES = "abcd"
CLASSES, TAGS, BINARY, VALUE = Task.multiclass("c", NAMES), Task.multilabel("m", NAMES), Task.binary("b"), Task.regression("r")
METRICS = [AveragePrecision(), RocAuc(), EqualErrorRate(), TopK(k=2), MapAtK(), MapAtK(k=1), CohenKappa(),
           CohenKappa(weights="linear"), Mcc(), Concordance(), Pearson(), LogLoss(), CalibrationError(), CalibrationError(bins=3)]
CASES = [(metric, task) for metric in METRICS for task in (CLASSES, TAGS, BINARY, VALUE) if task.kind in metric.kinds]
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=40, deadline=None)


@parametrize_checks("metrics")
def test_conformance(check):
    check()


def example(task, seed=0, clips=None, ties=False):
    """What a head gives: probabilities that know a little of the truth (some equal, with `ties`), and its decisions."""
    rng = np.random.default_rng(seed)
    clips = int(rng.integers(1, 30)) if clips is None else clips
    if task is VALUE:
        targets = rng.normal(3, 2, clips)
        scores = decided = targets + rng.normal(1, 1, clips)
    elif task is CLASSES:
        targets = rng.integers(0, 4, clips)
        logits = rng.normal(size=(clips, 4)) + np.eye(4)[targets]
        scores = np.exp(logits.round() if ties else logits)
        scores /= scores.sum(axis=1, keepdims=True)
        decided = scores.argmax(axis=1)
    else:
        shape = (clips, 4) if task is TAGS else (clips,)
        targets = rng.integers(0, 2, shape)
        scores = 1 / (1 + np.exp(-rng.normal(size=shape) - targets))
        scores = scores.round(1) if ties else scores
        decided = (scores >= 0.5).astype(int)
    return predictions(task, targets, scores, decided)


def predictions(task, targets, scores, decided=None, trained=None):
    targets, scores = np.asarray(targets), np.asarray(scores, float)
    decided = scores if decided is None else np.asarray(decided)
    return Predictions(task, [f"s/{i}" for i in range(len(targets))], scores, decided, targets, trained=trained)


def figures(metric, *found):
    measure = metric.build(found[0].task)
    for one in found:
        measure.update(one)
    return measure.compute()


def one_hot(found):
    """True [clips, columns] and scores likewise, as each metric against the rest is defined."""
    if found.task is CLASSES:
        return np.eye(4, dtype=int)[found.targets], found.scores
    return found.targets.reshape(len(found.clips), -1), found.scores.reshape(len(found.clips), -1)


def equal_error_rate(true, scores):
    """Root of misses - false alarms along the ROC curve, as a continuous function of a place on it."""
    alarms, hits, _ = oracle.roc_curve(true, scores, drop_intermediate=False)
    along = np.arange(len(alarms))
    at = lambda place, values: np.interp(place, along, values)
    return at(optimize.brentq(lambda place: 1 - at(place, hits) - at(place, alarms), 0, len(alarms) - 1), alarms)


def mann_whitney(true, scores):
    true = true.astype(bool)
    return stats.mannwhitneyu(scores[true], scores[~true]).statistic / (true.sum() * (~true).sum())


# Rankings -------------------------------------------------------------------------------------------------------------


@few
@given(st.sampled_from([CLASSES, TAGS, BINARY]), seeds, st.booleans(), st.sampled_from([
    (AveragePrecision(), "average_precision", oracle.average_precision_score), (RocAuc(), "roc_auc", mann_whitney),
    (EqualErrorRate(), "eer", equal_error_rate)]))
def test_a_label_against_the_rest(task, seed, ties, case):
    metric, name, reference = case
    found = example(task, seed, ties=ties)
    true, scores = one_hot(found)
    labels = task.labels[1:] if task is BINARY else task.labels
    expected = {f"{name}/{label}": reference(true[:, i], scores[:, i]) for i, label in enumerate(labels) if np.ptp(true[:, i])}
    if expected:
        expected[f"{name}_macro"] = np.mean(list(expected.values()))
    if np.ptp(true):
        expected[f"{name}_micro"] = reference(true.ravel(), scores.ravel())
    assert figures(metric, found) == pytest.approx(expected, abs=1e-9)


@few
@given(seeds)
def test_equal_error_rate_lies_between_the_errors_of_all_thresholds_and_forgets_the_scale(seed):
    found = example(BINARY, seed, clips=25, ties=True)
    if not np.ptp(found.targets):
        return
    value = figures(EqualErrorRate(), found)["eer_macro"]
    misses, alarms = zip(*[((found.scores[found.targets == 1] < at).mean(), (found.scores[found.targets == 0] >= at).mean())
                           for at in [*np.unique(found.scores), 2]])
    assert np.minimum(misses, alarms).max() - 1e-9 <= value <= np.maximum(misses, alarms).min() + 1e-9
    bent = predictions(BINARY, found.targets, found.scores ** 3)
    turned = predictions(BINARY, 1 - found.targets, 1 - found.scores)
    assert figures(EqualErrorRate(), bent)["eer_macro"] == pytest.approx(value)
    assert figures(EqualErrorRate(), turned)["eer_macro"] == pytest.approx(value)


@pytest.mark.parametrize("scores, value", [([0.1, 0.2, 0.8, 0.9], 0), ([0.9, 0.8, 0.2, 0.1], 1), ([0.5] * 4, 0.5),
                                           ([0.1, 0.8, 0.2, 0.9], 0.5)])
def test_equal_error_rate_by_hand(scores, value):
    assert figures(EqualErrorRate(), predictions(BINARY, [0, 0, 1, 1], scores))["eer_macro"] == pytest.approx(value)


@few
@given(seeds, st.integers(1, 3))
def test_top_k_is_sklearns(seed, k):
    found = example(CLASSES, seed)
    got = figures(TopK(k=k), found)
    assert got[f"top_{k}"] == pytest.approx(oracle.top_k_accuracy_score(found.targets, found.scores, k=k, labels=range(4)))
    per_label = [got[f"top_{k}/{NAMES[label]}"] for label in np.unique(found.targets)]
    assert got[f"top_{k}_macro"] == pytest.approx(np.mean(per_label))
    assert got[f"top_{k}"] == pytest.approx(np.average(per_label, weights=np.unique(found.targets, return_counts=True)[1]))


def test_top_1_is_accuracy_with_equal_scores_too():
    found = example(CLASSES, 3, clips=40, ties=True)
    assert figures(TopK(k=1), found)["top_1"] == pytest.approx((found.decided == found.targets).mean())
    assert figures(TopK(k=1), found)["top_1_macro"] == pytest.approx(oracle.balanced_accuracy_score(found.targets, found.decided))


def test_top_k_of_all_labels_says_nothing():
    with pytest.raises(ParameterError, match="task c: .*k below 4"):
        TopK(k=4).build(CLASSES)


@few
@given(seeds, st.integers(1, 6))
def test_map_at_k_over_all_ranks_is_sklearns_and_of_one_label_the_reciprocal_rank(seed, k):
    found = example(TAGS, seed)
    some = found.targets.any(axis=1)
    got = figures(MapAtK(k=4), found)
    if some.any():
        expected = oracle.label_ranking_average_precision_score(found.targets[some], found.scores[some])
        assert got == pytest.approx({"map_at_4": expected})
    else:
        assert got == {}
    found = example(CLASSES, seed)
    ranks = 1 + (found.scores > found.scores[np.arange(len(found.targets)), found.targets][:, None]).sum(axis=1)
    assert figures(MapAtK(k=k), found) == pytest.approx({f"map_at_{k}": np.where(ranks <= k, 1 / ranks, 0).mean()})


def test_map_at_k_by_hand():
    """Labels a, c and d are true and the ranks are b, c, a, d: precisions 1/2 and 2/3 at the second and third, over min(3, k)."""
    found = predictions(TAGS, [[1, 0, 1, 1], [0, 0, 0, 0]], [[0.3, 0.9, 0.6, 0.1], [0.5] * 4])
    for k, value in ((1, 0), (2, 1 / 2 / 2), (3, (1 / 2 + 2 / 3) / 3), (4, (1 / 2 + 2 / 3 + 3 / 4) / 3)):
        assert figures(MapAtK(k=k), found) == pytest.approx({f"map_at_{k}": value})


def test_labels_that_training_lacked_are_never_found():
    sure = predictions(CLASSES, [0, 1, 2, 3], np.eye(4), trained=(0, 1, 3))
    assert figures(TopK(k=1), sure)["top_1"] == figures(MapAtK(), sure)["map_at_3"] == 0.75
    assert figures(TopK(k=1), sure)["top_1/c"] == 0


# Agreement ------------------------------------------------------------------------------------------------------------


@few
@given(st.sampled_from([CLASSES, BINARY]), seeds, st.sampled_from(["none", "linear", "quadratic"]))
def test_kappa_is_sklearns(task, seed, weights):
    found = example(task, seed)
    got = figures(CohenKappa(weights=weights), found)
    if np.ptp([*found.targets, *found.decided]):
        expected = oracle.cohen_kappa_score(found.targets, found.decided, weights=None if weights == "none" else weights,
                                            labels=range(len(task.labels)))
        assert got == pytest.approx({"cohen_kappa" if weights == "none" else f"cohen_kappa_{weights}": expected})
    else:
        assert got == {}


@few
@given(seeds)
def test_mcc_is_sklearns(seed):
    for task in (CLASSES, BINARY):
        found = example(task, seed)
        expected = {"mcc": oracle.matthews_corrcoef(found.targets, found.decided)} if np.ptp(found.targets) else {}
        assert figures(Mcc(), found) == pytest.approx(expected, abs=1e-12)
    found = example(TAGS, seed)
    expected = {f"mcc/{label}": oracle.matthews_corrcoef(true, decided) for label, true, decided
                in zip(NAMES, found.targets.T, found.decided.T) if np.ptp(true)}
    expected |= {"mcc": np.mean(list(expected.values()))} if expected else {}
    assert figures(Mcc(), found) == pytest.approx(expected, abs=1e-12)


def test_mcc_of_one_decision_for_all_is_0_and_of_one_truth_undefined():
    assert figures(Mcc(), predictions(CLASSES, [0, 1, 2], np.zeros((3, 4)), [1, 1, 1])) == {"mcc": 0}
    assert figures(Mcc(), predictions(CLASSES, [1, 1, 1], np.zeros((3, 4)), [0, 1, 2])) == {}


@few
@given(seeds, st.floats(0.1, 10), st.floats(-100, 100))
def test_correlations(seed, scale, shift):
    found = example(VALUE, seed)
    if len(found.clips) < 2:
        assert figures(Pearson(), found) == figures(Concordance(), found) == {}
        return
    x, y = found.decided, found.targets
    pearson, ccc = figures(Pearson(), found)["pearson"], figures(Concordance(), found)["ccc"]
    assert pearson == pytest.approx(stats.pearsonr(x, y).statistic)
    ratio = x.std() / y.std()  # Lin's accuracy, which the correlation is multiplied by
    assert ccc == pytest.approx(pearson * 2 / (ratio + 1 / ratio + (x.mean() - y.mean()) ** 2 / (x.std() * y.std())))
    assert abs(ccc) <= abs(pearson) + 1e-12
    both = predictions(VALUE, scale * y + shift, scale * x + shift)
    assert figures(Concordance(), both)["ccc"] == pytest.approx(ccc, rel=1e-6, abs=1e-9)
    one = predictions(VALUE, y, scale * x + shift)
    assert figures(Pearson(), one)["pearson"] == pytest.approx(pearson, rel=1e-6, abs=1e-9)


def test_correlations_with_equal_values():
    assert figures(Concordance(), predictions(VALUE, [1.0, 2.0, 4.0], [3.0, 3.0, 3.0])) == {"ccc": 0}
    assert figures(Pearson(), predictions(VALUE, [1.0, 2.0, 4.0], [3.0, 3.0, 3.0])) == {}
    for metric in (Concordance(), Pearson()):
        assert figures(metric, predictions(VALUE, [3.0, 3.0, 3.0], [1.0, 2.0, 4.0])) == {}


# Probabilities --------------------------------------------------------------------------------------------------------


@few
@given(seeds)
def test_log_loss_is_sklearns(seed):
    for task in (CLASSES, BINARY):
        found = example(task, seed)
        expected = oracle.log_loss(found.targets, found.scores, labels=range(len(task.labels)))
        assert figures(LogLoss(), found) == pytest.approx({"log_loss": expected})
    found = example(TAGS, seed)
    expected = np.mean([oracle.log_loss(true, scores, labels=[0, 1]) for true, scores in zip(found.targets.T, found.scores.T)])
    assert figures(LogLoss(), found) == pytest.approx({"log_loss": expected})


def test_log_loss_of_what_was_held_impossible_is_finite():
    assert figures(LogLoss(eps=1e-3), predictions(BINARY, [1, 0], [0.0, 0.0])) == pytest.approx(
        {"log_loss": -(np.log(1e-3) + np.log(1 - 1e-3)) / 2})


def calibration(probability, true, bins):
    """Bin by bin, with scipy's means of bins; its last bin alone has its upper edge, so that scores are turned around."""
    means, _, place = stats.binned_statistic(1 - probability, [probability, true], bins=bins, range=(0, 1))
    return sum(abs(means[0][i - 1] - means[1][i - 1]) * (place == i).mean() for i in np.unique(place))


@few
@given(seeds, st.sampled_from([1, 4, 16]))
def test_calibration_error(seed, bins):
    found = example(BINARY, seed)
    assert figures(CalibrationError(bins=bins), found) == pytest.approx({"ece": calibration(found.scores, found.targets, bins)})
    found = example(CLASSES, seed)
    expected = calibration(found.scores.max(axis=1), (found.scores.argmax(axis=1) == found.targets).astype(float), bins)
    assert figures(CalibrationError(bins=bins), found) == pytest.approx({"ece": expected})
    found = example(TAGS, seed)
    expected = {f"ece/{label}": calibration(found.scores[:, i], found.targets[:, i], bins) for i, label in enumerate(NAMES)}
    assert figures(CalibrationError(bins=bins), found) == pytest.approx(expected | {"ece": np.mean(list(expected.values()))})


@pytest.mark.parametrize("scores, value", [([0.25] * 4, 0), ([1.0] * 4, 0.75), ([0.0] * 4, 0.25), ([0.2, 0.2, 0.1, 0.3], 0.3)])
def test_calibration_error_by_hand_with_upper_edges_in_their_bin(scores, value):
    assert figures(CalibrationError(bins=5), predictions(BINARY, [0, 0, 0, 1], scores)) == pytest.approx({"ece": value})


# What all share -------------------------------------------------------------------------------------------------------


def taken(found, rows):
    return predictions(found.task, found.targets[rows], found.scores[rows], found.decided[rows], found.trained)


@pytest.mark.parametrize("metric, task", CASES)
@settings(max_examples=8, deadline=None)
@given(seed=seeds)
def test_any_order_and_any_partition_give_the_same_figures(metric, task, seed):
    found, rng = example(task, seed), np.random.default_rng(seed)
    order, (one, two) = rng.permutation(len(found.clips)), sorted(rng.integers(0, len(found.clips) + 1, 2))
    here, there = metric.build(task), metric.build(task)
    here.update(taken(found, order[:one]))
    here.update(taken(found, order[one:two]))
    there.update(taken(found, order[two:]))
    here.merge(pickle.loads(pickle.dumps(there)))  # as between processes
    got, expected = here.compute(), figures(metric, found)
    assert got == pytest.approx(expected)
    assert all(type(value) is float and np.isfinite(value) for value in got.values())


@pytest.mark.parametrize("metric, task", CASES)
def test_main_figure_and_direction(metric, task):
    """Perfect predictions are the best there are, and nothing is defined without clips."""
    found = example(task, 5, clips=40)
    if task is CLASSES:
        perfect = predictions(task, found.targets, np.eye(4)[found.targets], found.targets)
    else:
        perfect = predictions(task, found.targets, found.targets, found.targets)
    value, best = figures(metric, found)[metric.primary], figures(metric, perfect)[metric.primary]
    assert best == pytest.approx(1 if metric.higher_is_better else 0, abs=1e-6)
    assert value < best if metric.higher_is_better else value > best
    assert metric.build(task).compute() == figures(metric, taken(found, slice(0))) == {}


def test_a_label_that_is_not_tested_is_left_out():
    found = predictions(CLASSES, [0, 1, 0, 1], [[0.7, 0.1, 0.1, 0.1], [0.2, 0.6, 0.1, 0.1]] * 2)
    for metric in (AveragePrecision(), RocAuc(), EqualErrorRate(), TopK(k=2)):
        assert {name.partition("/")[2] for name in figures(metric, found)} == {"", "a", "b"}


def test_psds_says_how_its_library_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)
    with pytest.raises(PluginError, match=r'pip install "mtcore-metrics\[psds\]"'):
        Psds().build(Task.events("e", "ab"))


# Runs -----------------------------------------------------------------------------------------------------------------


def sound(number):
    """Half a second of a tone whose height says everything."""
    rng = np.random.default_rng(number)
    tone = np.sin(2 * np.pi * (150 + 200 * (number % 4)) * np.arange(1000) / 2000)
    return (tone + 0.1 * rng.standard_normal(1000)).astype(np.float32)[None], 2000


@dataclass(frozen=True, kw_only=True)
class Sounds(Reader):
    """Forty tones with four tasks."""

    generated = True

    def tasks(self, root):
        return [CLASSES, TAGS, BINARY, VALUE]

    def clips(self, root):
        for i in range(40):
            targets = {"c": NAMES[i % 4], "m": {NAMES[i % 4], NAMES[i // 4 % 4]}, "b": i % 2 == 1, "r": float(i % 4)}
            yield Clip(f"s{i}", Lazy(sound, (i,), key=f"metrics-plugin-{i}"), targets)


def test_all_figures_appear_in_a_run_and_one_stops_it(tmp_path):
    against, calibrated = ["metrics.average_precision", "metrics.roc_auc", "metrics.eer"], ["metrics.log_loss", "metrics.ece"]
    chosen = {"c": [{"use": "metrics.top_k", "k": 2}, {"use": "metrics.top_k", "k": 1}, "metrics.map_at_k", "metrics.cohen_kappa",
                    {"use": "metrics.cohen_kappa", "weights": "quadratic"}, "metrics.mcc", *against, *calibrated],
              "m": [*against, "metrics.map_at_k", "metrics.mcc", *calibrated],
              "b": [*against, "metrics.cohen_kappa", "metrics.mcc", *calibrated], "r": ["metrics.ccc", "metrics.pearson"]}
    experiment = mtcore.Experiment({
        "name": "m", "datasets": {"s": {"reader": Sounds()}},
        "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}},
        "split": {"folds": 1, "validation": 0.3}, "model": {"trunk": {"use": "core.mlp", "hidden": [16]}},
        "tasks": {name: {"metrics": some} for name, some in chosen.items()},
        "train": {"epochs": 2, "batch_size": 8, "stop": {"on": "b.eer_macro", "patience": 5}}, "report": {"reporters": []}},
        tmp_path, tmp_path / "runs", tmp_path / "cache")
    [run] = experiment.run()
    found = {}
    for line in run.folder.metrics():
        if line["part"] == "test":
            found.setdefault(line["task"], set()).add(line["metric"])
    ranked = {"average_precision_macro", "average_precision_micro", "roc_auc_macro", "eer_macro", "log_loss", "ece", "mcc"}
    assert found["c"] >= ranked | {"top_1", "top_2", "map_at_3", "cohen_kappa", "cohen_kappa_quadratic"}
    assert found["m"] >= ranked | {"map_at_3"} and found["b"] >= ranked | {"cohen_kappa", "eer/yes"}
    assert found["r"] == {"loss", "ccc", "pearson"}
    tables = run.folder.info["tasks"]
    assert {name: (one["metric"], one["higher_is_better"]) for name, one in tables.items()} == {
        "c": ("top_2", True), "m": ("average_precision_macro", True), "b": ("average_precision_macro", True), "r": ("ccc", True)}
