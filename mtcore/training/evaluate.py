"""Outputs of a model over a part, put together per clip: means over windows, stitched frames for events."""

from __future__ import annotations

import math
from typing import Any, Mapping, Sequence

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
    data, gathered, total = rows.data, {name: {} for name in heads}, {name: [0.0, 0] for name in heads}
    frames: dict[str, tuple[float, float]] = {}
    device = next((one.device for one in model.parameters()), "cpu")
    model.eval()
    processes = processes or Processes()
    drawn = [range(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)][processes.rank::processes.count]
    for chosen, batch in zip(drawn, rows.batches(drawn, workers)):
        batch = batch.to(device)
        output = model(batch.inputs, batch.lengths, batch.rows)
        for name, raw in outputs_of(output).items():
            values = losses[name](raw, batch.targets.get(name), batch)
            total[name][0] += (value := float(values.double().sum()))
            total[name][1] += len(values)
            if not math.isfinite(value):
                raise TrainingError(f"the loss of task {name} is not finite for {rows.part} clips {', '.join(batch.clips[:3])}, …: the network has "
                                    "diverged; lower the learning rate")
            scores = heads[name].scores(data.tasks[name], raw).cpu().double().numpy()
            if data.tasks[name].kind == "events":  # a score per frame of the input: one of the output covers `stride` of them
                scores = np.repeat(scores, -(-batch.targets[name].shape[-1] // scores.shape[-1]), axis=-1)
            for place, score in zip(np.arange(len(batch.clips))[batch.rows[name]].tolist(), scores):
                clip = batch.clips[place]
                if each_window and not data.tasks[name].framed:
                    clip += f"#{rows.index[chosen[place], 2]}"
                gathered[name].setdefault(clip, []).append((chosen[place], score))
    if processes.count > 1:
        gathered, total = _merged(processes.gathered((gathered, total)))
    predictions = {}
    counts = {name: one.counts for name, one in data.statistics().items()}
    for name, head in list(heads.items()):
        task, clips = data.tasks[name], list(gathered[name])
        trained = None if counts[name] is None else tuple(np.flatnonzero(counts[name]).tolist())
        index = rows.index[[gathered[name][clip][0][0] for clip in clips], :2].tolist()
        targets: Any = [data.encoded[data.datasets[d].name][c].get(name) for d, c in index]
        hop = first = 0.0
        if task.kind == "events":
            scores: Any = []
            for clip in clips:
                stitched, hop, first, by, speed = _stitch(rows, gathered[name][clip])
                scores.append(stitched)
                frames[clip] = (hop, first, by, speed)
        elif task.kind in ("array", "none"):
            found = [_dense(rows, task, gathered[name][clip], target) for clip, target in zip(clips, targets)]
            scores, targets = ([one[i] for one in found] for i in (0, 1))
        else:
            scores = _means([[score for _, score in gathered[name][clip]] for clip in clips])
            if task.kind == "regression":
                mean, deviation = data.scaling[name]
                scores = scores * deviation + mean
            if task.kind == "multilabel":
                targets = np.array([[label in value for label in range(len(task.labels))] for value in targets], int).reshape(-1, len(task.labels))
            else:
                targets = np.asarray(targets)
        times = [frames[clip][2:] for clip in clips] if task.kind == "events" else None
        one = Predictions(task, clips, scores, None, targets, hop, first, trained, times)
        if tune and clips:
            head = heads[name] = head.tuned(task, one)
        one.decided = head.decide(task, scores) if clips else scores
        if task.kind == "events":
            one.decided = [[_seconds(event, frames[clip]) for event in found] for clip, found in zip(clips, one.decided)]
        predictions[name] = one
    return predictions, {name: value / count for name, (value, count) in total.items() if count}


def _means(windows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Of each clip the mean over its windows."""
    if not windows:
        return np.zeros((0,))
    each = np.array([len(some) for some in windows])
    sums = np.add.reduceat(np.stack([score for some in windows for score in some]), np.cumsum(each) - each)
    return sums / each.reshape(-1, *[1] * (sums.ndim - 1))


def _merged(found: Sequence[tuple]) -> tuple[dict, dict]:
    """What several processes have gathered, clips in the order of their rows, and the sums of their losses."""
    together, total = {}, {}
    for name in found[0][0]:
        every = sorted(((row, clip, score) for gathered, _ in found for clip, some in gathered[name].items() for row, score in some),
                       key=lambda one: one[0])
        together[name] = {}
        for row, clip, score in every:
            together[name].setdefault(clip, []).append((row, score))
        total[name] = [sum(sums[name][i] for _, sums in found) for i in (0, 1)]
    return together, total


def outputs_of(output: Any) -> Mapping[str, torch.Tensor]:
    return output if isinstance(output, Mapping) else output.tasks


def _dense(rows: Rows, task: Task, parts: Sequence[tuple[int, np.ndarray]], target: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """A clip's scores, mean over its windows or stitched, and its target, both as far as there is a target."""
    if target is None:
        return np.mean([score for _, score in parts], 0), None
    target = dense(target, task)
    if task.framed:
        score, hop, _, by, speed = _stitch(rows, parts)
        target = stretch(target, Array(score, axis=Axis(hop), by=by, speed=speed), task)
        there = np.isfinite(target).reshape(-1, target.shape[-1]).all(0)
        return score[..., there], target[..., there]
    score = np.mean([score for _, score in parts], 0)
    return (score[..., :target.shape[-1]] if target.ndim else score), target


def _stitch(rows: Rows, parts: Sequence[tuple[int, np.ndarray]]) -> tuple[np.ndarray, float, float, float, float]:
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
    return total / np.maximum(count, 1), last.axis.hop, last.axis.first, last.by, last.speed


def _seconds(event: tuple[int, int, int], frames: tuple[float, float, float, float]) -> tuple[float, float, int]:
    """An event in frames as seconds of the clip: from half a hop before its first frame's centre to half a hop after its last one's."""
    hop, first, by, speed = frames
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
