"""The pictures come with scikit-learn, so that an empty folder is all there is to make."""

from __future__ import annotations

from pathlib import Path


def make(root: Path) -> None:
    Path(root).mkdir(parents=True, exist_ok=True)
