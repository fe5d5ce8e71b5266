"""Counter-based random streams: every random choice comes from one that is keyed by seed, purpose, epoch and clip."""

from __future__ import annotations

from hashlib import blake2b
from operator import index
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["derive", "stream"]


def derive(seed: int, *key: str | int) -> int:
    """128 bits that follow from a seed and a key; different keys give independent numbers."""
    # numpy's numbers and strings count as Python's; ascii() of a tuple of those is unambiguous and the same in every Python.
    plain = (index(seed), *(str(part) if isinstance(part, str) else index(part) for part in key))
    return int.from_bytes(blake2b(ascii(plain).encode(), digest_size=16).digest(), "little")


def stream(seed: int, *key: str | int) -> np.random.Generator:
    """A generator (Philox, Salmon et al. 2011) keyed by `derive`."""
    import numpy as np  # not needed by listings, which import this room's neighbours

    return np.random.Generator(np.random.Philox(key=derive(seed, *key)))
