"""A run that lies in its folder: its model on new recordings, and its outputs as features."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..clip import PARTS, Clip, File, Lazy
from ..errors import ClipError, DataError, ExperimentError, ParameterError, at
from ..extracting.chain import Array, Chain
from ..extracting.fill import rounded
from ..plugin import Axis, Extractor, Head, Moved, Named, Predictions, Task, param
from ..plugin.registry import get_registry, resolve_target
from ..preparing.data import RunData
from ..preparing.inputs import Input, Memory
from ..reading.dataset import Dataset
from ..reading.decode import decode
from ..runfolder import RunFolder
from ..training.evaluate import predict
from ..training.gradient import load_checkpoint
from ..training.model import build_model
from ..training.processes import Processes
from .finding import finished

__all__ = ["RunOutputs", "StoredRun", "task_info"]

PLAIN = ("binary", "multiclass", "multilabel", "regression")
"""Kinds whose raw outputs are [values]."""
NEUTRAL = {"multilabel": (), "events": (), "regression": 0.0}


def task_info(task: Task) -> dict[str, Any]:
    """What run.json holds of a task for `StoredRun`."""
    return {key: value for key, value in asdict(task).items() if key != "name"}


class _Absent:
    """A material of a stored run, which draws from it in training only."""

    def at(self, rate: float | None) -> _Absent:
        return self

    def draw(self, rng: Any) -> Any:
        raise ExperimentError("a step draws from a material in the test part, and materials do not lie with a run")


class _Alone(Processes):
    """Each process asks a stored run for itself."""

    def __init__(self):
        self.count, self.rank = 1, 0


class _Raw(Head):
    """In place of a task's head: outputs as they are."""

    def build(self, task, shape):
        raise NotImplementedError

    def decide(self, task: Task, scores: Any) -> Any:
        return [()] * len(scores)


