"""Comparing run folders: what is put together, what is kept apart, and what is said about it."""

import csv
import io
import itertools
import json
import os

import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner

from mtcore.cli import main
from mtcore.errors import ExperimentError
from mtcore.reporting.compare import compare
from mtcore.runfolder import RunFolder

METRICS = {"language": ("recall_macro", "", True), "speaker": ("recall_macro", "", True), "kind": ("recall_macro", "", True),
           "duration": ("mae", "s", False)}


@pytest.fixture
def write(tmp_path):
    """Write one run's folder: `write(tasks={"language": 0.9}, fold=1, …)`; the figures are those of the test part."""
    numbers = itertools.count(1)

    def build(tasks, fold=1, seed=0, experiment="voices", status="done", auxiliary=(), metrics=METRICS, config=(), **variation):
        number = next(numbers)
        folder = RunFolder(tmp_path / "runs" / experiment / f"{'+'.join(tasks)}-{number}")
        about = {name: dict(zip(("metric", "unit", "higher_is_better"), metrics[name]), report=name not in auxiliary)
                 for name in tasks}
        folder.write_info({
            "format": 1, "status": status, "experiment": experiment, "run": folder.path.name, "fold": fold, "seed": seed,
            "variation": {"tasks": "+".join(tasks), "seed": str(seed)} | variation, "tasks": about, "epoch": 4,
            "length": {"epochs": 4}, "config": {"seed": seed, "split": {"folds": 3, "seed": seed},
                                                "tasks": {name: {"weight": 1.0} for name in tasks}} | dict(config)})
        os.utime(folder.path / "run.json", ns=(number, number))
        line = {"epoch": 3, "update": 30, "task": "language", "metric": "recall_macro", "checkpoint": "best", "value": 0.0}
        folder.append_metrics([line | {"part": "validation", "checkpoint": None}])
        for name, value in tasks.items():
            line |= {"task": name, "metric": about[name]["metric"], "part": "test"}
            folder.append_metrics([line | {"value": 0.123, "checkpoint": "last"}, line | {"metric": "loss"}])
            if value is not None:
                folder.append_metrics([line | {"value": value}])
        return folder

    build.root = tmp_path / "runs"
    return build


def found(comparison, task, **wanted):
    rows = [row for row in comparison.rows() if row["task"] == task and wanted.items() <= (row | row["variation"]).items()]
    assert len(rows) == 1, rows
    return rows[0]


def test_a_row_is_the_mean_over_folds_and_seeds_of_the_best_checkpoint_on_test(write):
    values = {(fold, seed): 0.9 + 0.01 * fold + 0.002 * seed for fold in (1, 2, 3) for seed in (1, 2)}
    for (fold, seed), value in values.items():
        write({"language": value}, fold=fold, seed=seed)
    row = found(compare([write.root]), "language")
    assert row["mean"] == pytest.approx(np.mean(list(values.values())))
    assert row["deviation"] == pytest.approx(np.std(list(values.values()), ddof=1))
    assert (row["n"], row["folds"], row["seeds"], row["variation"]) == (6, [1, 2, 3], [1, 2], {"tasks": "language"})


def test_a_path_is_a_run_an_experiment_or_a_folder_of_experiments_and_no_run_counts_twice(write):
    one, _ = write({"language": 0.9}, fold=1), write({"language": 0.8}, fold=2)
    assert found(compare([one.path]), "language")["n"] == 1
    for paths in ([write.root], [write.root / "voices"], [one.path, write.root, one.path / ".." / one.path.name]):
        assert found(compare(paths), "language")["n"] == 2


@pytest.mark.parametrize("name, message", [("missing", "no such folder"), ("empty", "no run.json")])
def test_a_path_without_runs_is_an_error(tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExperimentError, match=f"{name}: expected a run's folder.*{message}"):
        compare([tmp_path / name])


def test_gain_is_paired_by_fold_and_seed_and_its_interval_is_students(write):
    alone, together = [0.90, 0.70, 0.80], [0.93, 0.74, 0.81]
    for fold in (1, 2, 3):
        write({"language": alone[fold - 1]}, fold)
        write({"duration": alone[fold - 1]}, fold)
    for fold in (3, 1, 2):
        write({"language": together[fold - 1], "duration": together[fold - 1]}, fold)
    write({"language": 0.1, "duration": 0.1}, 4)  # nothing to pair it with
    comparison = compare([write.root])
    interval = scipy.stats.ttest_rel(together, alone).confidence_interval(0.95)
    row = found(comparison, "language", tasks="language+duration")
    assert (row["gain"], row["gain_n"]) == (pytest.approx(np.mean(together) - np.mean(alone)), 3)
    assert (row["gain_low"], row["gain_high"]) == pytest.approx(tuple(interval))
    assert found(comparison, "duration", tasks="language+duration")["gain"] == pytest.approx(-row["gain"])  # less is better
    assert found(comparison, "language", tasks="language")["gain"] is None


