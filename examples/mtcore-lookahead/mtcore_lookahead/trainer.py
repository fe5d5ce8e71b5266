"""Gradient descent with slow and fast weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mtcore.plugin import Trainer, param
from mtcore.training.gradient import GradientRun

__all__ = ["Lookahead"]


@dataclass(frozen=True, kw_only=True)
class Lookahead(Trainer):
    """Any optimizer runs ahead for some updates; then slow weights go part of the way after it, and it goes on from there
    (Zhang et al. 2019, https://arxiv.org/abs/1907.08610, with the optimizer's state kept)."""

    every: int = param(5, minimum=1, unit="updates", help="after which the slow weights follow")
    share: float = param(0.5, minimum=0, maximum=1, help="of the way that they go")

    def build(self) -> LookaheadRun:
        return LookaheadRun(self)


class LookaheadRun(GradientRun):
    def __init__(self, options: Lookahead):
        super().__init__()
        self.options = options

    def run(self, model, data, folder, setup):
        self.slow = [parameter.detach().to(setup.device, copy=True) for parameter in model.parameters()]
        super().run(model, data, folder, setup)

    @torch.no_grad()
    def follow(self) -> None:
        for slow, fast in zip(self.slow, self.model.parameters()):
            fast.copy_(slow.lerp_(fast, self.options.share))

    def one_update(self, micro, total):
        super().one_update(micro, total)
        if self.update % self.options.every == 0:
            self.follow()

    def extra_state(self):
        return {"slow": self.slow}

    def load_extra_state(self, state):
        self.slow = state["slow"]
