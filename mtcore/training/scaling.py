"""Loss scaling (Micikevicius et al. 2018, "Mixed precision training"), so that float16 holds small gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["Scaling", "finite"]

FIRST, LARGEST, PATIENCE = 2.0**16, 2.0**24, 2000
"""`torch.amp.GradScaler`'s first factor and updates until it is doubled."""


def finite(tensors: Iterable[Tensor | None]) -> bool:
    return math.isfinite(torch.nn.utils.get_total_norm([one.detach() for one in tensors if one is not None]).item())


class Scaling:
    """Gradients are `scale` times themselves between the network's outputs and its parameters, and nowhere else: losses, balancers and the
    optimizer see true ones. Powers of two, so that nothing is rounded."""

    def __init__(self, parameters: Sequence[Tensor], active: bool):
        self.scale, self.fitted, self.active = FIRST if active else 1.0, 0, active
        for parameter in parameters if active else ():
            if parameter.requires_grad:
                parameter.register_hook(lambda gradient: gradient / self.scale)

    def out(self, value: Tensor) -> Tensor:
        """What leaves the network, in float32."""
        value = value.float()
        if self.active and value.requires_grad:
            value.register_hook(lambda gradient: gradient * self.scale)
        return value

    @property
    def adapts(self) -> bool:
        """Whether a smaller scale is left to try where gradients are not finite."""
        return self.scale > 1

    def fit(self, parameters: Sequence[Tensor], failed: bool) -> bool:
        """Whether the gradients are finite, or would not become so; else the next scale is half of this one."""
        if self.adapts and (failed or not finite(parameter.grad for parameter in parameters)):
            self.scale, self.fitted = self.scale / 2, 0
            return False
        self.fitted += 1
        if self.active and self.fitted % PATIENCE == 0:
            self.scale = min(2 * self.scale, LARGEST)
        return True

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "fitted": self.fitted}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale, self.fitted = state["scale"], state["fitted"]
