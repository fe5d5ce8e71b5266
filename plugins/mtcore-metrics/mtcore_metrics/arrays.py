"""Figures of dense targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtcore.plugin import Measure, Metric, Predictions, Task, param

__all__ = ["SiSdr"]


@dataclass(frozen=True, kw_only=True)
class SiSdr(Metric):
    """Scale-invariant signal-to-distortion ratio in dB, mean over clips, after Le Roux et al. (2019), SDR - half-baked or well
    done?, https://arxiv.org/abs/1811.02508: the energy of the target, scaled to lie nearest to what was given, over that of the
    rest. A signal is an array's last dimension; a clip with several has the mean of theirs. Each figure lies between -`limit` and
    `limit`, so that an exact copy or silence does not make the mean infinite; silent targets are left out."""

    kinds = ("array",)
    primary = "si_sdr"
    limit: float = param(100.0, help="largest and smallest figure of one signal", unit="dB", minimum=1)
    zero_mean: bool = param(False, help="means are subtracted first, for signals without an offset of their own")

    def build(self, task: Task) -> Measure:
        return Ratios(self)

    def ratios(self, target: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Of [..., samples], in dB; not a number where the target is silent."""
        if self.zero_mean:
            target, given = (one - one.mean(-1, keepdims=True) for one in (target, given))
        energy = (target ** 2).sum(-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = (given * target).sum(-1, keepdims=True) / energy * target
            ratio = 10 * np.log10((scaled ** 2).sum(-1) / ((given - scaled) ** 2).sum(-1))
        ratio = np.where(np.isnan(ratio), -np.inf, ratio)  # silence was given
        return np.where(energy[..., 0] > 0, ratio.clip(-self.limit, self.limit), np.nan)


class Ratios(Measure):
    """A figure per clip."""

    def __init__(self, metric: SiSdr):
        self.metric, self.found = metric, []

    def update(self, predictions: Predictions) -> None:
        for target, given in zip(predictions.targets, predictions.decided):
            ratios = self.metric.ratios(np.asarray(target, float), np.asarray(given, float))
            if not np.isnan(ratios).all():
                self.found.append(float(np.nanmean(ratios)))

    def merge(self, other: Ratios) -> None:
        self.found += other.found

    def compute(self) -> dict[str, float]:
        return {"si_sdr": float(np.mean(self.found))} if self.found else {}
