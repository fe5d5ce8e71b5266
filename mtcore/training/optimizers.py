"""Optimizers and schedulers by name; `warmup` is in updates."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch

from ..errors import ExperimentError

__all__ = ["build_optimizer", "build_schedule", "depends_on_length", "freeze"]

SCHEDULES = {"constant": (), "linear": ("final",), "cosine": ("final",), "step": ("every", "factor")}


def build_optimizer(config: Mapping[str, Any], model: torch.nn.Module, further: Iterable[torch.Tensor] = (),
                    patterns: Mapping[str, Any] | None = None) -> torch.optim.Optimizer:
    """torch's optimizer class of this name in any case, with its own parameters; fused where there is such a form.

    patterns  learning rates (`.lr`, None: the optimizer's) by pattern of parameters' names, the first that fits holds
    """
    names = {name.lower(): name for name, value in vars(torch.optim).items()
             if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
             and name not in ("LBFGS", "SparseAdam")}  # that compute losses themselves, or take sparse gradients only
    use, options = str(config["use"]), {key: value for key, value in config.items() if key != "use"}
    if use.lower() not in names:
        raise ExperimentError(f"train.optimizer: torch has {', '.join(sorted(names))}; found {use!r}")
    cls = getattr(torch.optim, names[use.lower()])
    known = [name for name in inspect.signature(cls).parameters if name != "params"]
    for key in options:
        if key not in known:
            raise ExperimentError(f"train.optimizer.{key}: {names[use.lower()]} takes {', '.join(known)}")
    groups: dict[float | None, list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(getattr(_fitting(name, patterns), "lr", None), []).append(parameter)
    groups.setdefault(None, []).extend(further)
    listed = [{"params": some} | ({} if lr is None else {"lr": lr}) for lr, some in groups.items() if some]
    if "fused" in known and not set(options) & {"fused", "foreach", "differentiable"}:
        options["fused"] = True
    try:
        return _light(cls)(listed, **options)
    except (TypeError, ValueError) as error:
        raise ExperimentError(f"train.optimizer: {error}") from None


def _light(cls: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The class without torch's wrappers around its methods: the first one to be called imports `torch._dynamo`, which takes a second, only to
    keep `torch.compile` out of them. Wrappers that are not torch's stay, and with them what is inside."""
    def others(wrapper: Any) -> bool:
        return not getattr(wrapper, "__globals__", {}).get("__name__", "").startswith("torch.")

    def bare(name: str) -> Any:
        return inspect.unwrap(getattr(cls, name), stop=others)

    def step(self, closure=None):
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            return inner(self, closure)

    inner = bare("step")
    return type(cls.__name__, (cls,), {"step": step, **{name: bare(name) for name in ("add_param_group", "state_dict", "load_state_dict")}})


def _fitting(name: str, patterns: Mapping[str, Any] | None) -> Any:
    return next((value for pattern, value in (patterns or {}).items() if fnmatchcase(name, pattern)), None)


def freeze(model: torch.nn.Module, patterns: Mapping[str, Any], epoch: int) -> None:
    """Parameters whose pattern says `frozen` (true, or so many first epochs) do not learn in this epoch. Raises `ExperimentError` for a
    pattern that fits no parameter."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ExperimentError(f"train.parameters: no parameter's name fits {pattern!r}; there are {', '.join(names[:8])}, …")
    for name, parameter in model.named_parameters() if patterns else ():
        if frozen := getattr(_fitting(name, patterns), "frozen", False):  # else what the network itself keeps frozen stays so
            parameter.requires_grad_(not (frozen is True or epoch <= frozen))
    if patterns and not any(parameter.requires_grad for parameter in model.parameters()):
        raise ExperimentError(f"train.parameters: nothing is left that learns in epoch {epoch}: all parameters are frozen")


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
