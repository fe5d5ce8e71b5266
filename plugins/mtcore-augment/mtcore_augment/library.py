"""Transforms of audiomentations, https://github.com/iver56/audiomentations, that keep length and time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from mtcore.plugin import Context, ParameterError, PluginError, Prepared, param

from .ranges import Augmentation, sound

TRANSFORMS = (
    "AddColorNoise", "AddGaussianNoise", "AddGaussianSNR", "AirAbsorption", "Aliasing", "BandPassFilter",
    "BandStopFilter", "BitCrush", "Clip", "ClippingDistortion", "Gain", "GainTransition", "HighPassFilter",
    "HighShelfFilter", "LowPassFilter", "LowShelfFilter", "Normalize", "PeakingFilter", "PitchShift",
    "PolarityInversion", "SevenBandParametricEQ", "TanhDistortion", "TimeMask")
"""Those that move time do not say by how much, so that events could not follow; those that open files know no parts."""

_GLOBAL = Lock()
"""The library draws from the process's own two streams, random and numpy.random: one transform at a time."""


@dataclass(frozen=True, kw_only=True)
class Audiomentations(Augmentation):
    """A transform of audiomentations with its own options, always applied: how often, `p` of the step says.

    The generators that the library draws from are seeded out of this step's stream for each clip and put back afterwards.
    """

    transform: str = param(choices=TRANSFORMS, help="the class in audiomentations")
    options: dict[str, Any] = param({}, help="its arguments by name, without p")

    def prepare(self, context: Context) -> Prepared:
        rate = round(sound(context))
        transform = self._made()

        def apply(x, state, rng):
            seed = int(rng.integers(1 << 32))
            with _GLOBAL:
                kept = random.getstate(), np.random.get_state()
                random.seed(seed)
                np.random.seed(seed)
                try:
                    return np.asarray(transform(x.copy(), rate), np.float32)
                finally:
                    random.setstate(kept[0])
                    np.random.set_state(kept[1])

        return context.then(apply)

    def _made(self) -> Any:
        try:
            import audiomentations
        except ImportError as error:
            raise PluginError(f"expected the library audiomentations, found none that can be imported ({error}); "
                              'pip install "mtcore-augment[audiomentations]"') from error
        if "p" in self.options:
            raise ParameterError("expected options without p; write p beside use, where every step has it")
        try:
            return getattr(audiomentations, self.transform)(**self.options, p=1.0)
        except (AssertionError, TypeError, ValueError) as error:
            raise ParameterError(f"audiomentations.{self.transform} refuses its options {self.options}: {error}") from error
