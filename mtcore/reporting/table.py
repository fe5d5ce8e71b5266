"""Tables as plain aligned text."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

__all__ = ["format_table"]


def format_table(rows: Iterable[Sequence[Any]], header: Sequence[str]) -> str:
    """Aligned columns, two spaces apart, no trailing blanks. None is empty; a column of numbers is aligned to the right."""
    rows = [list(row) for row in rows]
    columns = range(len(header))
    right = [any(_number(row[i]) for row in rows) and all(row[i] is None or _number(row[i]) for row in rows) for i in columns]
    lines = [[_text(cell) for cell in row] for row in (header, *rows)]
    widths = [max(_width(line[i]) for line in lines) for i in columns]
    return "\n".join("  ".join(_padded(line[i], widths[i], right[i]) for i in columns).rstrip() for line in lines)


def _number(cell: Any) -> bool:
    return isinstance(cell, Real) and not isinstance(cell, bool)


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:.4g}" if isinstance(cell, Real) and not isinstance(cell, int) else " ".join(str(cell).split())


def _width(text: str) -> int:
    """Cells of a terminal: East Asian characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _padded(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if right else text + blanks
