"""The folder of one run: what training writes and reporting reads.

    run.json            what the run is and how far it got
    run.log             a line per action, and all that was dropped
    metrics.jsonl       a line per epoch, part, task and figure
    predictions/        <checkpoint>/<task>.parquet: a row per part and clip
    checkpoints/        <name>.pt, or what a trainer writes in its place
    pipeline/           pipeline.json and state.npz: what the steps learned from the training part

Everything but the two files that grow is written aside and renamed into place, so a reader sees the old content or the new.
Nothing in it is executable.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError, PluginError
from .task import Task

if TYPE_CHECKING:  # heavy, and listing runs needs neither
    import numpy as np

    from .plugin.interfaces import Predictions

__all__ = ["RunFolder", "atomic", "atomic_write"]

_ASIDE = ".aside"


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well, what was written there becomes `path`, else it goes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_ASIDE}")
    try:
        yield aside
        with open(aside, "rb+") as file:  # before the rename: a name must never point to content that a power cut can lose
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def atomic_write(path: Path | str, content: bytes | str) -> None:
    with atomic(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def _plain(value: Any) -> Any:
    """What JSON does not know: numpy's scalars and arrays, paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return str(value)
    raise TypeError(f"run folders hold plain values; found {value!r}")


def _line(row: Mapping[str, Any]) -> str:
    value = row.get("value")
    finite = {**row, "value": None if value is None or not math.isfinite(value) else float(value)}
    return json.dumps(finite, default=_plain, ensure_ascii=False) + "\n"


FORMAT = 1
"""of run.json and of what lies beside it"""


