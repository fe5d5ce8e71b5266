"""The experiment file: its keys, their types, and errors that name a key's path and the nearest valid spelling."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from ..errors import ExperimentError
from ..plugin.building import converted
from ..plugin.loader import near
from ..reading.dataset import TaskUse

__all__ = ["Config", "load", "override", "parse"]

Use = str | dict[str, Any] | Any
Positive = Annotated[int, Meta(ge=1)]
_FIXED = re.compile(r"(split|materials|datasets\.[^.]+\.(group|root|reader|parts|tasks)|tasks\.[^.]+\.labels)(\.|$)")
"""What does not vary, as data is read and split once."""


@dataclass(kw_only=True)
class DatasetInputConfig:
    """Of one dataset's input: what differs from the input's own."""

    extractor: Use | None = None
    signal: list[Any] | None = None
    steps: list[Any] | None = None


@dataclass(kw_only=True)
class MaterialConfig:
    reader: Use
    root: str = "."
    group: str | None = None
    signal: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class DatasetConfig(MaterialConfig):
    tasks: list[str] | dict[str, TaskUse] | None = None
    inputs: dict[str, DatasetInputConfig] = field(default_factory=dict)
    parts: list[Literal["train", "validation", "test"]] | None = None
    max_per_label: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class StepsConfig:
    steps: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class InputConfig:
    extractor: Use | None = None
    task: str | None = None
    signal: list[Any] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)


@dataclass(kw_only=True)
class TeacherConfig:
    run: str
    checkpoint: Literal["best", "last"] = "best"
    dataset: str | None = None
    live: bool = False


@dataclass(kw_only=True)
class ExtractConfig:
    on_error: Literal["stop", "skip"] = "stop"
    dtype: Literal["float32", "float16"] = "float32"


@dataclass(kw_only=True)
class SplitConfig:
    folds: int | Literal["official", "groups"] = 5
    repeats: Positive = 1
    test: float = 0.2
    validation: float = 0.1
    seed: int | None = None
    stratify: str | None = None
    identical: Literal["bytes", "samples"] = "bytes"
    similar: str | dict[str, Any] | None = None
    accept_leaks: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class TaskConfig:
    loss: Use | None = None
    head: Use | None = None
    weight: Annotated[float, Meta(ge=0)] = 1.0
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
    on: str | list[str] = "loss"
    patience: int | None = None


@dataclass(kw_only=True)
class SaveConfig:
    updates: Positive | None = None
    minutes: Annotated[float, Meta(gt=0)] = 10.0


@dataclass(kw_only=True)
class ParametersConfig:
    lr: Annotated[float, Meta(ge=0)] | None = None
    frozen: bool | Positive = False


@dataclass(kw_only=True)
class TrainConfig:
    epochs: int | None = None
    updates: int | None = None
    batch_size: Positive = 32
    accumulate: Positive = 1
    optimizer: Use = field(default_factory=lambda: {"use": "adam", "lr": 1e-3})
    scheduler: Use = "constant"
    sampler: Use = "mixed"
    balancer: Use = "sum"
    trainer: Use = "gradient"
    stop: StopConfig = field(default_factory=StopConfig)
    save: SaveConfig = field(default_factory=SaveConfig)
    clip: Annotated[float, Meta(gt=0)] | None = None
    parameters: dict[str, ParametersConfig] = field(default_factory=dict)
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    compile: bool = False
    average: Annotated[float, Meta(gt=0, lt=1)] | None = None
    inspect: Positive | None = None
    on_memory: Literal["stop", "halve"] = "stop"
    threads: Positive = 1
    workers: Annotated[int, Meta(ge=0)] = 0


@dataclass(kw_only=True)
class EvaluationConfig:
    windows: Literal["clip", "each"] = "clip"


@dataclass(kw_only=True)
class ReportConfig:
    reporters: list[Any] = field(default_factory=lambda: ["tensorboard"])


@dataclass(kw_only=True)
class Config:
    """The whole file, checked."""

    name: str
    datasets: dict[str, DatasetConfig]
    inputs: dict[str, InputConfig] = field(default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    seed: int = 0
    materials: dict[str, MaterialConfig] = field(default_factory=dict)
    teachers: dict[str, TeacherConfig] = field(default_factory=dict)
    signal: StepsConfig = field(default_factory=StepsConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    train: TrainConfig = field(default_factory=TrainConfig)
    batch: StepsConfig = field(default_factory=StepsConfig)
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
        if isinstance(varied := data.get("vary"), dict) and _names(key) in map(_names, varied):
            raise ExperimentError(f"--set {key}: the file varies it, so that this value would be used in no run; set vary instead: --set 'vary={{}}'")
        data = override(data, key, value)
    return data, path.resolve().parent


def parse(data: Mapping[str, Any]) -> Config:
    """Check every key. Raises `ExperimentError` with the key's path."""
    data = copy.deepcopy(dict(data))
    config = _filled(Config, data, "")
    config.split.seed = config.seed if config.split.seed is None else config.split.seed
    train, model, varied = config.train, config.model, {key.partition(".")[0] for key in config.vary}
    problems = [(not config.datasets, "datasets: expected at least one"),
                (not config.inputs and "inputs" not in varied, "inputs: expected at least one"),
                (not (model.trunk or model.trunks or model.module or "model" in varied), "model: expected a trunk"),
                (model.trunk and model.trunks, "model: expected trunk or trunks, found both"),
                *((not name or "." in name, f"model.trunks: expected names without dots, found {name!r}")
                  for name in model.trunks),
                (train.epochs is not None and train.updates is not None, "train: expected epochs or updates, found both"),
                (any(n is not None and n < 1 for n in (train.epochs, train.updates)), "train: expected at least one epoch or update"),
                *((not isinstance(value, (str, dict)), f"train.{key}: expected a name or a table with `use`, found {value!r}")
                  for key, value in (("optimizer", train.optimizer), ("scheduler", train.scheduler))),
                *((one not in config.inputs, f"datasets.{name}.inputs.{one}: expected one of the inputs {', '.join(config.inputs)}")
                  for name, dataset in config.datasets.items() for one in dataset.inputs),
                *((bool(one.extractor) == bool(one.task) and "inputs" not in varied,
                   f"inputs.{name}: expected an extractor or a task whose targets are the input") for name, one in config.inputs.items()),
                *((one.task and one.signal, f"inputs.{name}.signal: targets of a task are no signal; expected steps only")
                  for name, one in config.inputs.items()),
                *((name in config.datasets, f"materials.{name}: a dataset has this name too; give the material another")
                  for name in config.materials),
                *((dataset.parts == [], f"datasets.{name}.parts: expected at least one part")
                  for name, dataset in config.datasets.items()),
                (re.search(r"[/\\\0]", config.name) or config.name in ("", ".", ".."),
                 f"name: expected a folder's name, found {config.name!r}")]
    for wrong, message in problems:
        if wrong:
            raise ExperimentError(message)
    for key in config.vary:
        if _FIXED.match(".".join(_names(key))):
            raise ExperimentError(f"vary.{key}: data is read and parts are drawn once per experiment, so that what bears on them (split, "
                                  "materials, group, root, reader, parts, a dataset's tasks, labels) does not vary; write another experiment")
    return config


