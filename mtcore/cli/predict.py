"""`mtcore predict`: the model of a run on new recordings."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..errors import ClipError, DataError, ExperimentError

__all__ = ["predict_command"]

HEADER = ("file", "task", "decision", "score", "onset", "offset")


@click.command("predict")
@click.argument("run", type=click.Path(file_okay=False, path_type=Path))
@click.argument("audio", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--checkpoint", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which weights.")
@click.option("--dataset", help="Of the run's datasets the one whose steps recordings go through, where these differ.")
@click.option("--trust", is_flag=True, help="Import code that the run's folder names, also from the working folder.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the scores of all labels.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def predict_command(run: Path, audio: tuple[Path, ...], checkpoint: str, dataset: str | None, trust: bool, as_json: bool,
                    as_csv: bool):
    """What the model of RUN, a run's folder, says of recordings, with the run's own preparation: decision and score per task; of
    events one line each, times in seconds."""
    from ..clip import File
    from ..experiment.stored import StoredRun  # torch
    from ..reporting.table import format_table

    if as_json and as_csv:
        raise ExperimentError("expected --json or --csv, found both")
    stored, found, failed = StoredRun(run, checkpoint, dataset, trust), {}, []
    for path in audio:
        try:
            found[str(path)] = stored.predict(File(path))
        except ClipError as error:
            failed.append(str(error) if str(path) in str(error) else f"{path}: {error}")
    if as_json:
        click.echo(json.dumps({path: {name: _plain(one) for name, one in tasks.items()} for path, tasks in found.items()},
                              ensure_ascii=False, indent=1))
    else:
        rows = [(path, name, *row) for path, tasks in found.items() for name, one in tasks.items() for row in _decisions(one)]
        if as_csv:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
            click.echo(text.getvalue(), nl=False)
        elif rows:
            width = len(HEADER) if any(row[-1] is not None for row in rows) else 4
            click.echo(format_table([row[:width] for row in rows], HEADER[:width]))
    if failed:
        raise DataError("\n".join([f"{len(failed)} of {len(audio)} recordings cannot be used:", *failed]))


def _decisions(one: Any) -> Iterator[tuple[Any, float | None, float | None, float | None]]:
    """Decision, score, onset and offset of one clip's task; what holds none has one line without a decision."""
    task, scores, decided = one.task, one.scores[0], one.decided[0]
    rows: list[tuple] = []
    if task.kind == "events":
        for onset, offset, label in decided:
            first, last = (round((t - one.first) / one.hop) for t in (onset, offset))
            inside = scores[label, max(first, 0):max(last, first + 1)]
            rows.append((task.labels[label], float(inside.mean()) if inside.size else None, float(onset), float(offset)))
    elif task.kind == "multilabel":
        rows = [(label, float(score), None, None) for label, score, has in zip(task.labels, scores, decided) if has]
    elif task.kind == "binary":
        rows = [(task.labels[int(decided)], float(scores if decided else 1 - scores), None, None)]
    elif task.kind == "multiclass":
        rows = [(task.labels[int(decided)], float(scores[int(decided)]), None, None)]
    elif task.kind == "regression":
        rows = [(f"{float(decided):.6g} {task.unit}".rstrip(), None, None, None)]
    yield from rows or [(None, None, None, None)]


def _plain(one: Any) -> dict[str, Any]:
    """Decision and scores as JSON takes them."""
    task, rows = one.task, list(_decisions(one))
    if task.kind == "events":
        return {"decision": [dict(zip(("label", "score", "onset", "offset"), row)) for row in rows if row[0]]}
    if task.kind == "regression":
        return {"decision": float(one.decided[0]), "unit": task.unit}
    scores = [1 - float(one.scores[0]), float(one.scores[0])] if task.kind == "binary" else one.scores[0].tolist()
    decision = [row[0] for row in rows if row[0]] if task.kind == "multilabel" else rows[0][0]
    return {"decision": decision, "scores": dict(zip(task.labels, scores)) if task.labels else scores}
