"""What `compare` finds, and how it is shown: as plain rows, CSV, JSON and text."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

from .table import format_table

__all__ = ["Column", "Comparison", "Figure", "Row"]


@dataclass(frozen=True)
class Column:
    """The main metric of one task."""

    task: str
    metric: str
    unit: str
    higher_is_better: bool


class Figure(NamedTuple):
    """A mean over `n` runs with its standard deviation (ddof 1); None of a single one."""

    mean: float
    spread: float | None
    n: int

    @classmethod
    def of(cls, values: Collection[float]) -> Figure:
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))

    @classmethod
    def of_gain(cls, differences: Collection[float]) -> Figure:
        """The mean over pairs of runs, positive is better; `spread` is half of its 95% interval by Student's t.

        Folds share training clips, so over folds the interval is narrower than it should be (Nadeau & Bengio, "Inference for the
        generalization error", 2003).
        """
        mean, deviation, n = cls.of(differences)
        if deviation is None:
            return cls(mean, None, n)
        from scipy.special import stdtrit  # late: only tables with gains need Student's quantile

        return cls(mean, float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n), n)


@dataclass
class Row:
    """Runs that differ in nothing but fold and seed.

    tasks     all that were learned, `reported` those among them that figures are about
    runs      names by (fold, seed); `values`: by column and (fold, seed)
    differs   what tells it from rows of the same variation
    """

    experiment: str
    variation: dict[str, str]
    setup: dict[str, Any]
    tasks: tuple[str, ...]
    reported: tuple[str, ...]
    runs: dict[tuple[int, int], str] = field(default_factory=dict)
    values: dict[Column, dict[tuple[int, int], float]] = field(default_factory=dict)
    gains: dict[Column, Figure] = field(default_factory=dict)
    differs: dict[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        return self.variation | self.differs

    def figure(self, column: Column) -> Figure | None:
        values = self.values.get(column)
        return Figure.of(values.values()) if values else None

    def __str__(self):
        return ", ".join(self.labels.values()) or self.experiment


@dataclass
class Comparison:
    """Rows by column, and `notes`: what is missing, not counted or not comparable."""

    groups: list[Row]
    columns: list[Column]
    notes: list[str] = field(default_factory=list)

    def __str__(self):
        return self.text()

    @cached_property
    def best(self) -> dict[tuple[str, Column], float]:
        """By experiment and column the best mean, where there are two to choose from."""
        means: dict[tuple[str, Column], list[float]] = {}
        for row in self.groups:
            for column in row.values:
                if figure := row.figure(column):
                    means.setdefault((row.experiment, column), []).append(figure.mean)
        return {(experiment, column): max(found) if column.higher_is_better else min(found)
                for (experiment, column), found in means.items() if len(found) > 1}

    def rows(self) -> list[dict[str, Any]]:
        """A plain dict per row and task: experiment, variation, runs, folds, seeds, task, metric, unit, higher_is_better, mean,
        deviation, n, best, gain with its interval from `gain_low` to `gain_high`, and gain_n. What is not defined is None."""
        found = []
        for row in self.groups:
            about = {"experiment": row.experiment, "variation": row.labels,
                     "runs": [row.runs[place] for place in sorted(row.runs)],
                     "folds": sorted({fold for fold, _ in row.runs}), "seeds": sorted({seed for _, seed in row.runs})}
            for column in row.values:
                mean, deviation, n = row.figure(column) or (None, None, 0)
                gain, half, pairs = row.gains.get(column, (None, None, 0))
                found.append(about | vars(column) | {
                    "mean": mean, "deviation": deviation, "n": n,
                    "best": n > 0 and mean == self.best.get((row.experiment, column)),
                    "gain": gain, "gain_low": None if half is None else gain - half,
                    "gain_high": None if half is None else gain + half, "gain_n": pairs})
        return found

    def to_json(self) -> str:
        return json.dumps({"rows": self.rows(), "notes": self.notes}, ensure_ascii=False, indent=1)

    def to_csv(self) -> str:
        """A line per row and task; a column per varied key."""
        keys = list(dict.fromkeys(key for row in self.groups for key in row.labels))
        lines = []
        for row in self.rows():
            variation = {f"variation.{key}": row["variation"].get(key, "") for key in keys}
            row |= {name: " ".join(map(str, row[name])) for name in ("runs", "folds", "seeds")}
            lines.append({"experiment": row.pop("experiment"), **variation, **{k: v for k, v in row.items() if k != "variation"}})
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(lines[0]) if lines else ["experiment"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return text.getvalue()

    # As text ----------------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """Tables of figures and of gains with their legends, and the notes."""
        blocks = []
        if any(row.figure(column) for row in self.groups for column in row.values):
            lines = self._block(Row.figure, "", lambda row, column, one: one.mean == self.best.get((row.experiment, column)))
            metrics: dict[str, list[str]] = {}
            for column in self.columns:
                unit = f" in {column.unit}" if column.unit else ""
                direction = "" if column.higher_is_better else ", lower is better"
                metrics.setdefault(f"{column.metric}{unit}{direction}", []).append(column.task)
            blocks += [lines, "Test part, best checkpoint: mean ± standard deviation over n runs (folds, seeds); * best\n"
                       + "\n".join(f"{', '.join(tasks)}: {metric}" for metric, tasks in metrics.items())]
        else:
            blocks.append("No run is done that has figures of a test part.")
        if any(row.gains for row in self.groups):
            lines = self._block(lambda row, column: row.gains.get(column), "+",
                                lambda row, column, gain: gain.spread is not None and abs(gain.mean) > gain.spread)
            blocks += [lines, "Gain over the task alone, positive is better: mean ± half of its 95% interval over n pairs\n"
                       "of the same fold and seed; * the interval excludes 0"]
        return "\n\n".join([*blocks, *(["\n".join(f"note: {note}" for note in self.notes)] if self.notes else [])])

    def _block(self, find: Callable, sign: str, starred: Callable) -> str:
        """One table of what `find(row, column)` gives; a cell says its own n where that is not its row's."""
        found = {(i, column): figure for i, row in enumerate(self.groups) for column in self.columns
                 if (figure := find(row, column))}
        rows, columns = sorted({i for i, _ in found}), [column for column in self.columns if column in {c for _, c in found}]
        most = {i: max(figure.n for (row, _), figure in found.items() if row == i) for i in rows}

        def cell(i, column):
            if (i, column) not in found:
                return ""
            figure, digits = found[i, column], self._digits(column)
            spread = "" if figure.spread is None else f" ± {figure.spread:.{digits}f}"
            count = "" if figure.n == most[i] else f" ({figure.n})"
            return f"{figure.mean:{sign}.{digits}f}{spread}{count}{'*' if starred(self.groups[i], column, figure) else ''}"

        keys = self._keys()
        lines = [[*({"experiment": self.groups[i].experiment, **self.groups[i].labels}.get(key, "") for key in keys),
                  str(most[i]), *(cell(i, column) for column in columns)] for i in rows]
        tasks, last = [column.task for column in columns], [key.rsplit(".", 1)[-1] for key in keys]
        header = [*(short if last.count(short) == 1 else key for short, key in zip(last, keys)), "n",
                  *(c.task if tasks.count(c.task) == 1 else f"{c.task}.{c.metric}" for c in columns)]
        return format_table(lines, header)

    def _keys(self) -> list[str]:
        """What tells the rows apart; of a single row its experiment."""
        about = [{"experiment": row.experiment, **row.labels} for row in self.groups]
        keys = dict.fromkeys(key for one in about for key in one)
        return [key for key in keys if len({one.get(key) for one in about}) > 1] or ["experiment"]

    def _digits(self, column: Column) -> int:
        """Decimals that show three digits of the column's middle value."""
        middle = median(abs(value) for row in self.groups for value in row.values.get(column, {}).values())
        return min(6, max(0, 3 - math.ceil(math.log10(middle)))) if middle else 3
