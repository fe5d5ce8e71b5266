"""Running statistics of normalisations over several processes: those of one process that has seen all micro-batches in turn."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .processes import Processes

__all__ = ["RunningStatistics"]


class RunningStatistics:
    """A batch makes r·(1 - m) + m·s of a statistic r, with momentum m and its own statistic s, or without momentum the mean of all of them.
    So what each micro-batch has added is taken out of the buffers, and put back, of all processes and in the micro-batches' order, after
    the last one."""

    def __init__(self, model: nn.Module, processes: Processes):
        self.processes = processes
        self.layers = [layer for layer in model.modules() if processes.count > 1 and getattr(layer, "running_mean", None) is not None]

    @staticmethod
    def _buffers(layer: nn.Module) -> tuple[int, Tensor]:
        return int(layer.num_batches_tracked), torch.cat([layer.running_mean, layer.running_var])

    @staticmethod
    def _kept(layer: nn.Module, number: int, batches: float) -> float:
        """What share of a statistic, of so many batches, is left after further ones."""
        return number / (number + batches) if layer.momentum is None else (1 - layer.momentum) ** batches

    def start(self, places: int) -> None:
        """An update of so many micro-batches, of all processes, begins."""
        self.passed = torch.zeros(len(self.layers), places + 1, dtype=torch.float64)  # and the batches that the layer itself has counted
        self.added: list[dict[int, Tensor]] = [{} for _ in self.layers]
        self.before = [self._buffers(layer) for layer in self.layers]

    @torch.no_grad()
    def take(self, place: int) -> None:
        """The micro-batch at this place of the update has gone through."""
        for i, (layer, (number, before)) in enumerate(zip(self.layers, self.before)):
            after, now = self._buffers(layer)
            if after > number or not torch.equal(now, before):  # instance normalisations do not count
                batches = max(after - number, 1)
                self.passed[i, place], self.passed[i, -1] = batches, self.passed[i, -1] + after - number
                self.added[i][place] = now - before * self._kept(layer, number, batches)
                self._put(layer, number, before)

    @torch.no_grad()
    def join(self) -> None:
        if not self.layers:
            return
        passed, counted = self.processes.total(self.passed).split([self.passed.shape[1] - 1, 1], 1)
        later = passed.flip(1).cumsum(1).flip(1) - passed
        added = []
        for layer, (number, before), own, batches, more in zip(self.layers, self.before, self.added, passed.tolist(), later.tolist()):
            further = [sum(batches) - own for own in batches] if layer.momentum is None else more
            added.append(sum((change * self._kept(layer, number + batches[place], further[place]) for place, change in own.items()),
                             torch.zeros_like(before)))
        together = self.processes.total(torch.cat(added)).split([len(one) for one in added])
        sums = zip(together, passed.sum(1).tolist(), counted[:, 0].tolist())
        for layer, (number, before), (change, batches, count) in zip(self.layers, self.before, sums):
            self._put(layer, number + int(count), before * self._kept(layer, number, batches) + change)

    @staticmethod
    def _put(layer: nn.Module, number: int, values: Tensor) -> None:
        layer.num_batches_tracked.fill_(number)
        for buffer, part in zip((layer.running_mean, layer.running_var), values.chunk(2)):
            buffer.data.copy_(part)  # graphs that are held until the update's last micro-batch have it
