"""Nearly equal recordings: clips whose fingerprints, vectors of one size, point the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..errors import ExperimentError
from ..extracting.store import Store
from .split import connected

__all__ = ["Similar", "find_similar"]

_BLOCK, _TOLD = 1024, 5


class Similar(NamedTuple):
    """Number of the set of alike clips by row key; how many pairs there are, and the first few with their cosines."""

    sets: dict[str, int]
    pairs: int
    told: list[tuple[str, str, float]]


def find_similar(store: Store, names: Mapping[str, str], threshold: float) -> Similar:
    """Of the rows of a store, by row key with the clips' names: those whose vectors have a cosine of at least `threshold` are in
    one set, and so is what hangs together through others. A vector of zeros is like no other. Raises `ExperimentError` for arrays
    of several shapes.
    """
    keys = list(names)
    if len(shapes := {store.shape(key): name for key, name in names.items()}) > 1:
        raise ExperimentError("split.similar: expected an extractor that gives one vector of a fixed size per clip, found "
                              + ", ".join(f"{list(shape)} ({name})" for shape, name in list(shapes.items())[:3]))
    unit = np.stack([store.read(key).data.ravel() for key in keys]) if keys else np.zeros((0, 1), np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    number, pairs, told = np.arange(len(keys)), 0, []
    for first in range(0, len(keys), _BLOCK):
        cosine = np.triu(unit[first:first + _BLOCK] @ unit[first:].T, 1)
        one, other = np.nonzero(cosine >= threshold)
        told += [(names[keys[first + a]], names[keys[first + b]], float(cosine[a, b]))
                 for a, b in zip(one[:_TOLD], other[:_TOLD])]
        number, pairs = connected(len(keys), number[first + one], number[first + other])[number], pairs + len(one)
    return Similar(dict(zip(keys, number.tolist())), pairs, told[:_TOLD])
