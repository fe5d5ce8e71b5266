"""From names to components: chains, model, losses, metrics of one run."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import Any, Mapping

from ..errors import ExperimentError
from ..extracting.chain import Chain
from ..plugin import Named, Step, Task
from .file import Config

__all__ = ["Builder"]

HEADS = dict.fromkeys(("binary", "multiclass", "multilabel", "regression"), "core.linear") | {"events": "core.frames"}
LOSSES = {"multiclass": "core.cross_entropy", "binary": "core.binary_cross_entropy", "multilabel": "core.binary_cross_entropy",
          "events": "core.binary_cross_entropy", "regression": "core.mse", "array": "core.mse"}
METRICS = {"binary": ["core.classification"], "multiclass": ["core.classification"], "multilabel": ["core.multilabel"],
           "regression": ["core.regression"], "events": ["core.events"]}


class Builder:
    """Makes the components of one configuration; `registry` checks their parameters."""

    def __init__(self, config: Config, registry, folder: Path):
        self.config, self.registry, self.folder = config, registry, folder

    def make(self, kind: str, value: Any, path: str) -> Named:
        return self.registry.make(kind, value, path=path, search=self.folder)

    def chain(self, dataset: str, name: str) -> Chain:
        """The chain of one input for one dataset, which may say its own extractor, signal or feature steps."""
        config = self.config
        value, path = {}, {}
        for key in ("extractor", "signal", "steps"):
            own = getattr(config.datasets[dataset].inputs.get(name), key, None)
            value[key] = getattr(config.inputs[name], key) if own is None else own
            path[key] = f"inputs.{name}.{key}" if own is None else f"datasets.{dataset}.inputs.{name}.{key}"
        before = self._steps(config.datasets[dataset].signal, f"datasets.{dataset}.signal", "signal")
        common = self._steps(config.signal.steps, "signal.steps", "signal")
        own = self._steps(value["signal"], path["signal"], "signal")
        extractor = self.registry.make_step(value["extractor"], path=path["extractor"], kinds=("extractor",), search=self.folder)
        features = self._steps(value["steps"], path["steps"], "feature")
        steps = (*before, *common, *own, extractor, *features)
        ids = [step.id for step in steps]
        twice = sorted({ident for ident in ids if ids.count(ident) > 1})
        if twice:
            raise ExperimentError(f"inputs.{name}: two steps have the id {twice[0]!r}; give one another `id`")
        return Chain(steps, shared=len(before) + len(common), dtype=config.extract.dtype)

    def material(self, name: str) -> Chain:
        """A material's chain, stored whole: its own signal steps, the experiment's up to the first that is random or fitted, samples."""
        own = self._steps(self.config.materials[name].signal, f"materials.{name}.signal", "signal")
        common = self._steps(self.config.signal.steps, "signal.steps", "signal")
        fixed = list(takewhile(lambda step: not (step.random or step.fitted or step.parts), common))
        chain = Chain((*own, *fixed, self.registry.make_step("core.waveform", kinds=("extractor",))))
        if chain.cut < len(chain.steps):
            raise ExperimentError(f"materials.{name}.signal: expected steps that are neither random nor fitted: {chain.reason}")
        return chain

    def _steps(self, values: list, path: str, acts_on: str) -> list[Step]:
        steps = [self.registry.make_step(value, path=f"{path}[{i}]", search=self.folder) for i, value in enumerate(values)]
        for i, step in enumerate(steps):
            able = step.component.acts_on
            if acts_on not in ((able,) if isinstance(able, str) else able):
                raise ExperimentError(f"{path}[{i}]: {step.name} acts on {able if isinstance(able, str) else ' and '.join(able)}s; expected a "
                                      f"step on {acts_on}s here")
        return steps

    def batch_steps(self) -> list[Step]:
        return self._steps(self.config.batch.steps, "batch.steps", "batch")

    def trunks(self) -> tuple[dict[str, Named], dict[str, list[str]]]:
        """Trunks by name, and the inputs that each takes."""
        values = self.config.model.trunks or {"main": self.config.model.trunk}
        made, inputs = {}, {}
        for name, value in values.items():
            path = f"model.trunks.{name}" if self.config.model.trunks else "model.trunk"
            takes = list(self.config.inputs)
            if isinstance(value, Mapping) and "inputs" in value:
                value = dict(value)
                takes = value.pop("inputs")
                for one in takes:
                    if one not in self.config.inputs:
                        raise ExperimentError(f"{path}.inputs: {one!r} is not among {', '.join(self.config.inputs)}")
            made[name], inputs[name] = self.make("trunk", value, path), list(takes)
        return made, inputs

    def wiring(self, tasks: Mapping[str, Task], trunks: Mapping[str, Any]) -> dict[str, list[str]]:
        found = {}
        for name in tasks:
            said = self.config.tasks[name].trunks if name in self.config.tasks else None
            for trunk in said or ():
                if trunk not in trunks:
                    raise ExperimentError(f"tasks.{name}.trunks: {trunk!r} is not among {', '.join(trunks)}")
            found[name] = said or list(trunks)
        return found

    def _of_task(self, kind: str, key: str, defaults: Mapping[str, str], tasks: Mapping[str, Task]) -> dict[str, Named]:
        found = {}
        for name, task in tasks.items():
            said = getattr(self.config.tasks[name], key) if name in self.config.tasks else None
            if said is None and task.kind not in defaults:
                raise ExperimentError(f"tasks.{name}.{key}: a task of kind {task.kind} needs one; none is the default")
            found[name] = self.make(kind, said if said is not None else defaults[task.kind], f"tasks.{name}.{key}")
            self._check_kind(found[name], task, f"tasks.{name}.{key}")
        return found

    @staticmethod
    def _check_kind(one: Named, task: Task, path: str) -> None:
        if one.component.kinds and task.kind not in one.component.kinds:
            raise ExperimentError(f"{path}: {one.name} serves {', '.join(one.component.kinds)}; the task is {task.kind}")

    def heads(self, tasks: Mapping[str, Task]) -> dict[str, Named]:
        return self._of_task("head", "head", HEADS, tasks)

    def losses(self, tasks: Mapping[str, Task]) -> dict[str, Named]:
        return self._of_task("loss", "loss", LOSSES, tasks)

    def metrics(self, tasks: Mapping[str, Task]) -> dict[str, list[Named]]:
        found = {}
        for name, task in tasks.items():
            said = self.config.tasks[name].metrics if name in self.config.tasks else None
            values = METRICS.get(task.kind, []) if said is None else said
            found[name] = [self.make("metric", value, f"tasks.{name}.metrics[{i}]") for i, value in enumerate(values)]
            for i, metric in enumerate(found[name]):
                self._check_kind(metric, task, f"tasks.{name}.metrics[{i}]")
        return found

    def weights(self, tasks: Mapping[str, Task]) -> dict[str, float]:
        return {name: self.config.tasks[name].weight if name in self.config.tasks else 1.0 for name in tasks}

    def optimizer(self) -> dict[str, Any]:
        return self.use(self.config.train.optimizer, "adam")

    def scheduler(self) -> dict[str, Any]:
        return self.use(self.config.train.scheduler, "constant")

    @staticmethod
    def use(value: Any, default: str) -> dict[str, Any]:
        return {"use": value} if isinstance(value, str) else {"use": default, **value}

    def described(self, datasets: tuple[str, ...], tasks: Mapping[str, Task]) -> dict[str, Any]:
        """The resolved configuration of a run: full names and all parameters, without folders."""
        config, (trunks, takes) = self.config, self.trunks()
        train = config.train
        return {
            "seed": config.seed,
            "split": dict(vars(config.split)), "dtype": config.extract.dtype,
            "datasets": {name: {"reader": self.make("reader", config.datasets[name].reader, f"datasets.{name}.reader").described(),
                                "group": config.datasets[name].group, "max_per_label": config.datasets[name].max_per_label}
                         for name in datasets},
            "inputs": {name: {dataset: [self._step(step) for step in self.chain(dataset, name).steps] for dataset in datasets}
                       for name in config.inputs},
            **({"materials": {name: {"reader": self.make("reader", one.reader, f"materials.{name}.reader").described(), "group": one.group,
                                     "steps": [self._step(step) for step in self.material(name).steps]}
                              for name, one in config.materials.items()}} if config.materials else {}),
            "model": {"module": config.model.module} if config.model.module else
                     {name: {**trunk.described(), "inputs": takes[name]} for name, trunk in trunks.items()},
            "tasks": {name: {"kind": task.kind, "labels": task.labels, "weight": self.weights(tasks)[name],
                             "head": self.heads(tasks)[name].described(), "loss": self.losses(tasks)[name].described(),
                             "trunks": None if config.model.module else self.wiring(tasks, trunks)[name],
                             "metrics": [metric.described() for metric in self.metrics(tasks)[name]]} for name, task in tasks.items()},
            "train": {"batch_size": train.batch_size, "accumulate": train.accumulate, "clip": train.clip, "threads": train.threads,
                      "optimizer": self.optimizer(), "scheduler": self.scheduler(),
                      "sampler": self.make("sampler", train.sampler, "train.sampler").described(),
                      "balancer": self.make("balancer", train.balancer, "train.balancer").described(),
                      "trainer": self.make("trainer", train.trainer, "train.trainer").described()},
            "batch": [self._step(step) for step in self.batch_steps()],
            "evaluation": dict(vars(config.evaluation)),
        }

    @staticmethod
    def _step(step: Step) -> dict[str, Any]:
        return {**step.described(), "id": step.id, "p": step.p, "parts": step.parts, "fit": step.fit}
