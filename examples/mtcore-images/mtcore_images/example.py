"""What the conformance kit and `mtcore demo` need. The digits come with scikit-learn, so that an empty folder holds them."""

from __future__ import annotations

from pathlib import Path

from mtcore.plugin import Example


def make(root: Path) -> None:
    Path(root).mkdir(parents=True, exist_ok=True)


def pictures(root: Path) -> Example:
    """Two digits, and a picture with three channels."""
    import numpy as np

    from .reader import picture

    colours = np.random.default_rng(0).random((3, 12, 10), np.float32)
    return Example(arrays=(picture(0)[0], picture(1)[0], colours))
