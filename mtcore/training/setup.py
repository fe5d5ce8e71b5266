"""What a run trains with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import ExperimentError
from ..plugin import Named, Prepared, Step, Task
from ..plugin.loader import near
from ..progress import Progress
from .processes import Processes

__all__ = ["Setup", "check_watched"]


@dataclass
class Setup:
    """What a trainer works with. `watched` is "TASK.FIGURE" of tasks of this run, none for the mean loss; `parameters` by pattern of names."""

    heads: Mapping[str, Any]
    losses: Mapping[str, Callable]
    metrics: Mapping[str, Sequence[Named]]
    primary: Mapping[str, tuple[str, bool]]
    balancing: Any
    batches: Callable[[int, Any], Iterator[list[int]]]
    reporters: Any
    optimizer: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    progress: Progress
    seed: int = 0
    epochs: int | None = 10
    updates: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    clip: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    device: torch.device = torch.device("cpu")
    precision: str = "float32"
    compile: bool = False
    average: float | None = None
    inspect: int | None = None
    on_memory: str = "stop"
    watched: Sequence[str] = ()
    patience: int | None = None
    save_updates: int | None = None
    save_minutes: float | None = None
    workers: int = 0
    each_window: bool = False
    batch_steps: Sequence[tuple[Step, Prepared]] = ()
    processes: Processes = field(default_factory=Processes)


def check_watched(watched: Sequence[str], figures_: Mapping[str, Mapping[str, float]], tasks: Mapping[str, Task]) -> list[str]:
    """What is to be said where the task in "TASK.FIGURE" has figures, but not this one: it may be undefined here, or be written otherwise.
    `ExperimentError` where one is written almost like it. A label's figure is "FIGURE/LABEL"."""
    found = []
    for task, _, name in (one.partition(".") for one in watched):
        known = {key if "/" not in key else f"{key.partition('/')[0]}/LABEL" for key in figures_.get(task, ())}
        figure, slash, label = name.partition("/")
        if known and not (f"{figure}/LABEL" in known and label in tasks[task].labels if slash else name in known):
            found.append(f"train.stop.on: task {task} has the figures {', '.join(sorted(known))}; found {name!r}")
            if close := near(name, known) or near(figure, {key.partition("/")[0] for key in known if "/" in key}).replace("?", "/LABEL?"):
                raise ExperimentError(found[-1] + close)
    return found
