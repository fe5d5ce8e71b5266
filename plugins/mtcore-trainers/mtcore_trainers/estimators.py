"""Estimators of scikit-learn in place of the network: the baseline beside it, in the same tables."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sklearn.base
import torch
from sklearn.dummy import DummyClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from mtcore.plugin import Batch, ExperimentError, ParameterError, Predictions, Task, Trainer, TrainingError, param
from mtcore.training.evaluate import figures, predict

from .keeping import read_fitted, read_rows, skops, write_fitted, write_rows

__all__ = ["Sklearn"]

DEFAULTS = {"regression": {"use": "sklearn.linear_model:Ridge"}} | dict.fromkeys(
    ("binary", "multiclass", "multilabel"), {"use": "sklearn.linear_model:LogisticRegression", "max_iter": 1000})
TINY = 1e-7


@dataclass(frozen=True, kw_only=True)
class Sklearn(Trainer):
    """Fits an estimator per task on the training rows that have it. A row is all its inputs, flattened and joined; of an input
    with a time axis the mean and the deviation over time. Without `estimators`: logistic regression, and ridge regression for
    numbers; multilabel tasks get one estimator per label. Trunk, optimizer and number of epochs mean nothing.

    What is kept of `rows` is 4 bytes per value and training row: whenever the run is applied, estimators are fitted again, to the
    same bits. `skops` keeps the fitted estimators, in the format of that library (extra `skops`).
    """

    estimators: dict[str, dict[str, Any]] = param(
        {}, help="by task, {use = \"sklearn.svm:SVC\", …} with the estimator's own parameters")
    scale: bool = param(True, help="subtract the training rows' mean and divide by their deviation, per value")
    keep: Literal["rows", "skops", "nothing"] = param(
        "rows", help="to predict later: the summarised training rows, to fit again; fitted estimators; or nothing")

    def __post_init__(self):
        for task, table in self.estimators.items():
            if not foreign(table):  # a stranger's run may name others: nothing is imported before it is trusted
                made(table, f"estimators.{task}", 0)

    def build(self) -> SklearnRun:
        return SklearnRun(self)


def foreign(table: dict[str, Any]) -> bool:
    """Whether what it names is not scikit-learn's own."""
    return ":" in (target := str(table.get("use", ""))) and target.split(":")[0].split(".")[0] != "sklearn"


def made(table: dict[str, Any], path: str, seed: int) -> Any:
    """The estimator that a table names; what it draws follows from the seed."""
    target, options = str(table.get("use", "")), {key: value for key, value in table.items() if key != "use"}
    module, _, name = target.partition(":")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ParameterError(f"{path}.use: expected an import path such as \"sklearn.svm:SVC\", found {target!r}: "
                             f"{error}") from error
    if not (inspect.isclass(cls) and issubclass(cls, sklearn.base.BaseEstimator) and {"fit", "predict"} <= set(dir(cls))):
        raise ParameterError(f"{path}.use: expected an estimator of scikit-learn's kind with fit and predict; found {target}")
    known = list(inspect.signature(cls).parameters)
    if unknown := [key for key in options if key not in known]:
        raise ParameterError(f"{path}.{unknown[0]}: {name} takes {', '.join(known)}")
    return cls(**({"random_state": seed % 2**32} if "random_state" in known else {}) | options)


