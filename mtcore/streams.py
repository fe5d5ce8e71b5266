"""Random streams that are looked up, not advanced: a seed and a key give the same stream wherever and whenever they are asked.

`stream(seed, "augment", epoch, clip)` therefore does not depend on the number of workers, on their order, or on what was drawn before.
"""

from __future__ import annotations

from hashlib import blake2b
from operator import index
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["derive", "stream"]


def derive(seed: int, *key: str | int) -> int:
    """A number of 128 bits out of a seed and a key; any change of the key (1 for "1", a moved boundary) gives an unrelated one."""
    # ascii() of a tuple of plain str and int is unambiguous and the same in every Python.
    plain = (index(seed), *(str(part) if isinstance(part, str) else index(part) for part in key))
    return int.from_bytes(blake2b(ascii(plain).encode(), digest_size=16).digest(), "little")


def stream(seed: int, *key: str | int) -> np.random.Generator:
    """A generator for `derive(seed, *key)`: Philox, which is counter-based and keyed by 128 bits (Salmon et al., SC 2011)."""
    import numpy as np  # late: planning and listing import this module too

    return np.random.Generator(np.random.Philox(key=derive(seed, *key)))
