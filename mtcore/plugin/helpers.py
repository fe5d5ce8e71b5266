"""What plugins need again and again: readers of tables and folders, heads of labels, losses of events, a module for each task."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, ParameterError
from ..task import Task
from .interfaces import Head
from .params import param

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from .interfaces import Batch, Predictions

__all__ = ["LabelHead", "framed", "module_dict", "scan", "table"]


class Row(dict):
    """A table's row; a missing column is an error that names file, line and columns."""

    def __init__(self, values: dict[str, str], path: Path, line: int):
        super().__init__(values)
        self.path, self.line = path, line

    def __missing__(self, column):
        raise DataError(f"{self.path}, line {self.line}: no column {column!r}; found {', '.join(map(repr, self))}")


def table(path: Path, columns: Sequence[str] | None = None, delimiter: str | None = None) -> Iterator[Row]:
    """Rows of a text table as dicts of strings.

    columns    names, where the file has no header; rows may have fewer cells than names (those keys are absent), not more
    delimiter  default: tab, semicolon or comma, whichever the first line has, in this order
    """
    path = Path(path)
    try:
        handle = path.open(newline="", encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: expected a table, but it cannot be read: {error.strerror}") from None
    with handle:
        try:
            first = handle.readline()
            handle.seek(0)
            if delimiter is None:
                delimiter = next((mark for mark in "\t;," if mark in first), ",")
            rows = csv.reader(handle, delimiter=delimiter)
            names = list(columns) if columns else next(rows, None)
            if not names:
                raise DataError(f"{path}: expected a header line, found an empty file")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"{path}, line 1: columns given twice: {', '.join(twice)}")
            for cells in rows:
                if not cells or cells == [""]:
                    continue
                if len(cells) > len(names) or (not columns and len(cells) < len(names)):
                    raise DataError(f"{path}, line {rows.line_num}: expected {len(names)} cells ({', '.join(names)}), found {len(cells)}")
                yield Row(dict(zip(names, cells)), path, rows.line_num)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: expected a table in UTF-8: {error}") from None


def scan(root: Path, pattern: str) -> list[Path]:
    """Paths below `root` that match a glob pattern ("*/*.wav"), sorted; none is an error."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder, found {'a file' if root.exists() else 'nothing there'}")
    found = sorted(path for path in root.glob(pattern) if path.is_file())
    if not found:
        raise DataError(f"{root}: expected files matching {pattern!r}, found none")
    return found


def module_dict(modules: Mapping[str, nn.Module] | None = None) -> nn.ModuleDict:
    """torch's, which by itself refuses names of a module's attributes, such as half, type or training. Names have no dots."""
    from torch import nn

    class Modules(nn.ModuleDict):
        __setattr__ = object.__setattr__  # an attribute is no module

        def add_module(self, name: str, module: nn.Module | None) -> None:
            self._modules[name] = module

    return Modules(modules)


def framed(output: Tensor, target: Tensor, batch: Batch, task: str) -> tuple[Tensor, Tensor]:
    """Of an events task the target [n, labels, frames] at the output's frames, the maximum of the input frames that each stands
    for, and which of them are no padding, 0/1 [n, frames]."""
    import torch  # whoever has a loss has imported it; readers have not
    from torch.nn import functional as F

    before, frames = target.shape[-1], output.shape[-1]
    stride = -(-before // frames)
    whole = -(-before // stride) == frames  # else a trunk without a whole stride
    target = F.max_pool1d(target, stride, ceil_mode=True) if whole else F.adaptive_max_pool1d(target, frames)
    if batch.lengths is None:
        return target, torch.ones_like(output[:, 0])
    length = next(iter(batch.lengths.values()))[batch.rows[task]]
    return target, (torch.arange(frames, device=output.device) * stride < length.unsqueeze(1)).to(output)


@dataclass(frozen=True, kw_only=True)
class LabelHead(Head):
    """A head whose output are logits (regression: values), and what it decides by, which validation may teach.

    Scores: softmax (multiclass), sigmoid (binary, multilabel, events), the values themselves (regression).
    """

    threshold: float = param(0.5, minimum=0, maximum=1, help="binary, multilabel, events: score from which a label is given")
    tune: bool = param(False, help="binary, multilabel: the thresholds with the highest F1 on validation are taken")
    thresholds: list[float] = param([], minimum=0, maximum=1, help="of each label (binary: of the second) in place of `threshold`")

    def scores(self, task: Task, output: Tensor) -> Tensor:
        if task.kind == "regression":
            return output
        return output.softmax(1) if task.kind == "multiclass" else output.sigmoid()

    def decide(self, task: Task, scores: np.ndarray) -> np.ndarray:
        if task.kind == "regression":
            return scores
        if task.kind == "multiclass":
            return scores.argmax(1)
        thresholds = self.of_labels(task, self.thresholds, self.threshold)
        return (scores >= (thresholds[0] if task.kind == "binary" else thresholds)).astype(int)

    def tuned(self, task: Task, predictions: Predictions) -> LabelHead:
        if not self.tune or task.kind not in ("binary", "multilabel") or not predictions.clips:
            return self
        import numpy as np

        scores, true = (np.reshape(one, (len(predictions.clips), -1)).T for one in (predictions.scores, predictions.targets))
        return replace(self, thresholds=[self.best_threshold(*pair, self.threshold)[1] for pair in zip(scores, true.astype(bool))])

    @staticmethod
    def of_labels(task: Task, values: list, default: float) -> np.ndarray:
        """`values`, one per label (binary: of the second), or the default for all."""
        import numpy as np

        labels = 1 if task.kind == "binary" else len(task.labels)
        if values and len(values) != labels:
            raise ParameterError(f"task {task.name}: expected {labels} values for the labels, found {len(values)}: {values}")
        return np.array(values or [default] * labels)

    @staticmethod
    def best_threshold(scores: np.ndarray, true: np.ndarray, default: float) -> tuple[float, float]:
        """The highest F1 of one label and a score from which deciding gives it, half-way to the next lower one; 0 and `default` where
        nothing true can be found. Scores [n] from 0 to 1."""
        import numpy as np

        order = np.argsort(-scores, kind="stable")
        scores, hits = scores[order], np.cumsum(true[order])
        if not true.any():
            return 0.0, default
        below = np.append(scores[1:], 0.0)
        f1 = np.where(below < scores, 2 * hits / (np.arange(1, len(scores) + 1) + hits[-1]), 0)
        best = int(f1.argmax())
        return float(f1[best]), float((scores[best] + below[best]) / 2) if f1[best] else default
