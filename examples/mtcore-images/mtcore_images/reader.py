"""Handwritten digits: 8 x 8 pixels, with the digit and the amount of ink. Nothing lies on disk but scikit-learn."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mtcore.plugin import Clip, DatasetInfo, Lazy, Reader, Task

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SHEETS", "Digits", "picture"]

SHEETS = (0, 130, 256, 386, 516, 646, 776, 905, 1029, 1157, 1287, 1415, 1545, 1667)
"""Number of the first picture of each filled-in form. The dataset does not tell, but its order does: every form asks for the same
130 digits, beginning with three times 0 to 9; a few are missing."""


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Grey values 0 … 1, float32 [1797, 8, 8], and the digits."""
    from sklearn.datasets import load_digits  # a second, and listing does without

    found = load_digits()
    return (found.images / 16).astype("float32"), found.target


def picture(number: int) -> tuple[np.ndarray, None]:
    """Picture `number`: float32 [height, width] from 0, paper, to 1, ink; a picture has no rate."""
    return _digits()[0][number].copy(), None


@dataclass(frozen=True, kw_only=True)
class Digits(Reader):
    """Handwritten digits on 14 sheets, each presumably in one hand: digits of the same sheet look alike. Any root will do.

    The ink is the sum of the grey values, so it counts black pixels.
    """

    info = DatasetInfo(
        title="Optical recognition of handwritten digits, the test set, as scikit-learn brings it",
        licence="CC BY 4.0",
        homepage="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        layout="nothing",
        citation="E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998), https://doi.org/10.24432/C50P49",
    )
    default_group = "sheet"
    generated = True  # nothing lies below the root, which need not exist

    def tasks(self, root):
        return [Task.multiclass("digit", map(str, range(10))), Task.regression("ink", unit="pixels")]

    def clips(self, root):
        pictures, digits = _digits()
        for number, (grey, digit) in enumerate(zip(pictures, digits)):
            yield Clip(f"{number:04}", Lazy(picture, (number,), key=f"sklearn.digits/{number}"),
                       targets={"digit": str(digit), "ink": float(grey.sum())},
                       groups={"sheet": f"sklearn.digits:{bisect_right(SHEETS, number)}"})
