"""Running statistics of normalisations over several processes: those of one process that has seen all micro-batches in turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .processes import Processes

__all__ = ["RunningStatistics"]


class RunningStatistics:
    """A batch makes r·(1 - m) + m·s of a statistic r, with momentum m and its own statistic s. So what each micro-batch has added is taken
    out of the buffers, and put back, of all processes and in the micro-batches' order, after the last one."""

    def __init__(self, model: nn.Module, processes: Processes):
        self.processes = processes
        self.layers = [layer for layer in model.modules() if processes.count > 1 and getattr(layer, "running_mean", None) is not None
                       and layer.momentum]

    @staticmethod
    def _buffers(layer: nn.Module) -> tuple[int, Tensor]:
        return int(layer.num_batches_tracked), torch.cat([layer.running_mean, layer.running_var])

    def start(self, places: int) -> None:
        """An update of so many micro-batches, of all processes, begins."""
        self.passed = torch.zeros(len(self.layers), places, dtype=torch.float64)
        self.added: list[dict[int, Tensor]] = [{} for _ in self.layers]
        self.before = [self._buffers(layer) for layer in self.layers]

    @torch.no_grad()
    def take(self, place: int) -> None:
        """The micro-batch at this place of the update has gone through."""
        for i, (layer, (number, before)) in enumerate(zip(self.layers, self.before)):
            after, now = self._buffers(layer)
            if after > number:
                self.passed[i, place] = after - number
                self.added[i][place] = now - before * (1 - layer.momentum) ** (after - number)
                self._put(layer, number, before)

    @torch.no_grad()
    def join(self) -> None:
        if not self.layers:
            return
        passed = self.processes.total(self.passed)
        later = passed.flip(1).cumsum(1).flip(1) - passed
        added = []
        for layer, (_, before), own, more in zip(self.layers, self.before, self.added, later.tolist()):
            added.append(sum((change * (1 - layer.momentum) ** more[place] for place, change in own.items()), torch.zeros_like(before)))
        together = self.processes.total(torch.cat(added)).split([len(one) for one in added])
        for layer, (number, before), change, batches in zip(self.layers, self.before, together, passed.sum(1).tolist()):
            self._put(layer, number + int(batches), before * (1 - layer.momentum) ** batches + change)

    @staticmethod
    def _put(layer: nn.Module, number: int, values: Tensor) -> None:
        layer.num_batches_tracked.fill_(number)
        for buffer, part in zip((layer.running_mean, layer.running_var), values.chunk(2)):
            buffer.data.copy_(part)  # graphs that are held until the update's last micro-batch have it