def _filled(kind: Any, value: Any, path: str) -> Any:
    """A value of the file as the type that its key has, tables with all their keys checked."""
    if isinstance(value, dict):  # of "a list or a table" the table
        kind = next((one for one in typing.get_args(kind) if typing.get_origin(one) is dict), kind)
    inner = (typing.get_args(kind) or (None,))[-1]
    table = dataclasses.is_dataclass(kind)
    if not table and not (typing.get_origin(kind) is dict and dataclasses.is_dataclass(inner)):
        return converted(value, kind, path)
    if not isinstance(value, dict):
        raise ExperimentError(f"{path}: expected a table, found {type(value).__name__}")
    below = {key: f"{path}.{key}" if path else key for key in value}
    if not table:
        return {key: _filled(inner, item, below[key]) for key, item in value.items()}
    known = {field.name.rstrip("_"): field for field in dataclasses.fields(kind)}  # as_, since Python has taken `as`
    for key in value:
        if key not in known:
            spelling = near(key, known) or f"; known: {', '.join(known)}"
            raise ExperimentError(f"{below[key]}: unknown key{spelling}")
    for key, one in known.items():
        if key not in value and one.default is one.default_factory is dataclasses.MISSING:
            raise ExperimentError(f"{path + '.' if path else ''}{key}: expected, but it is missing")
    types = typing.get_type_hints(kind, include_extras=True)
    return kind(**{known[key].name: _filled(types[known[key].name], item, below[key]) for key, item in value.items()})


def override(data: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy with the value at a dotted key replaced; a step in a list is addressed by its `id`, by default its short name."""
    data = copy.deepcopy(dict(data))
    place, done = data, []
    *path, last = _names(key)
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


def _names(key: str) -> list[str]:
    """Of a dotted key; names that have dots themselves are quoted, as in TOML."""
    return ["".join(found) for found in re.findall(r"""(?:^|\.)(?:'([^']*)'|"([^"]*)"|([^.]*))""", key)]


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


def check_among(names: Iterable[str], known: Iterable[str], path: str) -> None:
    """`ExperimentError` unless every name is a known one."""
    for name in names:
        if name not in known:
            raise ExperimentError(f"{path}: {name!r} is not among {', '.join(known)}")


def resolve_path(text: str, folder: Path) -> Path:
    """~ and $VARIABLES expanded, relative to the experiment file."""
    return Path(os.path.normpath(folder / Path(os.path.expandvars(text)).expanduser()))


