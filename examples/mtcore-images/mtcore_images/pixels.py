"""Pictures as arrays, of one size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mtcore.plugin import ClipError, Extractor, ParameterError, param

__all__ = ["Pixels"]


@lru_cache(maxsize=64)
def shares(pixels: int, wanted: int) -> np.ndarray:
    """[wanted, pixels]: how much of each new pixel every old one covers, along one side of the picture; rows add up to 1."""
    edges = np.arange(wanted + 1)[:, None] * pixels / wanted
    return np.diff(np.clip(edges - np.arange(pixels), 0, 1), axis=0) * wanted / pixels


@dataclass(frozen=True, kw_only=True)
class Pixels(Extractor):
    """Pictures [height, width] or [channels, height, width], without a rate, as [channels, height, width].

    In another size a pixel is the mean of the area that it covers in the old picture, so that the picture's mean stays.
    """

    height: int | None = param(None, minimum=1, unit="pixels", help="of all pictures; default: each picture's own")
    width: int | None = param(None, minimum=1, unit="pixels", help="of all pictures; default: each picture's own")

    def axis(self, rate: float | None) -> None:
        return None

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        if rate is not None:
            raise ParameterError(f"expected pictures, that is arrays without a rate, found sound at {rate:g} Hz; add the step "
                                 "images.sonogram to the dataset's signal steps")

        def pixels(x: np.ndarray) -> np.ndarray:
            if x.ndim not in (2, 3):
                raise ClipError("expected a picture [height, width] or [channels, height, width], found an array of shape "
                                f"{x.shape}")
            height, width = self.height or x.shape[-2], self.width or x.shape[-1]
            out = shares(x.shape[-2], height) @ x @ shares(x.shape[-1], width).T
            return out.reshape(-1, height, width).astype(np.float32)

        return pixels
