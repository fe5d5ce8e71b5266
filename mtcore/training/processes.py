"""Several processes that train one model, as `torchrun` starts them; one process needs none of it."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed

from ..errors import ExperimentError

__all__ = ["Processes", "device_of"]


def device_of(name: str) -> torch.device:
    """The device of this process; `auto`: the accelerator that torch finds, else the CPU. Processes of one machine take one each."""
    found = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    kind, _, index = (found if name == "auto" else name).partition(":")
    number = torch.accelerator.device_count() if found != "cpu" else 0
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind != found or index and not (index.isdecimal() and int(index) < number):
        there = [found, *(f"{found}:{i}" for i in range(number))] if number else []
        raise ExperimentError(f"train.device: expected one of {', '.join(['auto', 'cpu', *there])}, which torch finds here; found {name!r}")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA's products need to give the same bits each time
    device = torch.device(kind, int(index or int(os.environ.get("LOCAL_RANK", 0)) % number))
    torch.accelerator.set_device_index(device.index)
    return device


class Processes:
    """This process is number `rank` of `count`. All of them must make the same calls in the same order."""

    def __init__(self):
        self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        if self.count > 1 and not distributed.is_initialized():
            store, rank, count = next(distributed.rendezvous("env://"))
            # apart from what an earlier start has left in the store: processes would look for each other at old addresses
            store = distributed.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
            backends = ["cpu:gloo"]
            if torch.accelerator.is_available():
                kind = torch.accelerator.current_accelerator().type
                backends.append(f"{kind}:{distributed.get_default_backend_for_device(kind)}")
            distributed.init_process_group(",".join(backends), store=store, rank=rank, world_size=count)
            atexit.register(distributed.destroy_process_group)  # whose threads may abort the process otherwise

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def gathered(self, thing: Any) -> list[Any]:
        """What each process has, by rank."""
        if self.count == 1:
            return [thing]
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, thing)
        return found

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            distributed.barrier()

    @torch.no_grad()
    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum `.grad` over the processes; a parameter that has none anywhere keeps none, so that optimizers leave it alone."""
        if self.count == 1:
            return
        learned = [p for p in parameters if p.requires_grad]
        there = self.total(torch.tensor([float(p.grad is not None) for p in learned])).tolist()
        learned = [p for p, number in zip(learned, there) if number]
        if not learned:
            return
        flat = self.total(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in learned]))
        for parameter, part in zip(learned, flat.split([p.numel() for p in learned])):
            parameter.grad = part.view_as(parameter)