class SklearnRun:
    def __init__(self, options: Sklearn):
        self.options = options

    def check(self, model, data, setup):
        if setup.processes.count > 1:
            raise TrainingError("train.trainer: sklearn runs in one process; start this run without torchrun")
        for name, table in self.options.estimators.items():
            made(table, f"train.trainer.estimators.{name}", 0)
        if self.options.keep == "skops":
            skops()
        for name in setup.heads:
            kind = data.tasks[name].kind
            if kind not in DEFAULTS:
                raise ParameterError(f"train.trainer: sklearn learns tasks of kind {', '.join(DEFAULTS)}; {name} is of kind "
                                     f"{kind}. Leave it out with the dataset's `tasks`, or use another trainer")
            cls = type(self.estimator(data.tasks[name], 0))
            expected = sklearn.base.is_regressor if kind == "regression" else sklearn.base.is_classifier
            if not expected(self.estimator(data.tasks[name], 0)):
                role = "regressor" if kind == "regression" else "classifier"
                raise ParameterError(f"train.trainer.estimators.{name}.use: a task of kind {kind} needs a {role}; found "
                                     f"{cls.__module__}:{cls.__name__}")

    def estimator(self, task: Task, seed: int) -> Any:
        return made(self.options.estimators.get(task.name, DEFAULTS[task.kind]), f"train.trainer.estimators.{task.name}", seed)

    def run(self, model, data, folder, setup):
        self.check(model, data, setup)
        rows = {part: data.rows(part) for part in ("train", "validation", "test")}
        rows["train"].epoch = 1
        folder.clean()
        folder.truncate_metrics(0)
        setup.reporters.run_started(folder.info)
        summary = Summary.of(data)
        taught = self.taught(summary, rows["train"], data, setup)
        fitted = self.fit(taught, data.tasks, folder.log)
        self.save(taught, fitted, folder)
        model = Estimators(summary, data.tasks, fitted)
        heads = {name: Scores(head) for name, head in setup.heads.items()}
        found, predictions = {}, {}
        for part, some in rows.items():
            if len(some):
                predictions[part], losses = predict(model, heads, setup.losses, some, setup.batch_size, setup.workers,
                                                    setup.each_window, tune=part == "validation")
                found[part] = {name: {"loss": loss} for name, loss in losses.items()} if part == "train" else figures(
                    predictions[part], losses, setup.metrics)
        del predictions["train"]
        test = {key: {"test": each["test"]} for key, each in (("found", found), ("predictions", predictions)) if "test" in each}
        write(folder, {part: found[part] for part in found if part != "test"}, None)
        for checkpoint in ("last", "best"):
            write(folder, test.get("found", {}), checkpoint)
            folder.save_predictions(checkpoint, predictions)
        setup.reporters.epoch_ended(1, {part: found[part] for part in found if part != "test"},
                                    {part: predictions[part] for part in predictions if part != "test"})
        if test:
            setup.reporters.epoch_ended(1, test["found"], test["predictions"])
        folder.update_info(epoch=1, best_epoch=1, parameters=0)

    def taught(self, summary, rows, data, setup) -> dict[str, np.ndarray]:
        """What estimators learn from: `x` float32 [rows, values]; `rows/NAME`, which rows have a task, and their `targets/NAME`;
        `seed`; `timed`, names of the inputs with a time axis."""
        inputs, targets, having, start = [], {name: [] for name in setup.heads}, {name: [] for name in setup.heads}, 0
        for batch in batches(rows, setup):
            inputs.append(summary(batch.inputs, batch.lengths))
            for name, target in batch.targets.items():
                targets[name].append(target.numpy())
                having[name].append(start + torch.arange(len(batch.clips))[batch.rows[name]].numpy())
            start += len(batch.clips)
        for name in data.tasks:
            if not having[name]:
                raise TrainingError(f"task {name}: no training row has it; sklearn needs at least one")
        return {"x": np.concatenate(inputs), "seed": np.array(setup.seed), "timed": np.array(summary.timed, str),
                **{f"rows/{name}": np.concatenate(some) for name, some in having.items()},
                **{f"targets/{name}": np.concatenate(some) for name, some in targets.items()}}

    def fit(self, taught: Mapping[str, np.ndarray], tasks: Mapping[str, Task], log: Callable[[str], None]) -> dict[str, Any]:
        x, fitted = taught["x"].astype(float), {}
        for name, task in tasks.items():
            y = taught[f"targets/{name}"]
            y = y if task.kind == "regression" else y.astype(int)
            estimator = self.estimator(task, int(taught["seed"]))
            if task.kind == "multilabel":
                estimator = OneVsRestClassifier(estimator)
            elif task.kind != "regression" and len(np.unique(y)) == 1:
                log(f"warning: task {name}: all training rows have one label, which is all that is predicted")
                estimator = DummyClassifier(strategy="prior")
            whole = make_pipeline(*([StandardScaler()] if self.options.scale else []), estimator)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                try:
                    fitted[name] = whole.fit(x[taught[f"rows/{name}"]], y)
                except Exception as error:
                    raise TrainingError(f"task {name}: {type(estimator).__name__} cannot be fitted on {len(y)} rows of "
                                        f"{x.shape[1]} values: {type(error).__name__}: {error}; change "
                                        "train.trainer.estimators") from error
            for text in dict.fromkeys(str(one.message).splitlines()[0] for one in said):
                log(f"warning: task {name}: {text}")
            log(f"task {name}: {estimator} on {len(y)} rows of {x.shape[1]} values")
        return fitted

    def save(self, taught: Mapping[str, np.ndarray], fitted: Mapping[str, Any], folder) -> None:
        place, keep = folder.path / "checkpoints", self.options.keep
        if keep == "rows":
            write_rows(place / "best.npz", taught)
        elif keep == "skops" and (unknown := write_fitted(place / "best.skops", taught["timed"].tolist(), fitted)):
            folder.log(f"warning: of the estimators kept, only --trust reads {', '.join(unknown)}")

    def restore(self, path: Path, tasks, heads, trust):
        """The estimators, fitted again or read, and heads for them."""
        for name, table in self.options.estimators.items():
            if foreign(table) and not trust:
                raise ExperimentError(f"{path}: the estimator of {name} is {table['use']}, code that is not scikit-learn's; only "
                                      "with --trust is it imported out of a run folder")
            made(table, f"train.trainer.estimators.{name}", 0)
        if path.suffix == ".skops":
            timed, fitted = read_fitted(path, tasks, trust)
        else:
            taught = read_rows(path, tasks)
            timed, fitted = taught["timed"].tolist(), self.fit(taught, tasks, lambda line: None)
        return Estimators(Summary(timed), tasks, fitted), {name: Scores(head) for name, head in heads.items()}