class StoredRun:
    """A run out of its folder alone, wherever that has been moved to.

    checkpoint  "best" or "last"
    dataset     whose chains recordings go through, where the run's datasets have chains of their own
    trust       import what the folder names as "module:Class", also from the working folder

    Raises `ExperimentError` where the folder holds no run that is done or names what is not trusted, `DataError` where a
    component is not what it was when the run was trained.
    """

    def __init__(self, folder: Path | str, checkpoint: str = "best", dataset: str | None = None, trust: bool = False):
        self.folder, self.checkpoint, self.trust = RunFolder(folder), checkpoint, trust
        self.info = info = finished(self.folder)
        if not self.folder.checkpoint(checkpoint).exists():
            there = ", ".join(sorted(one.name for one in (self.folder.path / "checkpoints").glob("*"))) or "none"
            raise ExperimentError(f"{folder}: expected a checkpoint {checkpoint!r}, found {there}; what a trainer keeps, its "
                                  f"parameters say: mtcore info {info['config']['train']['trainer']['use']}")
        if "shapes" not in info:
            raise ExperimentError(f"{folder}: expected a run with its rows' shapes, found one of an older mtcore; run it again")
        self.tasks = {name: Task(name, one["kind"], tuple(one["labels"]), one["unit"], one["shape"] and tuple(one["shape"]))
                      for name, one in info["tasks"].items()}
        self.config = info["config"]
        self.states = {(step, "" if scope == "shared" else scope): state
                       for (step, scope), state in self.folder.load_state().items()}
        different = {str([steps[one] for steps in self.config["inputs"].values() if one in steps]) for one in info["datasets"]}
        if dataset is None and len(info["datasets"]) > 1 and (len(different) > 1 or any(scope for _, scope in self.states)):
            raise ExperimentError(f"{folder}: its datasets have chains of their own; say which recordings go through: "
                                  f"{', '.join(info['datasets'])}")
        self.dataset = dataset or info["datasets"][0]
        if self.dataset not in info["datasets"]:
            raise ExperimentError(f"{folder}: trained on {', '.join(info['datasets'])}; found {dataset!r}")

    @cached_property
    def digest(self) -> str:
        """Of the run's identity and of its weights."""
        path = self.folder.checkpoint(self.checkpoint)
        return _digest(str(path), self.info["identity"], path.stat().st_mtime_ns, path.stat().st_size)

    # From names to components -----------------------------------------------------------------------------------------

    def make(self, kind: str, described: Mapping[str, Any], path: str) -> Named:
        """A component as run.json describes it; of a step's keys those that it knows."""
        values = dict(described)
        name, revision, source = values["use"], values.pop("revision", 1), values.pop("source", None)
        if ":" in name and not self.trust:
            raise ExperimentError(f"{self.folder.path}: {path} is {name}, code that does not belong to a plugin; only with --trust "
                                  "is it imported out of a run folder")
        for key, value in values.items():
            if isinstance(value, dict) and "use" in value:
                values[key] = self.make(_kind_of(kind, name, key), value, f"{path}.{key}")  # a component within this one
        if name == "core.run":
            values["run"] = self._inner(values["digest"])
        search = Path.cwd() if self.trust else None
        with at(str(self.folder.path)):
            if kind == "step":
                for key, default in (("p", 1.0), ("parts", None), ("fit", "shared")):  # an extractor has none
                    if values[key] == default:
                        del values[key]
                found = get_registry().make_step(values, path, ("preparer", "extractor"), search)
            else:
                found = get_registry().make(kind, values, path, search)
        if found.revision != revision or source not in (None, found.described().get("source")):
            raise DataError(f"{self.folder.path}: {path}: trained with {name} of revision {source or revision}, found "
                            f"{found.described().get('source', found.revision)}, which gives other values; install what run.json "
                            "names under versions, or train again")
        return found

    def _inner(self, digest: str) -> str:
        """Where a run lies whose outputs are an input of this one: as seen from this folder, else where it lay."""
        for place in self.info["runs"].get(digest, ()):
            if (self.folder.path / place / "run.json").exists():
                return os.path.normpath(self.folder.path / place)
        raise ExperimentError(f"{self.folder.path}: an input is made by another run, expected at "
                              f"{' or '.join(self.info['runs'].get(digest, ())) or 'no known place'}, found none there")

    @cached_property
    def chains(self) -> dict[str, Chain]:
        materials = dict.fromkeys(PARTS, {name: _Absent() for name in self.config.get("materials", ())})
        found = {}
        for name, one in self.config["inputs"].items():
            made = (self.make("step", step, f"inputs.{name}") for step in (one["steps"] if "task" in one else one[self.dataset]))
            found[name] = Chain(tuple(made), dtype=self.config["dtype"], materials=materials, task=one.get("task", ""))
        return found

    @property
    def heads(self) -> dict[str, Head]:
        """With what the validation part's predictions have taught them."""
        return self._applied[1]

    def _heads(self) -> dict[str, Head]:
        return {name: self.make("head", one["head"], f"tasks.{name}.head").component
                for name, one in self.config["tasks"].items()}

    @property
    def model(self) -> torch.nn.Module:
        """What predicts, on the CPU, in evaluation mode."""
        return self._applied[0]

    @cached_property
    def _applied(self) -> tuple[torch.nn.Module, dict[str, Head]]:
        """Model and heads: the network with the checkpoint's weights, or what the trainer makes of a file of its own."""
        path = self.folder.checkpoint(self.checkpoint)
        validated = self.folder.load_predictions(self.checkpoint).get("validation", {})
        heads = {name: head.tuned(self.tasks[name], validated[name]) if name in validated else head
                 for name, head in self._heads().items()}
        if path.suffix == ".pt":
            model = self._network()
        else:
            trainer = self.make("trainer", self.config["train"]["trainer"], "train.trainer").component.build()
            model, heads = trainer.restore(path, self.tasks, heads, self.trust)
        return model.eval().requires_grad_(False), heads

    def _network(self) -> torch.nn.Module:
        shapes = {name: tuple(shape) for name, shape in self.info["shapes"].items()}
        config = self.config["model"]
        with torch.random.fork_rng(devices=[]):
            if isinstance(config.get("module"), str):
                if not self.trust:
                    raise ExperimentError(f"{self.folder.path}: model.module is {config['module']}, code that does not belong to a "
                                          "plugin; only with --trust is it imported out of a run folder")
                model = resolve_target(config["module"], search=Path.cwd())(shapes, self.tasks)
            else:
                takes = {name: one["inputs"] for name, one in config.items()}
                trunks = {name: self.make("trunk", {key: value for key, value in one.items() if key != "inputs"},
                                          f"model.trunks.{name}").component for name, one in config.items()}
                model = build_model(trunks, takes, shapes, self.tasks, self._heads(),
                                    {name: one["trunks"] for name, one in self.config["tasks"].items()})
        try:
            model.load_state_dict(load_checkpoint(self.folder.checkpoint(self.checkpoint))["model"])
        except RuntimeError as error:
            raise DataError(f"{self.folder.path}: the checkpoint does not fit the network that run.json describes: "
                            f"{error}") from error
        return model

    # Applying ---------------------------------------------------------------------------------------------------------

    def data(self, arrays: Mapping[str, Array]) -> RunData:
        """Recordings by name as the test part of a run, neither their targets known nor anything random."""
        targets = {key: np.zeros([size or 1 for size in task.shape or ()], np.float32) if task.kind == "array" else
                   NEUTRAL.get(task.kind, task.labels[:1] and task.labels[0])
                   for key, task in self.tasks.items() if task.kind != "none"}
        dataset = Dataset(self.dataset, None, Path(), self.tasks, tuple(Clip(name, Lazy(decode), targets) for name in arrays))
        inputs = {}
        for key, chain in self.chains.items():
            inputs[key] = Input(chain, Memory(), list(arrays))
            for name, array in arrays.items():
                start = Array(np.zeros(self.info["shapes"][key], np.float32)) if chain.task else array
                stored = rounded(chain, chain.run(start, 0, chain.cut, {}))
                inputs[key].store[name] = replace(stored, data=stored.data.astype(np.float32))
        scaling = {key: tuple(pair) for key, pair in self.info["scaling"].items()}
        return RunData([dataset], self.tasks, {self.dataset: inputs}, {self.dataset: np.full(len(arrays), PARTS.index("test"))},
                       {self.dataset: np.zeros(len(arrays), int)}, self.info["seed"], self.states, scaling)

    def predict(self, audio: File | Lazy | Array) -> dict[str, Predictions]:
        """Per task what the run says of one recording: scores, and what the heads decide. Raises `ClipError` for what it cannot
        take."""
        return self._predict({"clip": audio} if isinstance(audio, Array) else {str(audio): Array(*decode(audio))}, self.heads)

    def _predict(self, arrays: Mapping[str, Array], heads: Mapping[str, Head]) -> dict[str, Predictions]:
        data = self.data(arrays)
        for name, shape in data.check_shapes().items():
            known = tuple(self.info["shapes"][name])
            if shape[:-1] != known[:-1]:  # the last one may be a length in time
                raise ClipError(f"input {name} is of shape {list(shape)}, the run has learned from {list(known)}: other channels or another "
                                "rate; convert the recording, or put mono and resample into the experiment's signal.steps")
        rows = data.rows("test")
        for name, task in self.tasks.items():
            for c, encoded in enumerate(rows.data.encoded[self.dataset] if task.framed and task.kind == "array" else ()):
                row = int(np.flatnonzero(rows.index[:, 1] == c)[-1])  # a target as long as the rows: what has none is left out
                last = next(a for a in (rows._array(row, one) for one in rows.data.names) if a.axis is not None)
                end = (last.frames[0] if last.frames else 0) + last.data.shape[-1] + round(last.by / last.axis.hop)
                encoded[name] = np.zeros([*(size or 1 for size in task.shape[:-1]), end], np.float32)
        losses = dict.fromkeys(self.tasks, lambda raw, target, batch: raw.new_zeros(len(raw)))
        found, _ = predict(self.model, heads, losses, rows, self.config["train"]["batch_size"], processes=_Alone())
        return {name: replace(one, targets=None, trained=None) for name, one in found.items()}

    def plain(self) -> list[str]:
        """The tasks whose raw outputs are [values]: labels (binary: the second one) and regression."""
        return [name for name, task in self.tasks.items() if task.kind in PLAIN]

    def outputs(self, array: Array, what: str) -> Array:
        """What `RunOutputs` gives of a decoded recording."""
        if what in ("vector", "frames"):
            return self._represented(array, what)
        return self.taught({"clip": array}, [what])[what]["clip"]

    def taught(self, arrays: Mapping[str, Array], wanted: Iterable[str]) -> dict[str, dict[str, Array]]:
        """By what is wanted, `outputs` or a task, the raw outputs of sounds by name, together in batches."""
        found, given = self._predict(arrays, dict.fromkeys(self.tasks, _Raw())), {}
        for what in wanted:
            if what in self.tasks and self.tasks[what].kind == "events":
                one = found[what]
                given[what] = {name: Array(scores[None].astype(np.float32), axis=Axis(one.hop, one.first), by=by, speed=speed)
                               for name, scores, (by, speed) in zip(arrays, one.scores, one.moved)}
            else:
                tasks = self.plain() if what == "outputs" else [what]
                joined = np.concatenate([found[name].scores.reshape(len(arrays), -1) for name in tasks], 1).astype(np.float32)
                given[what] = {name: Array(row[None]) for name, row in zip(arrays, joined)}
        return given

    def check_rate(self, lying: Array, heard: Array) -> None:
        """Raise `ExperimentError` where an experiment's steps have brought a sound to a rate that the run cannot use."""
        self.model  # made here, before processes that prepare batches ask for it
        data = self.data({"clip": lying})
        for name, chain in self.chains.items():
            if not chain.task:
                own, found = (chain.run(one, 0, chain.extractor, data.state(0, name)).rate for one in (lying, heard))
                if own != found or own and heard.rate < min(lying.rate, own):
                    raise ExperimentError(f"{self.folder.path}: expected sound of {min(lying.rate, own):g} Hz, as this run hears "
                                          f"it from disk, found {heard.rate:g} Hz behind the experiment's signal steps; where the "
                                          "student alone is to hear that, put resample into inputs.NAME.signal")

    @torch.no_grad()
    def _represented(self, array: Array, what: str) -> Array:
        rows, size = self.data({"clip": array}).rows("test"), self.config["train"]["batch_size"]
        if what == "frames" and len(rows) > 1:
            raise ParameterError(f"{self.folder.path}: the run sees windows of a clip, so that its frames are none of the "
                                 f"clip's; take vector")
        vectors = []
        for batch in rows.batches([range(first, min(first + size, len(rows))) for first in range(0, len(rows), size)]):
            represented = getattr(self.model(batch.inputs, batch.lengths, batch.rows), "representation", None) or {}
            found = [one for each in represented.values() for one in (each.values() if isinstance(each, dict) else [each])]
            if not found:
                raise ParameterError(f"{self.folder.path}: its model hands over no representation; take one of "
                                     f"{', '.join(self.tasks)}")
            vectors.append(torch.cat([one.vector for one in found], 1))
        if what == "vector":
            return Array(torch.cat(vectors).mean(0, keepdim=True).numpy())
        framed = [one for one in found if one.frames is not None]
        timed = [a for a in (rows._array(0, name) for name in rows.data.names) if a.axis is not None]
        if len(framed) != 1 or not timed:
            raise ParameterError(f"{self.folder.path}: expected a model with frames in one representation, found {len(framed)}; "
                                 "take vector")
        (hop, first), stride = timed[0].axis, framed[0].stride
        axis = Axis(hop * stride, first + hop * (stride - 1) / 2)
        return Array(framed[0].frames.numpy(), axis=axis, by=timed[0].by, speed=timed[0].speed)