def test_gain_of_one_pair_has_no_interval(write):
    write({"language": 0.5})
    write({"language": 0.7, "speaker": 0.6})
    row = found(compare([write.root]), "language", tasks="language+speaker")
    assert (row["gain"], row["gain_low"], row["gain_n"]) == (pytest.approx(0.2), None, 1)
    assert found(compare([write.root]), "speaker")["gain"] is None


def test_gain_is_over_the_run_that_is_equal_in_all_else(write):
    for trunk, alone in (("cnn", 0.5), ("mlp", 0.3)):
        write({"language": alone}, trunk=trunk)
        write({"language": 0.6, "speaker": 0.6}, trunk=trunk)
    comparison = compare([write.root])
    assert found(comparison, "language", tasks="language+speaker", trunk="cnn")["gain"] == pytest.approx(0.1)
    assert found(comparison, "language", tasks="language+speaker", trunk="mlp")["gain"] == pytest.approx(0.3)


def test_a_run_with_another_learning_rate_is_no_baseline(write):
    write({"language": 0.5}, config={"train": {"lr": 0.1}})
    write({"language": 0.7, "speaker": 0.6}, config={"train": {"lr": 0.2}})
    assert found(compare([write.root]), "language", tasks="language+speaker")["gain"] is None


def test_an_auxiliary_task_has_no_column_but_its_gain_is_told(write):
    write({"language": 0.5})
    write({"language": 0.7, "speaker": 0.6}, auxiliary=("speaker",))
    comparison = compare([write.root])
    assert [column.task for column in comparison.columns] == ["language"]
    assert found(comparison, "language", tasks="language+speaker")["gain"] == pytest.approx(0.2)


def test_several_baselines_are_no_baseline(write):
    for dataset in ("one", "two"):
        write({"language": 0.5}, datasets=dataset)
    write({"language": 0.7, "speaker": 0.6}, datasets="one+two")
    comparison = compare([write.root])
    assert found(comparison, "language", datasets="one+two")["gain"] is None
    assert any("no gain for language" in note and "language, one; language, two" in note for note in comparison.notes)


def test_runs_that_are_not_done_are_counted_and_named(write):
    write({"language": 0.5}, 1)
    failed, cut = write({"language": 0.1}, 2, status="failed"), write({"language": 0.1}, 3, status="interrupted")
    comparison = compare([write.root])
    assert found(comparison, "language")["n"] == 1
    [note] = [note for note in comparison.notes if "not done" in note]
    assert "2 of 3 runs" in note
    assert f"{failed.path.name} (failed after epoch 4)" in note and f"{cut.path.name} (interrupted" in note
    nothing = compare([failed.path])
    assert nothing.rows() == [] and failed.path.name in nothing.text() and nothing.to_csv() == "experiment\n"


def test_missing_folds_and_missing_figures_are_told(write):
    for fold in (1, 2):
        write({"language": 0.5}, fold)
    write({"speaker": 0.5}, 1)
    lacking = write({"speaker": None}, 2)
    write({"kind": 0.5}, 2)
    comparison = compare([write.root])
    assert any(note.startswith("kind: 1 of 2 runs, without fold 1") for note in comparison.notes)
    assert f"{lacking.path.name}: speaker has no recall_macro on the test part" in comparison.notes
    assert (found(comparison, "speaker")["n"], found(comparison, "speaker")["deviation"]) == (1, None)
    shown = {line.split()[0]: line.split() for line in comparison.text().splitlines()[1:4]}
    assert shown["language"][1:] == ["2", "0.500", "±", "0.000"] and shown["speaker"][1:] == shown["kind"][1:] == ["1", "0.500"]


def test_different_main_metrics_are_different_columns(write):
    write({"language": 0.5})
    write({"language": 0.9, "speaker": 0.4}, metrics=METRICS | {"language": ("accuracy", "", True)})
    comparison = compare([write.root])
    assert {(column.task, column.metric) for column in comparison.columns} == {
        ("language", "accuracy"), ("language", "recall_macro"), ("speaker", "recall_macro")}
    header = comparison.text().splitlines()[0]
    assert "language.accuracy" in header and "language.recall_macro" in header
    assert all(row["gain"] is None for row in comparison.rows())