def batches(rows, setup) -> Iterator[Batch]:
    size = setup.batch_size
    yield from rows.batches([range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)], setup.workers)


def write(folder, found, checkpoint) -> None:
    folder.append_metrics([
        {"epoch": 1, "update": 1, "part": part, "task": task, "metric": metric, "value": value, "checkpoint": checkpoint}
        for part, tasks in found.items() for task, values in tasks.items() for metric, value in values.items()])


class Summary:
    """Inputs of a batch as one array float32 [rows, values]; `timed`: names of those with a time axis."""

    def __init__(self, timed: Sequence[str]):
        self.timed = timed

    @classmethod
    def of(cls, data) -> Summary:
        timed, (d, c) = [], data.clips("train")[0]
        for name in data.names:
            one = data.input(d, name)
            array = one.chain.run(one.store.read(one.keys[c]), one.chain.cut, len(one.chain.steps), data.state(d, name), window=0,
                                  part="train")
            timed += [name] * (array.axis is not None or array.rate is not None)
        return cls(timed)

    def __call__(self, inputs, lengths=None) -> np.ndarray:
        found = []
        for name, values in inputs.items():
            x = values.double()
            if name in self.timed:
                size = x.shape[-1] if lengths is None else lengths[name].view(-1, *[1] * (x.dim() - 1))
                there = torch.arange(x.shape[-1]) < size  # padding is zero, and no part of the mean
                mean = (x * there).sum(-1, keepdim=True) / size
                deviation = (((x - mean) ** 2 * there).sum(-1, keepdim=True) / size).sqrt()
                x = torch.cat([mean, deviation], -1)
            found.append(x.flatten(1))
        return torch.cat(found, 1).float().numpy()


class Estimators(nn.Module):
    """All tasks' estimators as a model, whose outputs are logarithms of probabilities (binary, multilabel: logits), or values."""

    def __init__(self, summary: Summary, tasks, fitted):
        super().__init__()
        self.summary, self.tasks, self.fitted = summary, tasks, fitted

    def forward(self, inputs, lengths=None, rows=None):
        x, every = self.summary(inputs, lengths).astype(float), torch.arange(len(next(iter(inputs.values()))))
        chosen = {name: every if rows is None else every[rows[name]] for name in self.fitted if rows is None or name in rows}
        return {name: torch.from_numpy(raw(self.tasks[name], self.fitted[name], x[some.numpy()])).float()
                for name, some in chosen.items()}


def raw(task: Task, estimator, x: np.ndarray) -> np.ndarray:
    if task.kind == "regression":
        return estimator.predict(x)
    if task.kind == "multilabel":
        p = estimator.predict_proba(x) if hasattr(estimator, "predict_proba") else sigmoid(estimator.decision_function(x))
        return logit(p.reshape(len(x), len(task.labels)))
    p = np.zeros((len(x), 2 if task.kind == "binary" else len(task.labels)))
    p[:, estimator.classes_] = probabilities(estimator, x)
    return logit(p[:, 1]) if task.kind == "binary" else np.log(np.maximum(p, TINY))


def probabilities(estimator, x: np.ndarray) -> np.ndarray:
    """[rows, classes]; out of distances from the border or the decision alone where the estimator gives none."""
    if hasattr(estimator, "predict_proba"):
        return estimator.predict_proba(x)
    if not hasattr(estimator, "decision_function"):
        return (estimator.predict(x)[:, None] == estimator.classes_).astype(float)
    far = estimator.decision_function(x)
    if far.ndim == 1:
        return np.stack([1 - sigmoid(far), sigmoid(far)], 1)
    e = np.exp(far - far.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))


def logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, TINY, 1 - TINY)
    return np.log(p) - np.log1p(-p)


class Scores:
    """A head's decisions on probabilities, whatever its own outputs mean."""

    def __init__(self, head):
        self.head, self.decide = head, head.decide

    def tuned(self, task: Task, predictions: Predictions) -> Scores:
        return Scores(self.head.tuned(task, predictions))

    def scores(self, task: Task, output: torch.Tensor) -> torch.Tensor:
        return output if task.kind == "regression" else output.softmax(1) if task.kind == "multiclass" else output.sigmoid()
