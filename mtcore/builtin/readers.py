"""Own recordings without a line of Python: a CSV file with a column per task, or one folder per class."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mtcore.plugin import Clip, DataError, DatasetInfo, File, ParameterError, Reader, Task, param, table

__all__ = ["Csv", "Folders"]

KINDS = ("binary", "multiclass", "multilabel", "regression", "none")
MANY = 20
"""A column of numbers with more distinct values than this is a regression task."""
SOUND = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64"})
"""Endings of what soundfile reads, in lower case."""

_SCHEME = re.compile("given|fold[1-9][0-9]*")


class Index(NamedTuple):
    """A table and what its columns are: group by column, scheme by column, task by column."""

    folder: Path
    rows: list
    groups: dict[str, str]
    parts: dict[str, str]
    tasks: dict[str, Task]


@dataclass(frozen=True, kw_only=True)
class Csv(Reader):
    """Own recordings in a table, one row per clip. The root is the folder with the table, or the table itself.

    Columns: `path` (relative to the root); `start`, `stop` in seconds; `group` or `group:NAME`; `part` or `part:SCHEME`. Every
    other column is a task and may also serve as group. All numbers and more than 20 of them make a regression, `;` within
    cells several labels (a lone `;`: none of them holds), everything else one label. An empty cell: the clip lacks that label.
    """

    info = DatasetInfo(title="Own recordings listed in a CSV file",
                       layout="index.csv with a column path and one column per task, and the recordings it names")
    default_group = "group"
    file: str = param("index.csv", help="the table below the root, in UTF-8, with a header; comma, semicolon or tab")
    path: str = param("path", help="the column with the recordings' paths, relative to the root")
    kinds: dict[str, str] = param({}, choices=KINDS, help="kinds of columns where the inferred one is wrong; none: not a task")

    @property
    def ignored(self):
        return (self.file,)

    def tasks(self, root):
        return list(self._index(root).tasks.values())

    def clips(self, root):
        index, lines = self._index(root), {}
        named = {column: column for column in (*index.tasks, *self.kinds) if column not in index.groups.values()} | index.groups
        repeated = Counter(row[self.path] for row in index.rows)
        for row in index.rows:
            try:
                clip = self._clip(index, named, row, repeated[row[self.path]] > 1)
                if clip.id in lines:
                    raise DataError(f"the same recording and stretch stand in line {lines[clip.id]}; keep one of them")
            except DataError as error:
                raise DataError(f"{row.path}, line {row.line}: {error}") from None
            lines[clip.id] = row.line
            yield clip

    def _index(self, root: Path) -> Index:
        root = Path(root)
        folder, file = (root.parent, root) if root.is_file() else (root, root / self.file)
        rows = list(table(file))
        if not rows:
            raise DataError(f"{file}: expected a row per clip below the header, found none")
        if self.path not in rows[0]:
            raise DataError(f"{file}, line 1: expected a column {self.path!r} with the recordings' paths (parameter `path`); found "
                            f"{', '.join(rows[0])}")
        strange = [column for column in self.kinds if column not in rows[0]]
        if strange:
            raise ParameterError(f"kinds: {file} has no column {strange[0]!r}; found {', '.join(rows[0])}")
        try:
            return Index(folder, rows, *_columns(rows, {self.path, "start", "stop"}, self.kinds))
        except DataError as error:
            raise DataError(f"{file}, line 1: {error}") from None

    def _clip(self, index: Index, named: Mapping[str, str], row: Mapping[str, str], repeated: bool) -> Clip:
        path, start, stop = row[self.path], _number(row, "start") or 0.0, _number(row, "stop")
        if not path:
            raise DataError(f"column {self.path!r}: expected a path, found an empty cell")
        groups = {name: cell if ":" in cell else f"{name}:{cell}" for column, name in named.items() if (cell := row[column].strip())}
        targets = {task.name: _target(task, row, column) for column, task in index.tasks.items() if row[column].strip()}
        parts = {scheme: cell for column, scheme in index.parts.items() if (cell := row[column].strip())}
        name = f"{path} {start}-{'end' if stop is None else stop}" if repeated else path
        return Clip(name, File(index.folder / path, start, stop), targets, groups, parts)


def _columns(rows: list[Mapping[str, str]], other: set[str], kinds: Mapping[str, str]) -> tuple[dict, dict, dict]:
    """Groups, parts and tasks by column; `other` columns are none of them."""
    groups, parts, tasks = {}, {}, {}
    for column in rows[0]:
        role, colon, name = column.partition(":")
        if column in other or kinds.get(column) == "none":
            continue
        if role == "group":
            _claim(groups, column, name if colon else "group")
        elif role == "part":
            _claim(parts, column, name if colon else "given")
            if not _SCHEME.fullmatch(parts[column]):
                raise DataError(f"column {column!r}: expected part, part:given or part:fold1, part:fold2 …")
        else:
            _claim(tasks, column, _task_name(column))
    return groups, parts, {column: _task(name, column, kinds.get(column), rows) for column, name in tasks.items()}


def _claim(names: dict[str, str], column: str, name: str) -> None:
    if not name:
        raise DataError(f"column {column!r} has no name; give it one, or leave it out (pandas: to_csv(index=False))")
    if name in names.values():
        first = next(known for known, taken in names.items() if taken == name)
        raise DataError(f"columns {first!r} and {column!r} would both be called {name!r}; rename one")
    names[column] = name


def _task_name(column: str) -> str:
    name = re.sub("[^a-z0-9_]", "_", column.strip().lower())
    if name in ("path", "start", "stop", "group", "part"):
        raise DataError(f"column {column!r}: write {name!r} if it is that; rename it, or set kinds = {{{column!r} = \"none\"}}, if not")
    return name if not name or name[0].isalpha() else f"column_{name}"


def _task(name: str, column: str, kind: str | None, rows: Iterable[Mapping[str, str]]) -> Task:
    """The task of a column, its kind inferred unless given."""
    cells = {cell for row in rows if (cell := row[column].strip())}
    if not cells:
        raise DataError(f"column {column!r} has no value in any row; fill it, remove it, or set kinds = {{{column!r} = \"none\"}}")
    numbers = {_float(cell) for cell in cells}
    inferred = "multilabel" if any(";" in cell for cell in cells) else \
        "regression" if None not in numbers and len(numbers) > MANY else "multiclass"
    kind = kind or inferred
    if kind == "regression":
        return Task.regression(name)
    return Task(name, kind, tuple(sorted({label for cell in cells for label in (_split(cell) if kind == "multilabel" else [cell])}, key=_order)))


def _target(task: Task, row: Mapping[str, str], column: str) -> str | frozenset[str] | float:
    if task.kind == "regression":
        return _number(row, column)
    return frozenset(_split(row[column])) if task.kind == "multilabel" else row[column].strip()


def _split(cell: str) -> list[str]:
    return [label for part in cell.split(";") if (label := part.strip())]


def _order(label: str) -> tuple[float, str]:
    """Numbers by value, in front of words."""
    number = _float(label)
    return (math.inf if number is None or math.isnan(number) else number, label)


def _number(row: Mapping[str, str], column: str) -> float | None:
    """The finite number in a cell; None where it is empty or there is no such column."""
    cell = row.get(column, "").strip()
    number = _float(cell)
    if cell and (number is None or not math.isfinite(number)):
        raise DataError(f"column {column!r}: expected a finite number such as 1.5, found {cell!r}")
    return number


def _float(cell: str) -> float | None:
    try:
        return None if not cell or "_" in cell else float(cell)  # to Python, 1_000 is a number
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Folders(Reader):
    """Own recordings, one folder per class below the root; recordings may lie deeper inside. Hidden files are no recordings."""

    info = DatasetInfo(title="Own recordings, one folder per class", layout="a folder per class, named like it, with recordings inside")
    default_group = "group"
    ignored = (".*", "*/.*")
    task: str = param("label", help="name of the task")
    group: str = param("", help="regular expression with one (…) that finds the group in a file's name without its ending")

    def __post_init__(self):
        try:
            groups = re.compile(self.group).groups
        except re.error as error:
            raise ParameterError(f"group: {self.group!r} is no regular expression: {error}") from None
        if self.group and groups != 1:
            raise ParameterError(f"group: expected a regular expression with one (…), found {groups} in {self.group!r}")

    def tasks(self, root):
        return [Task.multiclass(self.task, sorted({path.parts[0] for path in self._paths(root)}))]

    def clips(self, root):
        for path in self._paths(root):
            yield Clip(path.as_posix(), File(root / path), {self.task: path.parts[0]}, self._groups(path))

    def _groups(self, path: Path) -> dict[str, str]:
        match = re.search(self.group, path.stem)
        if self.group and not (match and match[1]):
            raise DataError(f"{path}: expected a name in which the parameter group, {self.group!r}, finds something; change it or the name")
        return {"group": f"group:{match[1]}"} if self.group else {}

    def _paths(self, root: Path) -> list[Path]:
        """Relative to the root, sorted. Class folders may be links, which a recursive search from the root would not follow."""
        root = Path(root)
        if not root.is_dir():
            raise DataError(f"{root}: expected a folder with one folder per class, found {'a file' if root.exists() else 'nothing there'}")
        inside = [path.relative_to(root) for top in root.iterdir() for path in (top.rglob("*") if top.is_dir() else [top])
                  if path.suffix.lower() in SOUND and path.is_file()]
        found = sorted(path for path in inside if not any(part.startswith(".") for part in path.parts))
        loose = [path for path in found if len(path.parts) == 1]
        if loose or not found:
            raise DataError(f"{root}: expected recordings ({', '.join(sorted(SOUND))}) in one folder per class, found "
                            + (f"{loose[0]} in none; move it into a folder" if loose else "none"))
        return found
