"""The experiment file: its keys, their types, and errors that name a key's path and the nearest valid spelling."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import os
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping

import msgspec

from ..errors import ExperimentError

__all__ = ["Config", "load", "override", "parse"]

Use = str | dict[str, Any] | Any
NOT_YET = {"teachers": "teachers"}
"""Keys of the design that are not built."""


@dataclass(kw_only=True)
class DatasetInputConfig:
    """Of one dataset's input: what differs from the input's own."""

    extractor: Use | None = None
    signal: list[Any] | None = None
    steps: list[Any] | None = None


@dataclass(kw_only=True)
class DatasetConfig:
    reader: Use
    root: str = "."
    tasks: list[str] | dict[str, Any] | None = None
    group: str | None = None
    signal: list[Any] = field(default_factory=list)
    inputs: dict[str, DatasetInputConfig] = field(default_factory=dict)
    parts: list[typing.Literal["train", "validation", "test"]] | None = None
    max_per_label: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class MaterialConfig:
    reader: Use
    root: str = "."
    group: str | None = None
    signal: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class TaskUseConfig:
    as_: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class SignalConfig:
    steps: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class InputConfig:
    extractor: Use
    signal: list[Any] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class ExtractConfig:
    on_error: typing.Literal["stop", "skip"] = "stop"
    dtype: typing.Literal["float32", "float16"] = "float32"


@dataclass(kw_only=True)
class SplitConfig:
    folds: int | typing.Literal["official", "groups"] = 5
    repeats: int = 1
    test: float = 0.2
    validation: float = 0.1
    seed: int | None = None
    stratify: str | None = None


@dataclass(kw_only=True)
class TaskConfig:
    loss: Use | None = None
    head: Use | None = None
    weight: float = 1.0
    metrics: list[Any] | None = None
    labels: list[str] | None = None
    trunks: list[str] | None = None
    report: bool = True


@dataclass(kw_only=True)
class ModelConfig:
    trunk: Use | None = None
    trunks: dict[str, Any] = field(default_factory=dict)
    module: str | None = None


@dataclass(kw_only=True)
class StopConfig:
    on: str = "loss"
    patience: int | None = None


@dataclass(kw_only=True)
class TrainConfig:
    epochs: int | None = None
    updates: int | None = None
    batch_size: int = 32
    accumulate: int = 1
    optimizer: Use = field(default_factory=lambda: {"use": "adam", "lr": 1e-3})
    scheduler: Use = "constant"
    sampler: Use = "mixed"
    balancer: Use = "sum"
    trainer: Use = "gradient"
    stop: StopConfig = field(default_factory=StopConfig)
    clip: float | None = None
    threads: int = 1
    workers: int = 0


@dataclass(kw_only=True)
class BatchConfig:
    steps: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class EvaluationConfig:
    windows: typing.Literal["clip", "each"] = "clip"


@dataclass(kw_only=True)
class ReportConfig:
    reporters: list[Any] = field(default_factory=lambda: ["tensorboard"])


@dataclass(kw_only=True)
class Config:
    """The whole file, checked."""

    name: str
    datasets: dict[str, DatasetConfig]
    inputs: dict[str, InputConfig]
    model: ModelConfig
    seed: int = 0
    materials: dict[str, MaterialConfig] = field(default_factory=dict)
    signal: SignalConfig = field(default_factory=SignalConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    train: TrainConfig = field(default_factory=TrainConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    vary: dict[str, Any] = field(default_factory=dict)


def load(path: Path | str, overrides: Mapping[str, str] | None = None) -> tuple[dict[str, Any], Path]:
    """The file's content as a dict, with `--set` overrides, and the folder that relative paths are relative to."""
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExperimentError(f"{path}: expected an experiment file, found nothing there") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ExperimentError(f"{path}: expected a TOML file: {error}") from None
    for key, text in (overrides or {}).items():
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        data = override(data, key, value)
    return data, path.resolve().parent


