"""Feature sets of openSMILE."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mtcore.plugin import ClipError, Extractor, param

from .extras import extra
from .framing import check_length, known

SETS = {"GeMAPSv01b": 60, "eGeMAPSv02": 60, "emobase": 40, "IS09": 25, "IS10": 70, "IS11": 70, "IS12": 70, "IS13": 60,
        "ComParE_2016": 60}
"""Shortest clip in ms, found by trial at five rates: the longest frame of the set, in three sets one hop more."""


@dataclass(frozen=True, kw_only=True)
class OpenSmile(Extractor):
    """Functionals of openSMILE (Eyben et al. 2010, https://doi.org/10.1145/1873951.1874246): [channels, values].

    Needs `pip install "mtcore-features[opensmile]"`. openSMILE is free for private, academic and other non-commercial use only
    (audEERING Research License). It works on 16 bits: what is louder than full scale is clipped.
    """

    set: str = param("eGeMAPSv02", choices=tuple(SETS), help="feature set: 62 values in GeMAPSv01b, 88 in eGeMAPSv02, 384 in "
                     "IS09, 6373 in ComParE_2016")

    def axis(self, rate: float | None) -> None:
        return None

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], np.ndarray]:
        least = math.ceil(SETS[self.set] * known(rate) / 1000)
        library = extra("opensmile")
        smile = library.Smile(feature_set=library.FeatureSet[self.set], feature_level=library.FeatureLevel.Functionals)

        def functionals(x: np.ndarray) -> np.ndarray:
            check_length(x, least, rate, self.set, "")
            whole = np.clip(x, -1, 1 - 2 ** -15)  # the library takes 1 to 32768, which in 16 bits is -32768
            found = np.concatenate([smile.process_signal(signal=one, sampling_rate=int(rate)).to_numpy() for one in whole])
            if not np.isfinite(found).all():
                raise ClipError(f"openSMILE gives no finite value for {(~np.isfinite(found)).sum()} of {found.size} functionals; "
                                "leave the clip out or take another set")
            return found

        return functionals
