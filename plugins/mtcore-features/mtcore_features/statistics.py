"""Statistics over frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ORDER = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "max": 1.0}
STATISTICS = ("min", "max", "std", "mean", "median", "p25", "p75")
"""The seven of Georgiev et al. 2017, https://doi.org/10.1145/3131895, in the order of the result."""


def statistics(x: np.ndarray, names: Sequence[str] = STATISTICS) -> np.ndarray:
    """[…, bins, frames] -> […, len(names) * bins]: all bins of the first statistic, then of the next; [frames] -> [len(names)].

    "std" is that of the frames themselves (divided by their number), quartiles lie linearly between neighbours.
    """
    ordered = np.sort(x, axis=-1) if any(name in ORDER for name in names) else x

    def one(name: str) -> np.ndarray:
        if name not in ORDER:
            return getattr(x, name)(axis=-1)
        place = ORDER[name] * (x.shape[-1] - 1)
        below = int(place)
        low, high = ordered[..., below], ordered[..., min(below + 1, x.shape[-1] - 1)]
        return low + np.float32(place - below) * (high - low)

    return np.concatenate([np.atleast_1d(one(name)) for name in names], axis=-1)