def parse(data: Mapping[str, Any]) -> Config:
    """Check every key. Raises `ExperimentError` with the key's path."""
    data = copy.deepcopy(dict(data))
    for key, what in NOT_YET.items():
        place, _, last = key.rpartition(".*.")
        tables = (data[place].items() if isinstance(data.get(place), dict) else ()) if place else [("", data)]
        for name, table in tables:
            if isinstance(table, dict) and last in table:
                raise ExperimentError(f"{f'{place}.{name}.' if place else ''}{last}: {what}: not built yet")
    for name, dataset in data.get("datasets", {}).items() if isinstance(data.get("datasets"), dict) else ():
        if isinstance(dataset, dict) and isinstance(dataset.get("tasks"), dict):
            for task, use in dataset["tasks"].items():
                path = f"datasets.{name}.tasks.{task}"
                _table(use, path)
                use = {"as_" if key == "as" else key: value for key, value in use.items()}
                _check_keys(use, TaskUseConfig, path)
                dataset["tasks"][task] = use
    _check_keys(data, Config, "")
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        path = where.rstrip("`").lstrip(".")
        raise ExperimentError(f"{path or 'the experiment'}: {message[0].lower() + message[1:]}") from None
    train = config.train
    problems = [(not config.datasets, "datasets: expected at least one"), (not config.inputs, "inputs: expected at least one"),
                (not (config.model.trunk or config.model.trunks or config.model.module), "model: expected a trunk"),
                (bool(config.model.trunk) and bool(config.model.trunks), "model: expected trunk or trunks, found both"),
                (train.epochs is not None and train.updates is not None, "train: expected epochs or updates, found both"),
                (train.batch_size < 1, f"train.batch_size: expected at least 1, found {train.batch_size}"),
                (train.accumulate < 1, f"train.accumulate: expected at least 1, found {train.accumulate}"),
                (any(n is not None and n < 1 for n in (train.epochs, train.updates)), "train: expected at least one epoch or update"),
                *((not isinstance(value, (str, dict)), f"train.{key}: expected a name or a table with `use`, found {value!r}")
                  for key, value in (("optimizer", train.optimizer), ("scheduler", train.scheduler))),
                *((one not in config.inputs, f"datasets.{name}.inputs.{one}: expected one of the inputs {', '.join(config.inputs)}")
                  for name, dataset in config.datasets.items() for one in dataset.inputs),
                *((name in config.datasets, f"materials.{name}: a dataset has this name too; give the material another")
                  for name in config.materials),
                *((dataset.parts == [], f"datasets.{name}.parts: expected at least one part") for name, dataset in config.datasets.items()),
                (config.split.repeats < 1, f"split.repeats: expected at least 1, found {config.split.repeats}"),
                (train.workers < 0, f"train.workers: expected 0 or more, found {train.workers}"),
                (train.threads < 1, f"train.threads: expected at least 1, found {train.threads}"),
                (train.clip is not None and not train.clip > 0, f"train.clip: expected a norm above 0, found {train.clip}"),
                (any(mark in config.name for mark in "/\\\0") or config.name in ("", ".", ".."), f"name: expected a folder's name, found {config.name!r}")]
    for wrong, message in problems:
        if wrong:
            raise ExperimentError(message)
    for key in config.vary:
        first, last = key.split(".")[0], key.split(".")[-1]
        if first in ("split", "materials") or (first == "datasets" and last in ("group", "root", "reader", "parts")) or (first, last) == ("tasks", "labels") or (
                first == "datasets" and ".tasks" in key):
            raise ExperimentError(f"vary.{key}: data is read and parts are drawn once per experiment, so that what bears on them (split, "
                                  "materials, group, root, reader, parts, a dataset's tasks, labels) does not vary; write another experiment")
    return config


def _table(value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise ExperimentError(f"{path}: expected a table, found {type(value).__name__}")


def _check_keys(value: Any, kind: Any, path: str) -> None:
    """Unknown keys, at every depth, with the nearest valid spelling."""
    if dataclasses.is_dataclass(kind):
        _table(value, path or "the experiment")
        hints = typing.get_type_hints(kind)
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            if key not in hints:
                near = difflib.get_close_matches(str(key), hints, 1)
                raise ExperimentError(f"{here}: unknown key; " + (f"did you mean {near[0].rstrip('_')!r}?" if near
                                      else f"known: {', '.join(name.rstrip('_') for name in hints)}"))
            _check_keys(inner, hints[key], here)
        missing = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING
                   and f.default_factory is dataclasses.MISSING and f.name not in value]
        if missing:
            raise ExperimentError(f"{path + '.' if path else ''}{missing[0]}: expected, but it is missing")
    elif typing.get_origin(kind) is dict and dataclasses.is_dataclass(typing.get_args(kind)[1]):
        _table(value, path)
        for key, inner in value.items():
            _check_keys(inner, typing.get_args(kind)[1], f"{path}.{key}")


def override(data: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted key replaced; a step in a list is addressed by its `id`, by default its short name."""
    data = copy.deepcopy(dict(data))
    place, done = data, []
    *path, last = key.split(".")
    if key == "model.trunks.main" and "trunk" in data.get("model", {}):
        path, last = ["model"], "trunk"
    for name in path:
        place = _inner(place, name, done)
        done.append(name)
    if isinstance(place, list):
        place[_position(place, last, done)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ExperimentError(f"{key}: {'.'.join(done)} is no table")
    return data


def _inner(place: Any, name: str, done: list[str]) -> Any:
    if isinstance(place, list):
        position = _position(place, name, done)
        if isinstance(place[position], str):
            place[position] = {"use": place[position]}
        return place[position]
    if not isinstance(place, dict):
        raise ExperimentError(f"{'.'.join(done)}.{name}: {'.'.join(done)} is no table")
    inner = place.setdefault(name, {})
    if isinstance(inner, str) and done != []:
        inner = place[name] = {"use": inner}
    return inner


def _position(steps: list, name: str, done: list[str]) -> int:
    ids = [step if isinstance(step, str) else step.get("id", step.get("use", "")) for step in steps]
    short = [ident.rsplit(".", 1)[-1] for ident in ids]
    if name not in short:
        raise ExperimentError(f"{'.'.join(done)}: no step with the id {name!r}; found {', '.join(short) or 'none'}")
    return short.index(name)


def resolve_path(text: str, folder: Path) -> Path:
    """~ and $VARIABLES expanded, relative to the experiment file."""
    return Path(os.path.normpath(folder / Path(os.path.expandvars(text)).expanduser()))


