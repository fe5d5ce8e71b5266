"""How the tasks' gradients agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["gradient_figures"]


def gradient_figures(losses: Mapping[str, Tensor], shared: Sequence[Tensor]) -> dict[str, float]:
    """Norm of each task's gradient of the shared parameters, "gradient_norm/TASK", and cosines, "gradient_cosine/TASK/TASK"; one backward
    pass per task, after which the graph is as it was."""
    found: dict[str, Tensor] = {}
    for name, loss in losses.items() if shared else ():
        gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        found[name] = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(shared, gradients)])
    norms = {f"gradient_norm/{name}": one.norm().item() for name, one in found.items()}
    return norms | {f"gradient_cosine/{one}/{other}": torch.cosine_similarity(found[one], found[other], dim=0).item()
                    for one in found for other in found if one != other}
