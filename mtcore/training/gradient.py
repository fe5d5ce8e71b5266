"""Gradient descent: the built-in training paradigm.

    for each epoch:  for each update:  micro-batches ─► model ─► loss per task ─► balancer ─► optimizer step
                     validation ─► reporters ─► checkpoint ─► stop?
    then the best and the last checkpoint on the test part
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch._functorch import config as functorch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import TrainingError
from ..plugin import Batch, Trainer
from ..preparing.data import RunData
from ..runfolder import RunFolder
from ..streams import derive, stream
from .checkpoint import KEPT, Checkpoints, copied, load_checkpoint
from .evaluate import figures, outputs_of, predict
from .inspecting import gradient_figures
from .optimizers import build_optimizer, build_schedule, freeze
from .scaling import Scaling, finite
from .setup import Setup, check_watched
from .statistics import RunningStatistics

__all__ = ["Gradient", "GradientRun", "load_checkpoint"]


class Gradient(Trainer):
    """Gradient descent with checkpoints after every epoch, early stopping and exact continuation."""

    def build(self) -> GradientRun:
        return GradientRun()


class GradientRun:
    """One run. What paradigms override: `compute`, `backward`, `one_update`, `train_epoch`, `epoch_done`, `stop_now`, and `extra_state` with
    `load_extra_state` for what checkpoints are to hold beside."""

    def run(self, model: torch.nn.Module, data: RunData, folder: RunFolder, setup: Setup) -> None:
        self.model, self.data, self.folder, self.setup, self.heads = model.to(setup.device), data, folder, setup, dict(setup.heads)
        self.forward = torch.compile(model) if setup.compile else model
        functorch.donated_buffer = functorch.donated_buffer and not setup.compile  # a graph may go backward for one task after the other
        self.averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(setup.average)) if setup.average else None
        self.rows = {part: data.rows(part) for part in ("train", "validation", "test")}
        for line in (line for rows in self.rows.values() for line in rows.dropped):
            folder.log(line)
        setup.balancing.processes, setup.balancing.reduce = setup.processes.count, setup.processes.total
        setup.balancing.rank = setup.processes.rank
        self.micro_batches = setup.accumulate * setup.balancing.batches_per_update * setup.processes.count
        self.per_epoch = max(1, -(-sum(1 for _ in setup.batches(1, stream(setup.seed, "sampler", 1))) // self.micro_batches))
        self.epochs = -(-setup.updates // self.per_epoch) if setup.updates else setup.epochs
        self.limit = setup.updates or self.epochs * self.per_epoch
        self.optimizer = build_optimizer(setup.optimizer, model, setup.balancing.parameters(), setup.parameters)
        self.schedule = build_schedule(setup.scheduler, self.optimizer, self.limit)
        self.scaling = Scaling(list(model.parameters()), setup.precision == "float16")
        self.statistics = RunningStatistics(model, setup.processes)
        self.epoch = self.update = self.best_epoch = 0
        self.best: float | None = None
        self.partial: tuple[dict[str, list], int] | None = None
        self.parts, self.current = 1, Batch({}, {}, {}, [])
        self.checkpoints, self.saved = Checkpoints(), time.monotonic()
        self.resume()
        if setup.patience is not None and not len(self.rows["validation"]):
            folder.log("warning: train.stop.patience is without effect, as there is no validation part")
        setup.reporters.run_started(folder.info)
        try:
            with torch.random.fork_rng(devices=[setup.device.index] * (setup.device.type != "cpu"), device_type=setup.device.type):
                while self.partial or self.epoch < self.epochs and not self.stop_now():
                    self.epoch += 1
                    try:
                        self.train_epoch()
                    except (MemoryError, RuntimeError) as error:
                        self._smaller_batches(error)
                    else:
                        self.epoch_done()
                why = "" if self.update >= self.limit else f", as validation has not improved for {setup.patience} epochs"
                folder.log(f"trained for {self.epoch} epochs{why}; the best one is {self.best_epoch}")
                self.checkpoints.wait()
                setup.processes.wait()  # until what all are about to read is written
                self.finish()
        finally:
            self.checkpoints.wait()

    # One epoch --------------------------------------------------------------------------------------------------------

    def train_epoch(self) -> None:
        setup, self.rows["train"].epoch = self.setup, self.epoch
        total, done = self.partial or ({}, 0)
        self.partial = None
        freeze(self.model, setup.parameters, self.epoch)
        shared = self.model.shared_parameters() if hasattr(self.model, "shared_parameters") else self.model.parameters()
        self.shared = [parameter for parameter in shared if parameter.requires_grad]
        self.parameters = [*self.model.parameters(), *setup.balancing.parameters()]
        plan = self._planned()
        updates = min(self.per_epoch - done, self.limit - self.update, -(-len(plan) // self.micro_batches) - done)
        groups = [self._mine(plan, (done + number) * self.micro_batches) for number in range(updates)]
        batches = self.rows["train"].batches((rows for group in groups for _, rows in group), setup.workers)
        self.model.train()
        label = f"{self.folder.path.name} epoch {self.epoch}/{self.epochs}"
        for group in setup.progress.track(groups, updates, label):
            micro = [self._stepped(replace(batch.to(setup.device), place=place))
                     for (place, _), batch in zip(group, islice(batches, len(group)))]
            self.one_update(micro, total)
            done += 1
            if self._save_due():
                self._save("last", (total, done))
        sums = self._added({name: value for name, (value, _) in total.items()})
        counts = self._added({name: count for name, (_, count) in total.items()})
        means = {name: sums[name] / counts[name] for name in sums if counts[name]}
        self.train_losses = {name: means[name] for name in setup.heads if name in means}
        self.further = {name: value for name, value in means.items() if name not in setup.heads}
        setup.balancing.epoch_ended(self.train_losses)

    def _planned(self) -> list[np.ndarray]:
        """The rows of each micro-batch of this epoch, in order, so that those of a dataset are neighbours; `self.passes` says how often
        each dataset's rows are gone through."""
        plan = [np.sort(rows) for rows in self.setup.batches(self.epoch, stream(self.setup.seed, "sampler", self.epoch))]
        dataset = self.rows["train"].index[:, 0]
        every = np.bincount(dataset, minlength=len(self.data.datasets))
        seen = sum((np.bincount(dataset[rows], minlength=len(every)) for rows in plan), np.zeros(len(every)))
        self.passes = {self.data.datasets[d].name: seen[d] / every[d] for d in np.flatnonzero(every)}
        return plan

    def _mine(self, plan: Sequence[np.ndarray], first: int) -> list[tuple[tuple[int, int], np.ndarray]]:
        """This process's micro-batches of the update that begins with the first-th one: their places in the epoch and their rows."""
        processes = self.setup.processes
        numbers = range(first + processes.rank, min(first + self.micro_batches, len(plan)), processes.count)
        return [((number, part), rows) for number in numbers for part, rows in enumerate(np.array_split(plan[number], self.parts)) if len(rows)]

    def _stepped(self, batch: Batch) -> Batch:
        """A batch after the steps on whole batches."""
        for step, prepared in self.setup.batch_steps:
            rng = stream(self.setup.seed, "batch step", step.id, self.epoch, *batch.place)
            if step.p >= 1 or rng.random() < step.p:
                batch = prepared.apply(batch, {}, rng)
        return batch

    def one_update(self, micro: Sequence[Batch], total: dict[str, list]) -> None:
        """One change of the parameters. A task's mean is over its rows in all micro-batches of all processes, so they are drawn first.
        `total` takes sums and numbers of the losses by task, and of further figures."""
        setup, model = self.setup, self.model
        self.update += 1
        counts = self._added({name: sum(len(batch.targets[name]) for batch in micro if name in batch.targets) for name in setup.heads})
        number = self._added({"": len(micro)})[""]
        for parameter in self.parameters:
            parameter.grad = None
        shared, failed, setup.balancing.gradient_scale = self.shared, False, self.scaling.scale
        before = copied(setup.balancing.state_dict()) if self.scaling.adapts else {}
        further: list[tuple] = []
        for batch, output, values in self._forward(micro):
            for name, rows in values.items():
                self._add(total, name, self._finite(name, rows, batch), len(rows))
            losses = {name: rows.sum() / counts[name] for name, rows in values.items() if rows.requires_grad}  # what is not frozen
            for name, cost in getattr(output, "costs", {}).items():
                self._add(total, f"cost/{name}", cost.item(), 1)
                further.append(torch.autograd.grad(self.scaling.out(cost) / number, self._learned(), retain_graph=True, allow_unused=True))
            if setup.inspect and self.update % setup.inspect == 0:
                for name, value in gradient_figures(losses, shared).items():
                    self._add(total, name, value, 1)
            failed |= self._fails(self.backward, losses, shared, output, batch, batch is micro[-1])
        if not micro:  # at an epoch's end; the other processes' balancers wait for this one's
            failed = self._fails(setup.balancing.backward, {}, shared, None, {})
        self.statistics.join()
        self._collect(further, shared)
        if not self.scaling.fit(self.parameters, failed):
            self.folder.log(f"update {self.update} is left out: a gradient is too large for float16; losses are scaled by {self.scaling.scale:g} now")
            setup.balancing.load_state_dict(before)
            return
        if setup.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), setup.clip)
        self.optimizer.step()
        self.schedule.step()
        if self.averaged is not None:
            self.averaged.update_parameters(model)
        setup.balancing.after_update(lambda: self._losses_anew(micro, counts))

    def compute(self, batch: Batch) -> tuple[Any, dict[str, torch.Tensor]]:
        """The model's output for a micro-batch, and the losses per row by task."""
        low = self.setup.precision != "float32"
        with torch.autocast(self.setup.device.type, dtype=getattr(torch, self.setup.precision)) if low else nullcontext():
            output = self.forward(batch.inputs, batch.lengths, batch.rows)
        return output, {name: self.setup.losses[name](self.scaling.out(raw) if low else raw, batch.targets.get(name), batch)
                        for name, raw in outputs_of(output).items()}

    def backward(self, losses: Mapping[str, torch.Tensor], shared: Sequence[torch.Tensor], output: Any, batch: Batch, last: bool) -> None:
        """Gradients of one micro-batch."""
        self.setup.balancing.backward(losses, shared, getattr(output, "representation", None), batch.rows, last)

    def _fails(self, backward: Callable[..., None], *given: Any) -> bool:
        """Whether a balancer meets infinite gradients, which smaller ones of float16 will not be."""
        self._seed("balance", self.update)  # the same choices in all processes
        try:
            backward(*given)
        except (TrainingError, ValueError):
            if not self.scaling.adapts:
                raise
            return True
        return False

    def _forward(self, micro: Sequence[Batch]) -> Iterator[tuple[Batch, Any, dict[str, torch.Tensor]]]:
        """Each micro-batch with the model's output and the losses per row, with its own random choices."""
        self.statistics.start(self.micro_batches * self.parts)
        for batch in micro:
            self.current = batch
            self._seed("forward", self.epoch, *batch.place)
            yield batch, *self.compute(batch)
            number, part = batch.place
            self.statistics.take(number % self.micro_batches * self.parts + part)

    def _seed(self, *key: str | int) -> None:
        """Seed torch's generators for this purpose. (`torch.manual_seed` asks for all devices, which takes a fifth of a small update.)"""
        number = derive(self.setup.seed, *key) % 2**63
        torch.default_generator.manual_seed(number)
        if self.setup.device.type != "cpu":
            torch.get_device_module(self.setup.device).manual_seed(number)

    @torch.no_grad()
    def _losses_anew(self, micro: Sequence[Batch], counts: Mapping[str, float]) -> dict[str, torch.Tensor]:
        losses = {name: torch.zeros((), device=self.setup.device) for name, count in counts.items() if count}
        for _, _, values in self._forward(micro):
            for name, rows in values.items():
                losses[name] = losses[name] + rows.sum() / counts[name]
        self.statistics.join()
        return {name: self.setup.processes.total(loss) for name, loss in losses.items()}

    def _learned(self) -> list[torch.Tensor]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _collect(self, further: Sequence[tuple], shared: Sequence[torch.Tensor]) -> None:
        """Gradients of costs, and of other processes, on top of what the balancer has written."""
        for gradients in further:
            for parameter, gradient in zip(self._learned(), gradients):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        apart = set(map(id, shared)) if self.setup.balancing.reduced else set()
        self.setup.processes.add_gradients(parameter for parameter in self.parameters if id(parameter) not in apart)

    def _added(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over all processes, which may have other names."""
        if self.setup.processes.count == 1:
            return values
        every = self.setup.processes.gathered(values)
        return {name: sum(one.get(name, 0) for one in every) for name in dict.fromkeys(name for one in every for name in one)}

    @staticmethod
    def _add(total: dict[str, list], name: str, value: float, number: int) -> None:
        entry = total.setdefault(name, [0.0, 0])
        entry[0] += value
        entry[1] += number

    def _finite(self, name: str, values: torch.Tensor, batch: Batch) -> float:
        """The sum of a task's losses. Raises `TrainingError` that names the clips where it is not finite."""
        value = values.detach().cpu().sum(dtype=torch.float64).item()  # not every device has float64
        if not math.isfinite(value):
            rows = np.arange(len(batch.clips))[batch.rows[name]].tolist()
            clips = [batch.clips[rows[i]] for i in torch.nonzero(~torch.isfinite(values)).flatten().tolist()]
            more = f" and {len(clips) - 5} more" if len(clips) > 5 else ""
            raise TrainingError(f"{self.folder.path.name}: the loss of task {name} is not finite at update {self.update} (epoch {self.epoch}), "
                                f"clips {', '.join(clips[:5])}{more}; lower the learning rate, or look at these clips' features. "
                                f"The last good checkpoint is {self.folder.checkpoint('last')}")
        return value

    def _smaller_batches(self, error: Exception) -> None:
        """After one that ran out of memory, go on from the last checkpoint with micro-batches cut in two, or stop."""
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "not enough memory" not in str(error):
            raise error
        where = (f"{self.folder.path.name}: out of memory at update {self.update} (epoch {self.epoch}) "
                 f"with {self.setup.batch_size // self.parts} rows, tasks {', '.join(self.current.rows)}, "
                 f"clips {', '.join(self.current.clips[:5])}, …")
        if self.setup.on_memory == "stop" or self.parts >= self.setup.batch_size:
            raise TrainingError(f"{where}; lower train.batch_size and raise train.accumulate, or say train.on_memory = \"halve\". The last good "
                                f"checkpoint is {self.folder.checkpoint('last')}") from error
        self.parts *= 2
        self.folder.log(f"{where}; each micro-batch is cut into {self.parts}")
        self.checkpoints.wait()
        self.resume()

    # After an epoch ---------------------------------------------------------------------------------------------------

    def epoch_done(self) -> None:
        setup = self.setup
        found = {"train": {name: {"loss": value} for name, value in self.train_losses.items()}}
        for name, weight in setup.balancing.figures().items():
            found["train"].setdefault(name, {})["weight"] = weight
        for name, value in self.further.items():
            figure, _, task = name.partition("/")
            task, _, other = task.partition("/") if figure != "cost" else ("", "", task)
            found["train"].setdefault(task, {})[f"{figure}/{other}" if other else figure] = value
        predictions = {}
        if len(self.rows["validation"]):
            predictions["validation"], found["validation"] = self._evaluate("validation")
        self._write(found, None)
        better = self._better(found)
        if better:
            self.best_epoch = self.epoch
            self._save("best")
        self._save("last")
        self.folder.update_info(epoch=self.epoch, best_epoch=self.best_epoch)
        setup.reporters.epoch_ended(self.epoch, found, predictions)
        shown = ", ".join(f"{name} {key} {values[key]:.4g}" for name, values in found.get("validation", found["train"]).items()
                          if name in setup.primary for key in dict.fromkeys((setup.primary[name][0], "loss")) if key in values)
        shown += "".join(f", {name} {key} {values[key]:.3g}" for name, values in found["train"].items() for key in values
                         if key in ("weight", "gradient_norm") or key.startswith("gradient_cosine/") and key.partition("/")[2] > name)
        uneven = {name: passes for name, passes in self.passes.items() if passes != 1}
        self.folder.log(f"epoch {self.epoch}: {shown}" + (f"; rows gone through: {', '.join(f'{n} {p:.3g} times' for n, p in uneven.items())}"
                                                          if uneven else ""))

    def _better(self, found: Mapping[str, Any]) -> bool:
        value = self.watched_value(found)
        if value is None or self.best is None or math.isnan(self.best) or value > self.best:
            self.best = value
            return True
        return False

    def watched_value(self, found: Mapping[str, Any]) -> float | None:
        """What best checkpoint and early stopping look at, larger is better: the mean of `stop.on`'s figures, those that are better when
        lower with a minus; else minus the mean validation loss."""
        figures_ = found.get("validation")
        if not figures_:
            return None
        for text in check_watched(self.setup.watched, figures_, self.data.tasks) if self.epoch == 1 else ():
            self.folder.log(f"warning: {text}, which counts as worse than any other value where it is undefined")
        values = []
        for task, _, name in (one.partition(".") for one in self.setup.watched or [f"{task}.loss" for task, v in figures_.items() if "loss" in v]):
            if name not in figures_.get(task, {}):  # undefined in this epoch: no better than any other
                return -math.inf
            lower = {"loss"}.union(*(metric.component.lower for metric in self.setup.metrics[task]))
            values.append(-figures_[task][name] if name.split("/")[0] in lower else figures_[task][name])
        return sum(values) / len(values) if values else None

    def stop_now(self) -> bool:
        """Whether validation has not improved for `patience` epochs, or all updates are made."""
        patience = self.setup.patience
        return self.update >= self.limit or (patience is not None and self.epoch - self.best_epoch >= patience)

    def finish(self) -> None:
        for name in ("last", "best"):
            state = load_checkpoint(self.folder.checkpoint(name))
            (self.model if self.averaged is None else self.averaged.module).load_state_dict(state["model"])
            predictions, found = {}, {}
            for part in ("validation", "test"):
                if len(self.rows[part]):
                    predictions[part], found[part] = self._evaluate(part)
            self._write({part: values for part, values in found.items() if part == "test"}, name, state["epoch"])
            self.folder.save_predictions(name, predictions)
        for name, head in self.heads.items():
            chosen = {key: value for key, value in vars(head).items() if value != vars(self.setup.heads[name]).get(key)}
            if chosen:
                self.folder.log(f"task {name} decides by what validation has chosen: {', '.join(f'{key} {value}' for key, value in chosen.items())}")
        if "test" in found:
            self.setup.reporters.epoch_ended(state["epoch"], {"test": found["test"]}, {"test": predictions["test"]})

    def _evaluate(self, part: str) -> tuple[dict, dict]:
        """Predictions and figures of a part; the validation part teaches heads what they decide by."""
        setup = self.setup
        model = self.model if self.averaged is None else self.averaged.module
        if part == "validation":
            self.heads = dict(setup.heads)
        predictions, losses = predict(model, self.heads, setup.losses, self.rows[part], setup.batch_size, setup.workers, setup.each_window,
                                      setup.processes, tune=part == "validation")
        return predictions, figures(predictions, losses, setup.metrics)

    def _write(self, found: Mapping[str, Any], checkpoint: str | None, epoch: int | None = None) -> None:
        self.folder.append_metrics([
            {"epoch": epoch or self.epoch, "update": self.update, "part": part, "task": task, "metric": metric, "value": value,
             "checkpoint": checkpoint} for part, tasks in found.items() for task, values in tasks.items() for metric, value in values.items()])

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def _save_due(self) -> bool:
        setup, seconds = self.setup, time.monotonic() - self.saved
        return bool(setup.save_updates and self.update % setup.save_updates == 0 or setup.save_minutes and seconds > 60 * setup.save_minutes)

    def _save(self, name: str, partial: tuple[dict[str, list], int] | None = None) -> None:
        """`partial`: sums of losses and number of updates of an epoch that has not ended, of each process."""
        self.saved, setup = time.monotonic(), self.setup
        if not finite(self.model.parameters()):
            raise TrainingError(f"{self.folder.path.name}: weights are not finite after update {self.update} (epoch {self.epoch}); lower the "
                                f"learning rate. The last good checkpoint is {self.folder.checkpoint('last')}")
        averaged = {} if self.averaged is None else {"learned": self.model.state_dict(), "averages": self.averaged.n_averaged}
        partials = setup.processes.gathered(partial)
        state = {"epoch": self.epoch - (partial is not None), "update": self.update, "best": self.best, "best_epoch": self.best_epoch,
                 "partial": partials, "parts": self.parts, "model": (self.averaged.module if averaged else self.model).state_dict(), **averaged,
                 "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(), "scaling": self.scaling.state_dict(),
                 "balancing": dict(setup.balancing.state_dict()), "extra": self.extra_state()}
        if setup.processes.rank == 0:
            self.checkpoints.save(self.folder.checkpoint(name), state)

    def extra_state(self) -> dict[str, Any]:
        """What a paradigm keeps beside: numbers, strings, tensors, and lists and dicts of them."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        pass

    def resume(self) -> None:
        """Continue behind the last update that was saved: everything random is keyed by epoch and place, so no stream needs storing."""
        path, processes = self.folder.checkpoint("last"), self.setup.processes
        self.folder.clean()
        processes.wait()
        if not path.exists():
            self.folder.truncate_metrics(0)
            self._save("last")
            return
        state = load_checkpoint(path, KEPT)
        self.model.load_state_dict(state.get("learned", state["model"]))
        if self.averaged is not None:
            self.averaged.module.load_state_dict(state["model"])
            self.averaged.n_averaged.copy_(state["averages"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaling.load_state_dict(state["scaling"])
        self.setup.balancing.load_state_dict(state["balancing"])
        self.load_extra_state(state["extra"])
        self.epoch, self.update, self.best, self.best_epoch = state["epoch"], state["update"], state["best"], state["best_epoch"]
        self.parts = max(self.parts, state["parts"])
        partials = state["partial"]
        self.partial = partials[processes.rank] if processes.rank < len(partials) else partials[0] and ({}, partials[0][1])
        self.folder.truncate_metrics(self.epoch)
        self.folder.update_info(epoch=self.epoch, best_epoch=self.best_epoch)
        self.folder.log(f"continued after epoch {self.epoch}" + (f" and {self.partial[1]} updates" if self.partial else ""))
