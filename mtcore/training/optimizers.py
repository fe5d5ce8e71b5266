"""Optimizers and schedulers by name; `warmup` is in updates."""

from __future__ import annotations

import inspect
import math
from typing import Any, Iterable, Mapping

import torch

from ..errors import ExperimentError

__all__ = ["build_optimizer", "build_schedule", "depends_on_length"]

SCHEDULES = {"constant": (), "linear": ("final",), "cosine": ("final",), "step": ("every", "factor")}


def build_optimizer(config: Mapping[str, Any], parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    """torch's optimizer class of this name in any case, with its own parameters."""
    names = {name.lower(): name for name, value in vars(torch.optim).items()
             if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer}
    use, options = str(config["use"]), {key: value for key, value in config.items() if key != "use"}
    if use.lower() not in names:
        raise ExperimentError(f"train.optimizer: torch has {', '.join(sorted(names))}; found {use!r}")
    cls = getattr(torch.optim, names[use.lower()])
    known = [name for name in inspect.signature(cls).parameters if name != "params"]
    for key in options:
        if key not in known:
            raise ExperimentError(f"train.optimizer.{key}: {names[use.lower()]} takes {', '.join(known)}")
    try:
        return cls(list(parameters), **options)
    except (TypeError, ValueError) as error:
        raise ExperimentError(f"train.optimizer: {error}") from None


def depends_on_length(config: Mapping[str, Any]) -> bool:
    """Whether the learning rate at an update depends on how many there will be."""
    return config["use"] in ("linear", "cosine")


def build_schedule(config: Mapping[str, Any], optimizer: torch.optim.Optimizer, updates: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Factor of the learning rate per update: `constant`; `linear` and `cosine` down to `final` (default 0) at the last update; `step`:
    times `factor` (0.1) every so many updates. All rise linearly over the first `warmup` updates."""
    use, options = config["use"], {key: value for key, value in config.items() if key != "use"}
    if use not in SCHEDULES:
        raise ExperimentError(f"train.scheduler: expected one of {', '.join(SCHEDULES)}; found {use!r}")
    for key in options:
        if key not in ("warmup", *SCHEDULES[use]):
            raise ExperimentError(f"train.scheduler.{key}: {use} takes {', '.join(('warmup', *SCHEDULES[use]))}")
    wrong = [key for key, value in options.items() if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0]
    if wrong or options.get("every") == 0:
        key = (wrong or ["every"])[0]
        raise ExperimentError(f"train.scheduler.{key}: expected a number {'above 0' if key == 'every' else 'of 0 or more'}; "
                              f"found {options[key]!r}")
    warmup, final = options.get("warmup", 0), options.get("final", 0.0)
    every, factor = options.get("every", 1000), options.get("factor", 0.1)

    def rate(update: int) -> float:
        rise = min(1.0, (update + 1) / warmup) if warmup else 1.0
        done = min(1.0, max(0.0, (update - warmup) / max(1, updates - warmup)))
        if use == "linear":
            return rise * (1 - done * (1 - final))
        if use == "cosine":
            return rise * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
        return rise * (factor ** (update // every) if use == "step" else 1.0)

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
