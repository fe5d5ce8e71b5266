"""What the conformance kit tries components on that need materials or have parameters without defaults."""

from __future__ import annotations

from pathlib import Path

from mtcore.plugin import Example


class Recordings:
    """A material of these arrays, each float32 [channels, n]."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def draw(self, rng):
        return self.arrays[rng.integers(len(self.arrays))]


def mix_noise(root: Path) -> Example:
    """Noises shorter and longer than the kit's sound, of one and of two channels."""
    import numpy as np  # only when the kit needs it

    random = np.random.default_rng(0)
    noises = Recordings(*(random.standard_normal(shape, dtype=np.float32) for shape in ((1, 5000), (2, 40000))))
    return Example(parameters={"material": "noise"}, others={"material": "hum"}, materials={"noise": noises, "hum": noises})


def reverb(root: Path) -> Example:
    """Two rooms whose direct path comes late."""
    import numpy as np  # only when the kit needs it

    random = np.random.default_rng(0)
    decay = 0.05 * np.exp(-np.arange(4000, dtype=np.float32) / 800)
    rooms = [decay * random.standard_normal((1, 4000), dtype=np.float32) for _ in range(2)]
    for number, room in enumerate(rooms):
        room[0, 100 + 50 * number] = 1
    rooms = Recordings(*rooms)
    return Example(parameters={"material": "rooms"}, others={"material": "halls"}, materials={"rooms": rooms, "halls": rooms})


def random_crop(root: Path) -> Example:
    """A length that is longer than some of the kit's arrays and shorter than others."""
    return Example(parameters={"length": "0.9s"})


def audiomentations(root: Path) -> Example:
    return Example(parameters={"transform": "AddGaussianSNR"}, others={"transform": "Gain", "options": {"max_snr_db": 30.0}})
