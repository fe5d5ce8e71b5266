"""What plugins need again and again: readers of tables and folders, losses of events, a module for each task."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, Mapping, Sequence

from ..errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .interfaces import Batch

__all__ = ["framed", "module_dict", "scan", "table"]


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
