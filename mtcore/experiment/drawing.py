"""An experiment's networks as text: modules with the shapes they give, parameters, multiply-adds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..reporting.table import format_table
from .check import few

if TYPE_CHECKING:
    from .plan import Experiment
    from .run import Run

__all__ = ["networks"]

DEPTH = 4


def networks(experiment: Experiment) -> Iterator[dict[str, Any]]:
    """One per variation: `modules`, rows of name, type, shape of what it gives for one row, parameters and multiply-adds per row; `tasks`:
    by task the parameters and multiply-adds that its output takes."""
    seen = set()
    for run in experiment.runs():
        if run.variation.name not in seen:
            seen.add(run.variation.name)
            yield {"variation": run.variation.name, **_network(experiment, run)}


@torch.no_grad()
def _network(experiment: Experiment, run: Run) -> dict[str, Any]:
    data = experiment._data(run, partial(few, experiment.corpus, 4))
    data.fit()
    model, rows = run.model(data).eval(), data.rows("train")
    batch = rows.batch([0])
    shapes: dict[str, Any] = {}
    named = {name: module for name, module in model.named_modules() if name and name.count(".") < DEPTH}
    hooks = [module.register_forward_hook(partial(_note, shapes, name)) for name, module in named.items()]
    each = {task: _adds(model, batch, [task]) for task in data.tasks}
    whole = _adds(model, batch, data.tasks)
    for hook in hooks:
        hook.remove()
    kind = type(model).__name__
    parameters = lambda module: sum(p.numel() for p in module.parameters())
    modules = [[name, type(module).__name__, shapes[name], parameters(module), whole.get(f"{kind}.{name}", 0)]
               for name, module in named.items() if name in shapes]
    heads = getattr(model, "heads", {})
    own = {task: parameters(model) - sum(parameters(head) for other, head in heads.items() if other != task) for task in data.tasks}
    return {"inputs": {name: list(tensor.shape[1:]) for name, tensor in batch.inputs.items()}, "modules": modules,
            "parameters": parameters(model), "multiply_adds": whole.get("Global", 0),
            "tasks": {task: {"parameters": own[task], "multiply_adds": found.get("Global", 0)} for task, found in each.items()}}


def _note(shapes: dict[str, str], name: str, module: torch.nn.Module, given: Any, found: Any) -> None:
    shapes.setdefault(name, _shape(found))


def _adds(model: torch.nn.Module, batch: Any, tasks: Iterable[str]) -> dict[str, int]:
    """By module, of one row that has these tasks."""
    with FlopCounterMode(display=False) as counter:
        model(batch.inputs, batch.lengths, {task: slice(0, 1) for task in tasks})
    return {name: sum(found.values()) // 2 for name, found in counter.get_flop_counts().items()}


def _shape(found: Any) -> str:
    """Of a tensor, or of what a representation holds, without the batch."""
    if isinstance(found, torch.Tensor):
        return str(list(found.shape[1:]))
    if isinstance(found, dict):
        return _shape(next(iter(found.values())))
    return ", ".join(str(list(one.shape[1:])) for one in found[:2] if isinstance(one, torch.Tensor)) if isinstance(found, tuple) else ""


def text(found: dict[str, Any]) -> str:
    """One network as tables."""
    tasks = [[task, one["parameters"], one["multiply_adds"]] for task, one in found["tasks"].items()]
    inputs = ", ".join(f"{name} {shape}" for name, shape in found["inputs"].items())
    return "\n\n".join([f"{found['variation']}: a row is {inputs}",
                        format_table(found["modules"], ["module", "type", "gives", "parameters", "multiply-adds"]),
                        format_table([*tasks, ["all", found["parameters"], found["multiply_adds"]]], ["task", "parameters", "multiply-adds"])])
