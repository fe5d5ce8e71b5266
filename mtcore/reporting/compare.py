"""Comparison of run folders: means over folds and seeds, and what learning together gains over learning alone.

Runs that differ only in fold and seed are one row. A row's figures are those of the test part at the best checkpoint. A gain
is paired: the same fold and seed, together minus alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ExperimentError
from ..runfolder import RunFolder
from .comparison import Column, Comparison, Figure, Row

__all__ = ["compare"]


def compare(paths: Iterable[Path | str]) -> Comparison:
    """Compare runs. A path is a run's folder or one that holds run folders (of an experiment, or of several).

    Raises `ExperimentError` for a path without runs. Runs that are not done are named in `notes`, not counted.
    """
    notes: list[str] = []
    rows: dict[str, Row] = {}
    done, unfinished = 0, []
    for folder in _folders(paths):
        info = folder.info
        if info["status"] == "done":
            done += 1
            _add(rows, folder, info, notes)
        else:
            epoch = f" after epoch {info['epoch']}" if info.get("epoch") else ""
            unfinished.append(f"{info['run']} ({info['status']}{epoch})")
    if unfinished:
        notes.insert(0, f"not done and not counted: {len(unfinished)} of {done + len(unfinished)} runs: {', '.join(unfinished)}")
    found = list(rows.values())[::-1]
    columns = list(dict.fromkeys(column for row in sorted(found, key=lambda row: -len(row.tasks)) for column in row.values))
    names = [column.task for column in columns]
    found.sort(key=lambda row: (row.experiment, len(row.reported), [names.index(task) for task in row.reported]))
    _tell_apart(found, notes)
    _note_missing(found, notes)
    for row in found:
        for column in row.values:
            _add_gain(row, column, found, notes)
    return Comparison(found, columns, notes)


def _folders(paths: Iterable[Path | str]) -> list[RunFolder]:
    """The newest first."""
    found: dict[Path, RunFolder] = {}
    for path in map(Path, paths):
        inside = [p.parent for pattern in ("run.json", "*/run.json", "*/*/run.json") for p in sorted(path.glob(pattern))]
        if not inside:
            raise ExperimentError(f"{path}: expected a run's folder or a folder of runs, found "
                                  f"{'no run.json in it' if path.exists() else 'no such folder'}; runs lie in "
                                  "runs/<experiment>/<run> beside the experiment file, or below the folder that --runs named")
        found |= {folder.resolve(): RunFolder(folder) for folder in inside}
    return sorted(found.values(), key=lambda folder: (folder.path / "run.json").stat().st_mtime_ns, reverse=True)


def _whichever_run(value: Any) -> Any:
    """The configuration without saying which stored runs' outputs it uses: each fold has a teacher of its own."""
    if isinstance(value, dict):
        return {key: _whichever_run(item) for key, item in value.items() if not (key == "digest" and value.get("use") == "core.run")}
    return [_whichever_run(item) for item in value] if isinstance(value, list) else value


def _add(rows: dict[str, Row], folder: RunFolder, info: Mapping[str, Any], notes: list[str]) -> None:
    variation = {key: value for key, value in info["variation"].items() if key != "seed"}
    setup = {"length": info.get("length"), **_whichever_run(info["config"])}
    seed = setup.pop("seed", info["seed"])
    setup["split"] = {key: value for key, value in setup.get("split", {}).items() if (key, value) != ("seed", seed)}
    reported = tuple(name for name, task in info["tasks"].items() if task.get("report", True))
    key = json.dumps([info["experiment"], variation, setup, info["tasks"]], sort_keys=True)
    row = rows.setdefault(key, Row(info["experiment"], variation, setup, tuple(info["tasks"]), reported))
    place = (info["fold"], info["seed"])
    if place in row.runs:
        notes.append(f"{info['run']} is {row.runs[place]} on other data; only the latter, which is newer, is counted")
        return
    row.runs[place] = info["run"]
    values = {(line["task"], line["metric"]): line["value"] for line in folder.metrics("test") if line["checkpoint"] == "best"}
    for task in reported:
        about = info["tasks"][task]
        column = Column(task, about["metric"], about.get("unit", ""), about["higher_is_better"])
        value, by_place = values.get((task, column.metric)), row.values.setdefault(column, {})
        if value is None:
            notes.append(f"{info['run']}: {task} has no {column.metric} on the test part")
        else:
            by_place[place] = value


def _tell_apart(rows: Sequence[Row], notes: list[str]) -> None:
    """Rows of the same variation differ in something else, an edit of the file between two runs for instance: say in what."""
    alike: dict[tuple, list[Row]] = {}
    for row in rows:
        alike.setdefault((row.experiment, *row.variation.items(), *row.reported), []).append(row)
    for group in alike.values():
        flat = [dict(_flat(row.setup)) for row in group]
        keys = [key for key in dict.fromkeys(key for one in flat for key in one) if len({one.get(key) for one in flat}) > 1]
        for row, one in zip(group, flat):
            row.differs = {key: one.get(key, "") for key in keys[:2]}
        if len(group) > 1:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            name = ", ".join(group[0].variation.values()) or group[0].experiment
            notes.append(f"runs of {name} are kept apart: they differ in {', '.join(keys[:5]) or 'their tasks'}{more}")


def _flat(value: Any, key: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, (dict, list)) and value:
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, str(value)


def _note_missing(rows: Sequence[Row], notes: list[str]) -> None:
    for experiment in dict.fromkeys(row.experiment for row in rows):
        mine = [row for row in rows if row.experiment == experiment]
        places = sorted({place for row in mine for place in row.runs})
        for row in mine:
            lacks = [f"fold {fold} of seed {seed}" for fold, seed in places if (fold, seed) not in row.runs]
            if lacks:
                notes.append(f"{row}: {len(row.runs)} of {len(places)} runs, without {', '.join(lacks)}; "
                             "its means are not over the same test parts")
    if len({row.experiment for row in rows}) > 1:
        notes.append("experiments may differ in their test parts; the best figure is marked in each")


def _agree(one: Any, other: Any) -> bool:
    """Equal wherever both say something: a run alone says nothing of the other tasks and datasets."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_agree(one[key], other[key]) for key in one.keys() & other.keys())
    return one == other


def _add_gain(row: Row, column: Column, rows: Sequence[Row], notes: list[str]) -> None:
    def others(one: Row) -> dict[str, str]:
        return {key: value for key, value in one.variation.items() if key not in ("tasks", "datasets")}

    alone = [one for one in rows if one.reported == (column.task,) and column in one.values and one.experiment == row.experiment
             and others(one) == others(row) and _agree(one.setup, row.setup)]
    alone = [one for one in alone if len(one.tasks) == min(len(one.tasks) for one in alone)]
    if row in alone:
        return
    if len(alone) > 1:
        notes.append(f"{row}: no gain for {column.task}, as several rows have it alone: {'; '.join(map(str, alone))}")
    elif alone:
        sign, base = 1 if column.higher_is_better else -1, alone[0].values[column]
        pairs = [sign * (value - base[place]) for place, value in row.values[column].items() if place in base]
        if pairs:
            row.gains[column] = Figure.of_gain(pairs)