def _kind_of(kind: str, name: str, parameter: str) -> str:
    from ..plugin.building import parameters_of

    return next(one.component for one in parameters_of(get_registry().load(kind, name)) if one.name == parameter)


@lru_cache(maxsize=64)
def _digest(path: str, identity: str, *stamp: int) -> str:
    """`stamp`: size and time of change, so that a changed file is read again. Of the numbers, as a checkpoint's bytes name its
    file."""
    whole = blake2b(identity.encode(), digest_size=12)
    if not path.endswith(".pt"):
        whole.update(Path(path).read_bytes())
        return whole.hexdigest()
    for name, tensor in load_checkpoint(Path(path))["model"].items():
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return whole.hexdigest()


@lru_cache(maxsize=16)
def _opened(path: str, checkpoint: str, dataset: str | None, *stamp: tuple[int, int]) -> StoredRun:
    return StoredRun(path, checkpoint, dataset)


@dataclass(frozen=True, kw_only=True)
class RunOutputs(Extractor):
    """Outputs of a run that is done: a clip goes through its chain, with its fitted state, and through its network.

    float32 [1, values]: the trunks' vectors (`vector`), or raw outputs of a task: a value per label in their order, before
    softmax or sigmoid (binary: one), or a regression's value in its unit; `outputs` joins those of all such tasks. [1, values,
    frames]: `frames` of the trunk, or a task of events [1, labels, frames]. Of a clip of several windows the mean. Stored under
    the digest of identity and weights, wherever the run lies.
    """

    run: str = param(help="the run's folder; in an experiment file relative to it, and it may be a folder of runs or a pattern: "
                     "then its run of the same fold that has not trained on what is validated or tested here")
    checkpoint: str = param("best", choices=("best", "last"), help="which weights")
    what: str = param("vector", help="vector or frames of the representation, outputs, or the name of a task")
    dataset: str | None = param(None, help="of the run's datasets the one whose chain clips go through, where chains differ")
    digest: str | None = param(None, help="what the digest of identity and weights must be; default: what it is")

    def __post_init__(self):
        try:
            self.stored
        except ExperimentError as error:
            raise ParameterError(str(error)) from error

    @property
    def stored(self) -> StoredRun:
        folder = RunFolder(Path(os.path.expandvars(self.run)).expanduser())
        finished(folder)
        path = folder.checkpoint(self.checkpoint)
        stamp = [(path.stat().st_mtime_ns, path.stat().st_size)] if path.exists() else []
        found = _opened(str(folder.path.resolve()), self.checkpoint, self.dataset, *stamp)
        if self.digest not in (None, found.digest):
            raise ExperimentError(f"{folder.path}: expected a run with the digest {self.digest}, found {found.digest}; it has "
                                  f"been trained again")
        known = [name for name, task in found.tasks.items() if task.kind in (*PLAIN, "events")]
        if self.what not in ("vector", "frames", "outputs", *known):
            raise ExperimentError(f"{folder.path}: expected vector, frames, outputs or one of its tasks {', '.join(known)}; found "
                                  f"{self.what!r}")
        return found

    def parameters(self) -> dict[str, Any]:
        """With the digest in place of the path."""
        return {"checkpoint": self.checkpoint, "what": self.what, "dataset": self.dataset, "digest": self.stored.digest}

    def prepare(self, rate: float | None) -> Callable[[np.ndarray], Any]:
        stored, what = self.stored, self.what
        stored.model, stored.chains  # made here, before threads ask for them

        def outputs(x: np.ndarray) -> Any:
            found = stored.outputs(Array(np.asarray(x, np.float32), rate), what)
            return Moved(found.data, found.by, found.speed) if found.by or found.speed != 1 else found.data

        return outputs

    def axis(self, rate: float | None) -> Axis | None:
        stored = self.stored
        if self.what in ("vector", "outputs", *stored.plain()):
            return None
        for seconds in (1, 4, 16, 64):  # as long as the run needs; the axis is the same for all lengths
            try:
                noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, int(seconds * (rate or 1)))).astype(np.float32)
                return stored.outputs(Array(noise, rate), self.what).axis
            except ClipError:
                continue
        raise ParameterError(f"{self.run}: found no length of sound that the run takes")
