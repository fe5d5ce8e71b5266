"""Outputs of a model over a part, put together per clip: means over windows, stitched frames for events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ..errors import TrainingError
from ..extracting.chain import Array
from ..plugin import Axis, Head, Named, Predictions, Task
from ..preparing.data import Rows, dense, stretch
from .processes import Processes

__all__ = ["figures", "outputs_of", "predict"]


@torch.no_grad()
def predict(model: torch.nn.Module, heads: dict[str, Head], losses: Mapping[str, Any], rows: Rows, batch_size: int, workers: int = 0,
            each_window: bool = False, processes: Processes | None = None, tune: bool = False
            ) -> tuple[dict[str, Predictions], dict[str, float]]:
    """Predictions and mean loss per task over all rows of a part, in their order: per clip or, for all but events, per window, which is
    called "dataset/clip id#number" then. Processes share the work, and all of them get everything. `tune`: `heads` learn what they decide
    by from this part."""
    found, names = _found(model, heads, losses, rows, batch_size, workers, processes or Processes())
    means = _means(rows, found)
    data, trained, predictions = rows.data, rows.data.statistics(), {}
    for name, batches in found.items():
        one, places = _joined(rows, names, data.tasks[name], batches, each_window and not data.tasks[name].framed)
        one.trained = None if trained[name].counts is None else tuple(np.flatnonzero(trained[name].counts).tolist())
        if tune and one.clips:
            heads[name] = heads[name].tuned(one.task, one)
        one.decided = heads[name].decide(one.task, one.scores) if one.clips else one.scores
        if places:
            one.decided = [[_seconds(event, place) for event in events] for place, events in zip(places, one.decided)]
        predictions[name] = one
    return predictions, means


def _found(model: torch.nn.Module, heads: Mapping[str, Head], losses: Mapping[str, Any], rows: Rows, batch_size: int, workers: int,
           processes: Processes) -> tuple[dict[str, list[tuple[np.ndarray, torch.Tensor, torch.Tensor]]], dict[int, str]]:
    """By task and batch, of all processes: the numbers of the rows that have the task, their losses, and their scores. And by row its
    clip's name."""
    model.eval()
    device = next((one.device for one in model.parameters()), "cpu")
    found, names = {name: [] for name in heads}, {}
    drawn = [range(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)][processes.rank::processes.count]
    for chosen, batch in zip(drawn, rows.batches(drawn, workers)):
        numbers = np.arange(chosen.start, chosen.stop)
        names.update(zip(chosen, batch.clips))
        batch = batch.to(device)
        for name, raw in outputs_of(model(batch.inputs, batch.lengths, batch.rows)).items():
            loss = losses[name](raw, batch.targets.get(name), batch)
            scores = heads[name].scores(task := rows.data.tasks[name], raw)
            if task.kind == "events":  # a score per frame of the input: one of the output covers `stride` of them
                scores = scores.repeat_interleave(-(-batch.targets[name].shape[-1] // scores.shape[-1]), -1)
            found[name].append((numbers[batch.rows[name]], loss.cpu(), scores.cpu()))
    every = processes.gathered((found, names))
    return ({name: sorted((batch for one, _ in every for batch in one[name]), key=lambda batch: batch[0][0]) for name in heads},
            {row: name for _, some in every for row, name in some.items()})


def _means(rows: Rows, found: Mapping[str, Sequence[tuple[np.ndarray, torch.Tensor, torch.Tensor]]]) -> dict[str, float]:
    """Each task's mean loss. Raises `TrainingError` that names task and clips of one that is not finite."""
    counts = {name: sum(len(numbers) for numbers, _, _ in batches) for name, batches in found.items() if batches}
    if not counts:
        return {}
    every = torch.cat([loss for name in counts for _, loss, _ in found[name]]).double().numpy()
    starts = np.cumsum([0, *counts.values()])
    sums = dict(zip(counts, np.add.reduceat(every, starts[:-1]).tolist()))
    for name, start in zip(counts, starts):
        if not math.isfinite(sums[name]):
            numbers = np.concatenate([some for some, _, _ in found[name]])
            clips = [rows.key(row) for row in numbers[~np.isfinite(every[start:start + counts[name]])]]
            more = ", …" if len(clips) > 3 else ""
            raise TrainingError(f"the loss of task {name} is not finite for {rows.part} clips {', '.join(clips[:3])}{more}: the network has "
                                "diverged; lower the learning rate")
    return {name: sums[name] / count for name, count in counts.items()}


def _joined(rows: Rows, names: Mapping[int, str], task: Task, batches: Sequence[tuple[np.ndarray, torch.Tensor, torch.Tensor]], each: bool
            ) -> tuple[Predictions, list[tuple[float, float, float, float]]]:
    """Predictions per clip, or of each row, that nothing is decided of yet; of events also each clip's hop, first frame's time, shift and
    speed."""
    numbers = np.concatenate([np.zeros(0, int), *(some for some, _, _ in batches)])
    windows = rows.index[numbers, 2]
    starts = np.arange(len(numbers)) if each else np.flatnonzero(windows == 0)
    first = numbers[starts].tolist()
    clips = [f"{names[row]}#{window}" for row, window in zip(first, windows)] if each else [names[row] for row in first]
    targets: Any = [rows.targets[row].get(task.name) for row in first]
    if task.kind in ("events", "array", "none"):
        parts = list(zip(numbers.tolist(), (score for _, _, some in batches for score in some.double().numpy())))
        parts = [parts[start:end] for start, end in zip(starts, [*starts[1:], len(parts)])]
        if task.kind == "events":
            scores, places = map(list, zip(*(_stitch(rows, some) for some in parts))) if parts else ([], [])
            hop, first = places[-1][:2] if places else (0.0, 0.0)
            return Predictions(task, clips, scores, None, targets, hop, first, moved=[place[2:] for place in places]), places
        scores, targets = map(list, zip(*map(partial(_dense, rows, task), parts, targets))) if parts else ([], [])
        return Predictions(task, clips, scores, None, targets), []
    scores = torch.cat([some for _, _, some in batches]).double().numpy() if batches else np.zeros(0)
    if len(starts) < len(numbers):  # mean over a clip's windows
        scores = np.add.reduceat(scores, starts) / np.diff(starts, append=len(numbers)).reshape(-1, *[1] * (scores.ndim - 1))
    if task.kind == "regression":
        mean, deviation = rows.data.scaling[task.name]
        scores = scores * deviation + mean
    if task.kind == "multilabel":
        targets = [[label in value for label in range(len(task.labels))] for value in targets]
        targets = np.array(targets, int).reshape(-1, len(task.labels))
    return Predictions(task, clips, scores, None, np.asarray(targets)), []


def outputs_of(output: Any) -> Mapping[str, torch.Tensor]:
    return output if isinstance(output, Mapping) else output.tasks


def _dense(rows: Rows, task: Task, parts: Sequence[tuple[int, np.ndarray]], target: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """A clip's scores, mean over its windows or stitched, and its target, both as far as there is a target."""
    if target is None:
        return np.mean([score for _, score in parts], 0), None
    target = dense(target, task)
    if task.framed:
        score, (hop, _, by, speed) = _stitch(rows, parts)
        target = stretch(target, Array(score, axis=Axis(hop), by=by, speed=speed), task)
        there = np.isfinite(target).reshape(-1, target.shape[-1]).all(0)
        return score[..., there], target[..., there]
    score = np.mean([score for _, score in parts], 0)
    return (score[..., :target.shape[-1]] if target.ndim else score), target


def _stitch(rows: Rows, parts: Sequence[tuple[int, np.ndarray]]) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Mean of overlapping windows' scores at the input's frames, with hop, first frame's time, and the clip's shift and speed."""
    arrays = []
    for row, score in parts:
        array = next(a for a in (rows._array(row, name) for name in rows.data.names) if a.axis is not None)
        arrays.append((array.frames[0] if array.frames else 0, score[..., :array.data.shape[-1]], array))
    length = max(start + score.shape[-1] for start, score, _ in arrays)
    total, count = np.zeros((*arrays[0][1].shape[:-1], length)), np.zeros(length)
    for start, score, _ in arrays:
        total[..., start:start + score.shape[-1]] += score
        count[start:start + score.shape[-1]] += 1
    last = arrays[0][2]
    return total / np.maximum(count, 1), (last.axis.hop, last.axis.first, last.by, last.speed)


def _seconds(event: tuple[int, int, int], place: tuple[float, float, float, float]) -> tuple[float, float, int]:
    """An event in frames as seconds of the clip: from half a hop before its first frame's centre to half a hop after its last one's."""
    hop, first, by, speed = place
    onset, offset = (max(0.0, first + (frame - 0.5) * hop) / speed + by for frame in event[:2])
    return onset, offset, event[2]


def figures(predictions: Mapping[str, Predictions], losses: Mapping[str, float], metrics: Mapping[str, Sequence[Named]]
            ) -> dict[str, dict[str, float]]:
    """{task: {figure: value}}: the mean loss and what the task's metrics give."""
    found: dict[str, dict[str, float]] = {}
    for name, one in predictions.items():
        found[name] = {"loss": losses[name]} if name in losses else {}
        for metric in metrics[name]:
            measure = metric.component.build(one.task)
            measure.update(one)
            found[name] |= {key: float(value) for key, value in measure.compute().items()}
    return found