def test_experiments_are_not_mixed_and_each_has_its_best(write):
    for experiment, values in (("first", (0.5, 0.6)), ("second", (0.8, 0.7))):
        for trunk, value in zip(("cnn", "mlp"), values):
            write({"language": value}, experiment=experiment, trunk=trunk)
    comparison = compare([write.root])
    assert [(row["experiment"], row["variation"]["trunk"]) for row in comparison.rows() if row["best"]] == [
        ("first", "mlp"), ("second", "cnn")]
    assert any("experiments may differ" in note for note in comparison.notes)
    assert comparison.text().splitlines()[0].split() == ["experiment", "trunk", "n", "language"]


def test_runs_before_and_after_an_edit_of_the_file_are_kept_apart(write):
    for rate, value in ((0.1, 0.5), (0.2, 0.9)):
        write({"language": value}, 1, config={"train": {"optimizer": {"lr": rate}}})
    comparison = compare([write.root])
    assert [row["mean"] for row in comparison.rows()] == [0.5, 0.9]
    assert comparison.text().splitlines()[0].split() == ["lr", "n", "language"]
    assert any("kept apart: they differ in train.optimizer.lr" in note for note in comparison.notes)


def test_of_the_same_run_on_other_data_the_newer_one_counts(write):
    old = write({"language": 0.5})
    write({"language": 0.9})
    comparison = compare([write.root])
    assert (found(comparison, "language")["mean"], found(comparison, "language")["n"]) == (0.9, 1)
    assert any(note.startswith(f"{old.path.name} is ") and "newer" in note for note in comparison.notes)


def all_subsets(write):
    rng = np.random.default_rng(0)
    names = [*METRICS]
    for size in range(1, 5):
        for tasks in itertools.combinations(names, size):
            for fold in (1, 2, 3):
                write({name: rng.uniform(0.9, 1.0) if name != "duration" else rng.uniform(0.1, 0.3) for name in tasks}, fold)


def test_fifteen_rows_of_four_tasks_fit_a_terminal(write):
    all_subsets(write)
    text = compare([write.root]).text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].split() == ["tasks", "n", "language", "speaker", "kind", "duration"]
    assert lines[1].startswith("language ") and lines[15].startswith("language+speaker+kind+duration ")
    assert sum(line.count("*") for line in lines[1:16]) == 4
    assert "duration: mae in s, lower is better" in text


def test_a_cell_of_fewer_runs_than_its_row_says_so(write):
    write({"language": 0.5, "speaker": 0.5}, 1)
    write({"language": 0.5, "speaker": None}, 2)
    assert compare([write.root]).text().splitlines()[1].split() == ["voices", "2", "0.500", "±", "0.000", "0.500", "(1)"]


def test_best_is_marked_by_the_metrics_own_direction(write):
    write({"language": 0.5, "duration": 0.5}, trunk="cnn")
    write({"language": 0.6, "duration": 0.6}, trunk="mlp")
    comparison = compare([write.root])
    assert found(comparison, "language", trunk="mlp")["best"] and found(comparison, "duration", trunk="cnn")["best"]
    assert [line.count("*") for line in comparison.text().splitlines()[1:3]] == [1, 1]


def test_json_and_csv_hold_what_the_rows_hold(write):
    all_subsets(write)
    comparison = compare([write.root])
    assert json.loads(comparison.to_json()) == {"rows": comparison.rows(), "notes": comparison.notes}
    lines = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert len(lines) == len(comparison.rows()) == 32
    for line, row in zip(lines, comparison.rows()):
        assert (line["variation.tasks"], line["task"], line["folds"]) == (row["variation"]["tasks"], row["task"], "1 2 3")
        assert float(line["mean"]) == row["mean"] and (line["gain"] == "") == (row["gain"] is None)


def test_the_command_prints_tables_json_and_csv(write, tmp_path):
    for fold in (1, 2):
        write({"language": 0.5}, fold)
        write({"language": 0.75, "speaker": 0.25}, fold)
    root, file = str(write.root), tmp_path / "out" / "table.csv"
    shown = CliRunner().invoke(main, ["compare", root, "--csv", str(file)])
    assert shown.exit_code == 0, shown.output
    assert "0.750 ± 0.000*" in shown.stdout and "+0.250 ± 0.000*" in shown.stdout
    assert file.read_text() == compare([root]).to_csv()
    printed = CliRunner().invoke(main, ["compare", "--json", root])
    assert json.loads(printed.stdout)["rows"] == compare([root]).rows()
    wrong = CliRunner().invoke(main, ["compare", str(tmp_path / "nothing")])
    assert wrong.exit_code == 2 and "no such folder" in wrong.stderr
