"""Gradient descent: the built-in training paradigm.

    for each epoch:  for each update:  micro-batches ─► model ─► loss per task ─► balancer ─► optimizer step
                     validation ─► reporters ─► checkpoint ─► stop?
    then the best and the last checkpoint on the test part
"""

from __future__ import annotations

import math
import pickle
import time
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from ..errors import DataError, ExperimentError, TrainingError
from ..plugin import Batch, Named, Prepared, Step, Trainer
from ..plugin.loader import near
from ..preparing.data import RunData
from ..progress import Progress
from ..runfolder import RunFolder, atomic
from ..streams import derive, stream
from .evaluate import _outputs, figures, predict
from .optimizers import build_optimizer, build_schedule

__all__ = ["Gradient", "GradientRun", "Setup", "check_watched"]


@dataclass
class Setup:
    """What a trainer works with. `stop` is (task or "", figure, patience or None, higher is better)."""

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
    watched: str = ""
    patience: int | None = None
    save_updates: int | None = None
    save_minutes: float | None = None
    workers: int = 0
    each_window: bool = False
    batch_steps: Sequence[tuple[Step, Prepared]] = ()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `GradientRun` saved; runs no code."""
    try:
        return torch.load(path, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: expected a checkpoint, found {type(error).__name__}: {error}; remove the run's folder and run again") from error


def check_watched(watched: str, figures_: Mapping[str, Mapping[str, float]]) -> str:
    """What is to be said where the task in "TASK.FIGURE" has figures, but not this one: it may be undefined here, or be written otherwise.
    `ExperimentError` where one is written almost like it."""
    task, _, name = watched.partition(".")
    known = {key.partition("/")[0] for key in figures_.get(task, ())}
    if not known or name.partition("/")[0] in known:
        return ""
    text = f"train.stop.on: task {task} has the figures {', '.join(sorted(known))}; found {name!r}"
    if close := near(name.partition("/")[0], known):
        raise ExperimentError(text + close)
    return text


class Gradient(Trainer):
    """Gradient descent with checkpoints after every epoch, early stopping and exact continuation."""

    def build(self) -> GradientRun:
        return GradientRun()


class GradientRun:
    """One run; `stop_now` and `epoch_done` are there to be overridden."""

    def run(self, model: torch.nn.Module, data: RunData, folder: RunFolder, setup: Setup) -> None:
        self.model, self.data, self.folder, self.setup = model, data, folder, setup
        self.rows = {part: data.rows(part) for part in ("train", "validation", "test")}
        self.micro_batches = setup.accumulate * setup.balancing.batches_per_update
        self.per_epoch = max(1, -(-sum(1 for _ in setup.batches(1, stream(setup.seed, "sampler", 1))) // self.micro_batches))
        self.epochs = -(-setup.updates // self.per_epoch) if setup.updates else setup.epochs
        self.limit = setup.updates or self.epochs * self.per_epoch
        self.optimizer = build_optimizer(setup.optimizer, [*model.parameters(), *setup.balancing.parameters()])
        self.schedule = build_schedule(setup.scheduler, self.optimizer, self.limit)
        self.epoch = self.update = self.best_epoch = 0
        self.best: float | None = None
        self.partial: tuple[dict[str, list], int] | None = None
        self.saved = time.monotonic()
        self.resume()
        setup.reporters.run_started(folder.info)
        with torch.random.fork_rng(devices=[]):
            while self.partial or self.epoch < self.epochs and not self.stop_now():
                self.epoch += 1
                self.train_epoch()
                self.epoch_done()
            self.finish()

    # One epoch --------------------------------------------------------------------------------------------------------

    def train_epoch(self) -> None:
        setup, self.rows["train"].epoch = self.setup, self.epoch
        total, done = self.partial or ({name: [0.0, 0] for name in setup.heads}, 0)
        self.partial = None
        drawn = self._counted(setup.batches(self.epoch, stream(setup.seed, "sampler", self.epoch)))
        skipped = sum(1 for _ in islice(drawn, done * self.micro_batches))
        batches = map(self._stepped, self.rows["train"].batches(drawn, setup.workers), count(1 + skipped))
        label = f"{self.folder.path.name} epoch {self.epoch}/{self.epochs}"
        self.model.train()
        updates = min(self.per_epoch - done, self.limit - self.update)
        for micro in setup.progress.track((list(islice(batches, self.micro_batches)) for _ in range(updates)), updates, label):
            if micro:
                self.one_update(micro, total)
                done += 1
                if self._save_due():
                    self._save("last", (total, done))
        self.train_losses = {name: value / count for name, (value, count) in total.items() if count}
        setup.balancing.epoch_ended(self.train_losses)

    def _counted(self, drawn: Iterator[list[int]]) -> Iterator[list[int]]:
        """The same lists of rows; `self.passes` says how often each dataset's rows are gone through in this epoch."""
        dataset = self.rows["train"].index[:, 0]
        every = np.bincount(dataset, minlength=len(self.data.datasets))
        self.passes, seen = {}, np.zeros(len(every))
        for rows in drawn:
            seen += np.bincount(dataset[rows], minlength=len(every))
            self.passes = {self.data.datasets[d].name: seen[d] / every[d] for d in np.flatnonzero(every)}
            yield rows

    def _stepped(self, batch: Batch, number: int) -> Batch:
        """A batch, the number-th of its epoch, after the steps on whole batches."""
        for step, prepared in self.setup.batch_steps:
            rng = stream(self.setup.seed, "batch step", step.id, self.epoch, number)
            if step.p >= 1 or rng.random() < step.p:
                batch = prepared.apply(batch, {}, rng)
        return batch

    def one_update(self, micro: Sequence[Batch], total: dict[str, list]) -> None:
        """One change of the parameters. A task's mean is over its rows in all micro-batches, so they are drawn first."""
        setup, model = self.setup, self.model
        self.update += 1
        counts: dict[str, int] = {}
        for batch in micro:
            for name, rows in batch.rows.items():
                counts[name] = counts.get(name, 0) + len(rows)
        self.optimizer.zero_grad(set_to_none=True)
        shared = model.shared_parameters() if hasattr(model, "shared_parameters") else list(model.parameters())
        for batch, output, values in self._forward(micro):
            losses = {name: rows.sum() / counts[name] for name, rows in values.items()}
            for name, rows in values.items():
                total[name][0] += float(rows.detach().double().sum())
                total[name][1] += len(rows)
            self.backward(losses, shared, output, batch, batch is micro[-1])
        if setup.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), setup.clip)
        self.optimizer.step()
        self.schedule.step()
        setup.balancing.after_update(lambda: self._losses_anew(micro, counts))

    def backward(self, losses: Mapping[str, torch.Tensor], shared: Sequence[torch.Tensor], output: Any, batch: Batch, last: bool) -> None:
        """Add one micro-batch's gradients."""
        self.setup.balancing.backward(losses, shared, getattr(output, "representation", None), batch.rows, last)

    def _forward(self, micro: Sequence[Batch]) -> Iterator[tuple[Batch, Any, dict[str, torch.Tensor]]]:
        """Each micro-batch with the model's output and the losses per row, with this update's random choices."""
        torch.manual_seed(derive(self.setup.seed, "forward", self.update) % 2**63)
        for batch in micro:
            output, values = self.model(batch.inputs, batch.lengths, batch.rows), {}
            for name, raw in _outputs(output).items():
                values[name] = self.setup.losses[name](raw, batch.targets.get(name), batch)
                self._check_finite(name, values[name], batch)
            yield batch, output, values

    @torch.no_grad()
    def _losses_anew(self, micro: Sequence[Batch], counts: Mapping[str, int]) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = {}
        for _, _, values in self._forward(micro):
            for name, rows in values.items():
                losses[name] = losses.get(name, 0) + rows.sum() / counts[name]
        return losses

    def _check_finite(self, name: str, values: torch.Tensor, batch: Batch) -> None:
        if not torch.isfinite(values).all():
            rows = batch.rows[name].tolist()
            clips = [batch.clips[rows[i]] for i in torch.nonzero(~torch.isfinite(values)).flatten().tolist()]
            raise TrainingError(f"{self.folder.path.name}: the loss of task {name} is not finite at update {self.update} (epoch {self.epoch}), "
                                f"clips {', '.join(clips[:5])}{f' and {len(clips) - 5} more' if len(clips) > 5 else ''}; lower the learning rate, "
                                f"or look at these clips' features. The last good checkpoint is {self.folder.checkpoint('last')}")

    # After an epoch ---------------------------------------------------------------------------------------------------

    def epoch_done(self) -> None:
        setup = self.setup
        found = {"train": {name: {"loss": value} for name, value in self.train_losses.items()}}
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
                          for key in (setup.primary[name][0], "loss") if key in values)
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
        """What best checkpoint and early stopping look at, larger is better: `stop.on`, else minus the mean validation loss."""
        figures_ = found.get("validation")
        if not figures_:
            return None
        if self.epoch == 1 and (text := check_watched(self.setup.watched, figures_)):
            self.folder.log(f"warning: {text}, which counts as worse than any other value where it is undefined")
        task, _, name = self.setup.watched.partition(".")
        if task in figures_ and name in figures_[task]:
            lower = {"loss"}.union(*(metric.component.lower for metric in self.setup.metrics[task]))
            return -figures_[task][name] if name.split("/")[0] in lower else figures_[task][name]
        if task:  # undefined in this epoch: no better than any other
            return -math.inf
        values = [v["loss"] for v in figures_.values() if "loss" in v]
        return -sum(values) / len(values) if values else None

    def stop_now(self) -> bool:
        """Whether validation has not improved for `patience` epochs, or all updates are made."""
        patience = self.setup.patience
        return self.update >= self.limit or (patience is not None and self.epoch - self.best_epoch >= patience)

    def finish(self) -> None:
        for name in ("last", "best"):
            state = load_checkpoint(self.folder.checkpoint(name))
            self.model.load_state_dict(state["model"])
            predictions, found = {}, {}
            for part in ("validation", "test"):
                if len(self.rows[part]):
                    predictions[part], found[part] = self._evaluate(part)
            self._write({part: values for part, values in found.items() if part == "test"}, name, state["epoch"])
            self.folder.save_predictions(name, predictions)
        if "test" in found:
            self.setup.reporters.epoch_ended(state["epoch"], {"test": found["test"]}, {"test": predictions["test"]})

    def _evaluate(self, part: str) -> tuple[dict, dict]:
        setup = self.setup
        predictions, losses = predict(self.model, setup.heads, setup.losses, self.rows[part], setup.batch_size, setup.workers,
                                      setup.each_window)
        return predictions, figures(predictions, losses, setup.metrics)

    def _write(self, found: Mapping[str, Any], checkpoint: str | None, epoch: int | None = None) -> None:
        self.folder.append_metrics([
            {"epoch": epoch or self.epoch, "update": self.update, "part": part, "task": task, "metric": metric, "value": value,
             "checkpoint": checkpoint} for part, tasks in found.items() for task, values in tasks.items() for metric, value in values.items()])

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def _save_due(self) -> bool:
        setup, seconds = self.setup, time.monotonic() - self.saved
        return bool(setup.save_updates and self.update % setup.save_updates == 0 or setup.save_minutes and seconds > 60 * setup.save_minutes)

    def extra_state(self) -> dict[str, Any]:
        """What a subclass adds to checkpoints: tensors and plain values."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """What `extra_state` gave when the run was cut off."""

    def _save(self, name: str, partial: tuple[dict[str, list], int] | None = None) -> None:
        """`partial`: sums of losses and number of updates of an epoch that has not ended."""
        self.saved = time.monotonic()
        state = {"epoch": self.epoch - (partial is not None), "update": self.update, "best": self.best, "best_epoch": self.best_epoch,
                 "partial": partial,
                 "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                 "balancing": dict(self.setup.balancing.state_dict()), "extra": self.extra_state()}
        path = Path(self.folder.checkpoint(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary:
            torch.save(state, temporary)

    def resume(self) -> None:
        """Continue behind the last update that was saved: everything random is keyed by epoch and update, so no stream needs storing."""
        path = Path(self.folder.checkpoint("last"))
        self.folder.clean()
        if not path.exists():
            self.folder.truncate_metrics(0)
            return
        state = load_checkpoint(path)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.setup.balancing.load_state_dict(state["balancing"])
        self.epoch, self.update, self.best, self.best_epoch = state["epoch"], state["update"], state["best"], state["best_epoch"]
        self.partial = state["partial"]
        self.load_extra_state(state["extra"])
        self.folder.truncate_metrics(self.epoch)
        self.folder.update_info(epoch=self.epoch, best_epoch=self.best_epoch)
        self.folder.log(f"continued after epoch {self.epoch}" + (f" and {self.partial[1]} updates" if self.partial else ""))