class RunFolder:
    """One run's folder; it is created with the first thing written. `silent`: read only, as another process writes it."""

    def __init__(self, path: Path | str, silent: bool = False):
        self.path, self.silent = Path(path), silent

    def __repr__(self):
        return f"RunFolder({str(self.path)!r})"

    def _append(self, name: str, text: str) -> None:
        if self.silent:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / name, "ab") as file:
            file.write(text.encode())

    @property
    def info(self) -> dict[str, Any]:
        """Content of run.json; {} where there is none."""
        path = self.path / "run.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise DataError(f"{path}: expected a run's JSON, found {error}; remove the folder and run again") from error
        if found.get("format") != FORMAT:
            raise DataError(f"{path}: expected a run of format {FORMAT}, found {found.get('format')!r}, which mtcore "
                            f"{found.get('versions', {}).get('mtcore', 'of another version')} wrote; open it with that one, or remove the folder")
        return found

    def write_info(self, info: Mapping[str, Any]) -> None:
        if not self.silent:
            atomic_write(self.path / "run.json", json.dumps({"format": FORMAT, **info}, default=_plain, ensure_ascii=False, indent=1) + "\n")

    def update_info(self, **changes: Any) -> None:
        self.write_info({**self.info, **changes})

    def log(self, line: str) -> None:
        """Append to run.log, with date and time; further lines of the text are indented."""
        text = line.rstrip().replace("\n", "\n    ")
        self._append("run.log", f"{datetime.now().isoformat(' ', 'seconds')} {text}\n")

    def clean(self) -> None:
        """Remove what a killed process left half-written."""
        for aside in () if self.silent else self.path.rglob(f".*{_ASIDE}"):
            aside.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For one process at a time. Raises `DataError` where another has it."""
        if self.silent:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise DataError(f"{self.path}: another process trains this run; wait for it, or end it") from None
            yield

    def checkpoint(self, name: str) -> Path:
        """Where the checkpoint of this name lies, whatever its ending, or will lie; write it within `atomic`."""
        path = self.path / "checkpoints" / f"{name}.pt"
        return path if path.exists() else next(path.parent.glob(f"{name}.*"), path)

    # Figures ----------------------------------------------------------------------------------------------------------

    def append_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append lines to metrics.jsonl in one write. Rows hold epoch, update, part, task ("" for all), metric, value and
        checkpoint ("best", "last" or None); a value that is not finite becomes null."""
        self._append("metrics.jsonl", "".join(map(_line, rows)))

    def metrics(self, part: str = "") -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl, or those of one part."""
        mark = f'"{part}"'.encode() if part else b""  # parsing all epochs' lines of a hundred runs takes a minute
        rows = [json.loads(line) for line in self._metric_lines() if mark in line]
        return [row for row in rows if not part or row["part"] == part]

    def truncate_metrics(self, epoch: int) -> None:
        """Drop lines of epochs after `epoch`, of checkpoints, and a half-written last line: whoever continues after `epoch` writes
        them anew."""
        kept = [line for line in self._metric_lines() if (row := json.loads(line))["epoch"] <= epoch and not row.get("checkpoint")]
        if (self.path / "metrics.jsonl").exists() and not self.silent:
            atomic_write(self.path / "metrics.jsonl", b"".join(kept))

    def _metric_lines(self) -> list[bytes]:
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [line for line in lines if line.endswith(b"\n")]

    # Fitted state -----------------------------------------------------------------------------------------------------

    def save_state(self, states: Mapping[tuple[str, str], Mapping[str, np.ndarray]]) -> None:
        """What fitted steps learned, by (step id, scope), where the scope is "shared" or a dataset's name."""
        import numpy as np

        if self.silent:
            return
        arrays, listed = {}, []
        for (step, scope), state in states.items():
            names = {name: f"{len(listed)}-{number}" for number, name in enumerate(state)}
            for name, key in names.items():
                arrays[key] = np.asarray(state[name])
                if arrays[key].dtype.hasobject:
                    raise PluginError(f"step {step!r}: fit gives a dict of arrays of numbers, found {state[name]!r} as {name!r}")
            listed.append({"step": step, "scope": scope, "arrays": names})
        with atomic(self.path / "pipeline" / "state.npz") as aside, open(aside, "wb") as file:
            np.savez(file, **arrays)
        atomic_write(self.path / "pipeline" / "pipeline.json", json.dumps({"format": 1, "states": listed}, indent=1) + "\n")

    def load_state(self) -> dict[tuple[str, str], dict[str, np.ndarray]]:
        """What `save_state` saved. Raises `DataError` where it is not there, or not whole."""
        import numpy as np

        folder = self.path / "pipeline"
        try:
            with np.load(folder / "state.npz", allow_pickle=False) as arrays:
                return {(entry["step"], entry["scope"]): {name: arrays[key] for name, key in entry["arrays"].items()}
                        for entry in json.loads((folder / "pipeline.json").read_text())["states"]}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{folder}: expected state.npz and pipeline.json with what the run's steps have learned, found "
                            f"{type(error).__name__}: {error}; run it again") from error

    # Predictions ------------------------------------------------------------------------------------------------------

    def save_predictions(self, checkpoint: str, predictions: Mapping[str, Mapping[str, Predictions]]) -> None:
        """Write predictions/<checkpoint>/<task>.parquet from {part: {task: Predictions}}.

        Columns: part, clip, target, decided, scores (float32, flat) and their shape. Labels are indices into the labels in
        the file's metadata, which are those of the task; events are structs of onset, offset (seconds) and label.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        for name in () if self.silent else dict.fromkeys(name for tasks in predictions.values() for name in tasks):
            parts = {part: tasks[name] for part, tasks in predictions.items() if name in tasks}
            task = next(iter(parts.values())).task
            about = {"task": asdict(task), "parts": {part: {"hop": found.hop, "first": found.first, "trained": found.trained}
                                                     for part, found in parts.items()}}
            table = pa.concat_tables([_to_table(part, found) for part, found in parts.items()])
            table = table.replace_schema_metadata({"mtcore": json.dumps(about, default=_plain, ensure_ascii=False)})
            with atomic(self.path / "predictions" / checkpoint / f"{name}.parquet") as aside:
                pq.write_table(table, aside)

    def load_predictions(self, checkpoint: str) -> dict[str, dict[str, Predictions]]:
        """What `save_predictions` saved, as {part: {task: Predictions}}; {} where nothing was."""
        import msgspec
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        loaded: dict[str, dict[str, Predictions]] = {}
        for path in sorted((self.path / "predictions" / checkpoint).glob("*.parquet")):
            table = pq.read_table(path)
            about = json.loads(table.schema.metadata[b"mtcore"])
            for part, details in about["parts"].items():
                rows = table.filter(pc.equal(table["part"], part))
                loaded.setdefault(part, {})[path.stem] = _from_table(rows, msgspec.convert(about["task"], Task), details)
        return loaded


def _truth_type(kind: str):
    import pyarrow as pa

    return {"binary": pa.int64(), "multiclass": pa.int64(), "multilabel": pa.list_(pa.uint8()), "regression": pa.float64(),
            "events": pa.list_(pa.struct({"onset": pa.float64(), "offset": pa.float64(), "label": pa.int32()})),
            "array": pa.struct({"shape": pa.list_(pa.int32()), "values": pa.list_(pa.float32())}), "none": pa.null()}[kind]


def _to_table(part: str, found: Predictions):
    import numpy as np
    import pyarrow as pa

    count, kind = len(found.clips), found.task.kind
    scores = [np.asarray(row, dtype=np.float32) for row in (() if found.scores is None else found.scores)]
    flat = pa.array(np.concatenate([row.ravel() for row in scores]) if scores else np.empty(0, np.float32))
    offsets = pa.array(np.cumsum([0, *(row.size for row in scores)]), pa.int32())

    def truths(values):
        if values is None or kind == "none":
            rows = [None] * count
        elif kind == "events":
            rows = [[tuple(event) for event in events] for events in values]
        elif kind == "array":
            rows = [{"shape": np.shape(row), "values": np.ravel(row).astype(np.float32)} for row in values]
        else:
            rows = np.asarray(values).tolist()
        return pa.array(rows, _truth_type(kind))

    return pa.table({"part": pa.array([part] * count, pa.string()), "clip": pa.array(found.clips, pa.string()),
                     "target": truths(found.targets), "decided": truths(found.decided),
                     "scores": pa.ListArray.from_arrays(offsets, flat) if scores else pa.nulls(count, pa.list_(pa.float32())),
                     "shape": pa.array([row.shape for row in scores] or [None] * count, pa.list_(pa.int32()))})


def _from_table(rows, task: Task, details: Mapping[str, Any]) -> Predictions:
    import numpy as np

    from .plugin.interfaces import Predictions

    shapes = rows["shape"].to_pylist()
    scores: Any = None
    if None not in shapes:
        scores = [row.values.to_numpy().reshape(shape) for row, shape in zip(rows["scores"], shapes)]
        if task.kind not in ("events", "array") and len(set(map(tuple, shapes))) < 2:
            scores = np.stack(scores) if scores else np.empty((0, len(task.labels))[:1 + (task.kind[:5] == "multi")], np.float32)

    def truths(name):
        values = rows[name].to_pylist()
        if values and values[0] is None:
            return None
        if task.kind == "events":
            return [[(event["onset"], event["offset"], event["label"]) for event in events] for events in values]
        if task.kind == "array":
            return [np.asarray(row["values"], np.float32).reshape(row["shape"]) for row in values]
        if task.kind == "multilabel":
            return np.array(values, dtype=np.uint8).reshape(len(values), len(task.labels))
        return np.array(values, dtype=np.float64 if task.kind == "regression" else np.int64)

    trained = details["trained"]
    return Predictions(task, rows["clip"].to_pylist(), scores, truths("decided"), truths("target"), details["hop"],
                       details["first"], None if trained is None else tuple(trained))
