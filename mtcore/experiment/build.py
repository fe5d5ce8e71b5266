"""From names to components: chains, model, losses, metrics of one run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Any

from ..errors import ExperimentError
from ..extracting.chain import Chain
from ..plugin import Named, Step, Task
from ..plugin.interfaces import source_digest
from ..plugin.registry import resolve_target
from .file import Config, TaskConfig, check_among, resolve_path
from .stored import PLAIN, RunOutputs

__all__ = ["Builder"]

HEADS = dict.fromkeys(("binary", "multiclass", "multilabel", "regression"), "core.linear") | {"events": "core.frames", "array": "core.array"}
LOSSES = {"multiclass": "core.cross_entropy", "binary": "core.binary_cross_entropy", "multilabel": "core.binary_cross_entropy",
          "events": "core.binary_cross_entropy", "regression": "core.mse", "array": "core.mse"}
METRICS = {"binary": ["core.classification"], "multiclass": ["core.classification"], "multilabel": ["core.multilabel"],
           "regression": ["core.regression"], "events": ["core.events"], "array": ["core.arrays"]}


class Builder:
    """Makes the components of one configuration; `registry` checks their parameters. `find(text, key path)` is the folder of the
    stored run that a text in the file means; `runs` are those that were asked for, by their digest."""

    def __init__(self, config: Config, registry, folder: Path, find: Callable[[str, str], Path] | None = None):
        self.config, self.registry, self.folder = config, registry, folder
        self.find, self.runs = cache(find or (lambda text, path: resolve_path(text, folder))), {}

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
        if config.inputs[name].task:
            steps = self._steps(value["steps"], path["steps"], "feature")
            return Chain((self.registry.make_step("core.waveform", kinds=("extractor",)), *steps), task=config.inputs[name].task)
        common = self._common(dataset)
        own = self._steps(value["signal"], path["signal"], "signal")
        extractor = self._extractor(value["extractor"], path["extractor"])
        features = self._steps(value["steps"], path["steps"], "feature")
        steps = (*common, *own, extractor, *features)
        ids = [step.id for step in steps]
        twice = sorted({ident for ident in ids if ids.count(ident) > 1})
        if twice:
            raise ExperimentError(f"inputs.{name}: two steps have the id {twice[0]!r}; give one another `id`")
        return Chain(steps, shared=len(common), dtype=config.extract.dtype)

    def _common(self, dataset: str) -> list[Step]:
        """The signal steps of all inputs of a dataset, which live teachers hear, too."""
        return [*self._steps(self.config.datasets[dataset].signal, f"datasets.{dataset}.signal", "signal"),
                *self._steps(self.config.signal.steps, "signal.steps", "signal")]

    def _extractor(self, value: Any, path: str) -> Step:
        if isinstance(value, Mapping) and value.get("use") in ("core.run", "run") and isinstance(value.get("run"), str):
            value = {**value, "run": str(self.find(value["run"], path))}
        step = self.registry.make_step(value, path=path, kinds=("extractor",), search=self.folder)
        if isinstance(step.component, RunOutputs):
            found = replace(step.component, digest=step.component.stored.digest)  # held to it from now on
            step, self.runs[found.digest] = replace(step, component=found), Path(found.run)
        return step

    def teacher(self, name: str, what: str = "outputs") -> Step:
        said = {key: value for key, value in vars(self.config.teachers[name]).items() if key != "live"}
        return self._extractor({"use": "core.run", "what": what, **said}, f"teachers.{name}")

    def lessons(self, dataset: str, tasks: Mapping[str, Task]
                ) -> tuple[dict[tuple[str, str], Chain], dict[str, dict[str, tuple[str, list[int]]]]]:
        """Chains of the teachers' raw outputs by (teacher, what), of the sound that a live one hears by (teacher, "sound"), and by
        teacher and task that it shares with the run, what holds the task and where its values lie there."""
        chains, places = {}, {}
        for name in self.config.teachers:
            stored = self.teacher(name).component.stored
            sizes = [len(one.labels) if one.kind[:5] == "multi" else 1 for one in map(stored.tasks.get, stored.plain())]
            starts = dict(zip(stored.plain(), accumulate(sizes, initial=0)))
            for task in (tasks[key] for key in tasks if key in stored.tasks and tasks[key].kind in (*PLAIN, "events")):
                theirs = stored.tasks[task.name]
                same = sorted(theirs.labels) == sorted(task.labels) if task.kind != "binary" else theirs.labels == task.labels
                if theirs.kind != task.kind or not same:
                    raise ExperimentError(f"teachers.{name}: {stored.folder.path} has the task {task.name} as {theirs.kind} of "
                                          f"{', '.join(theirs.labels) or 'numbers'}; this experiment as {task.kind} of "
                                          f"{', '.join(task.labels) or 'numbers'}; expected the same labels")
                what = task.name if task.kind == "events" else "outputs"
                order = [0] if task.kind in ("binary", "regression") else [theirs.labels.index(label) for label in task.labels]
                places.setdefault(name, {})[task.name] = what, [starts.get(task.name, 0) + index for index in order]
                if self.config.teachers[name].live:
                    common, samples = self._common(dataset), self.registry.make_step("core.waveform", kinds=("extractor",))
                    chains[name, "sound"] = Chain((*common, samples), len(common), self.config.extract.dtype)
                else:
                    chains[name, what] = Chain((self.teacher(name, what),))
        return chains, places

    def chains(self, dataset: str) -> dict[str, Chain]:
        return {name: self.chain(dataset, name) for name in self.config.inputs}

    def material(self, name: str) -> Chain:
        """A material's chain, stored whole: its own signal steps, the experiment's up to the first that is random or fitted, samples."""
        own = self._steps(self.config.materials[name].signal, f"materials.{name}.signal", "signal")
        common = self._steps(self.config.signal.steps, "signal.steps", "signal")
        fixed = list(takewhile(lambda step: not (step.random or step.fitted or step.parts), common))
        chain = Chain((*own, *fixed, self.registry.make_step("core.waveform", kinds=("extractor",))))
        if chain.cut < len(chain.steps):
            raise ExperimentError(f"materials.{name}.signal: expected steps that are neither random nor fitted: {chain.reason}")
        return chain

    def similar(self) -> tuple[Chain, float] | None:
        """What gives clips' fingerprints, and the cosine from which on two are alike."""
        value = self.config.split.similar
        if value is None:
            return None
        value = {"use": value} if isinstance(value, str) else dict(value)
        threshold = value.pop("threshold", 0.85)
        if type(threshold) not in (int, float) or not 0 < threshold < 1:
            raise ExperimentError(f"split.similar.threshold: expected a cosine between 0 and 1; found {threshold!r}")
        steps = self._steps(value.pop("signal", ["core.mono"]), "split.similar.signal", "signal")
        alone = value["use"] if set(value) == {"use"} else value  # in Python perhaps a component
        chain = Chain((*steps, self.registry.make_step(alone, path="split.similar", kinds=("extractor",), search=self.folder)))
        if chain.cut < len(chain.steps):
            raise ExperimentError(f"split.similar.signal: expected steps that are neither random nor fitted: {chain.reason}")
        return chain, threshold

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

    def module(self) -> Any:
        """The class of a whole model."""
        return resolve_target(self.config.model.module, search=self.folder)

    def trunks(self) -> tuple[dict[str, Named], dict[str, list[str]]]:
        """Trunks by name, and the inputs that each takes."""
        values = self.config.model.trunks or ({} if self.config.model.module else {"main": self.config.model.trunk})
        made, inputs = {}, {}
        for name, value in values.items():
            path = f"model.trunks.{name}" if self.config.model.trunks else "model.trunk"
            takes = list(self.config.inputs)
            if isinstance(value, Mapping) and "inputs" in value:
                value = dict(value)
                takes = value.pop("inputs")
                check_among(takes, self.config.inputs, f"{path}.inputs")
            made[name], inputs[name] = self.make("trunk", value, path), list(takes)
        return made, inputs

    def task(self, name: str) -> TaskConfig:
        return self.config.tasks.get(name, TaskConfig())

    def training(self, kind: str) -> Named:
        """The run's sampler, balancer or trainer."""
        return self.make(kind, getattr(self.config.train, kind), f"train.{kind}")

    def wiring(self, tasks: Mapping[str, Task], trunks: Mapping[str, Any]) -> dict[str, list[str]]:
        found = {name: self.task(name).trunks or list(trunks) for name in tasks}
        for name, chosen in found.items():
            check_among(chosen, trunks, f"tasks.{name}.trunks")
        return found

    def _serving(self, kind: str, value: Any, task: Task, path: str) -> Named:
        """A head, loss or metric that serves the task."""
        if value is None:
            raise ExperimentError(f"{path}: a task of kind {task.kind} needs one; none is the default")
        one = self.make(kind, value, path)
        if one.component.kinds and task.kind not in one.component.kinds:
            raise ExperimentError(f"{path}: {one.name} serves {', '.join(one.component.kinds)}; the task is {task.kind}")
        return one

    def _of_task(self, kind: str, defaults: Mapping[str, str], tasks: Mapping[str, Task]) -> dict[str, Named]:
        found = {}
        for name, task in tasks.items():
            said = getattr(self.task(name), kind)
            found[name] = self._serving(kind, defaults.get(task.kind) if said is None else said, task, f"tasks.{name}.{kind}")
        return found

    def heads(self, tasks: Mapping[str, Task]) -> dict[str, Named]:
        return self._of_task("head", HEADS, tasks)

    def losses(self, tasks: Mapping[str, Task]) -> dict[str, Named]:
        return self._of_task("loss", LOSSES, tasks)

    def metrics(self, tasks: Mapping[str, Task]) -> dict[str, list[Named]]:
        said = {name: self.task(name).metrics for name in tasks}
        values = {name: METRICS.get(task.kind, []) if said[name] is None else said[name] for name, task in tasks.items()}
        return {name: [self._serving("metric", value, tasks[name], f"tasks.{name}.metrics[{i}]") for i, value in enumerate(some)]
                for name, some in values.items()}

    def weights(self, tasks: Mapping[str, Task]) -> dict[str, float]:
        return {name: self.task(name).weight for name in tasks}

    def optimizer(self) -> dict[str, Any]:
        return self._table(self.config.train.optimizer, "adam")

    def scheduler(self) -> dict[str, Any]:
        return self._table(self.config.train.scheduler, "constant")

    @staticmethod
    def _table(value: Any, default: str) -> dict[str, Any]:
        return {"use": value} if isinstance(value, str) else {"use": default, **value}

    def described(self, datasets: tuple[str, ...], tasks: Mapping[str, Task]) -> dict[str, Any]:
        """The resolved configuration of a run: full names and all parameters, without folders."""
        config, (trunks, takes) = self.config, self.trunks()
        train = config.train
        return {
            "seed": config.seed,
            "split": {**vars(config.split), "similar": (found := self.similar()) and [*map(self._step, found[0].steps), found[1]]},
            "dtype": config.extract.dtype,
            "datasets": {name: {"reader": self.make("reader", config.datasets[name].reader, f"datasets.{name}.reader").described(),
                                "group": config.datasets[name].group, "max_per_label": config.datasets[name].max_per_label}
                         for name in datasets},
            "inputs": {name: {"task": one.task, "steps": [*map(self._step, self.chain(datasets[0], name).steps)]} if one.task else
                       {dataset: [self._step(step) for step in self.chain(dataset, name).steps] for dataset in datasets}
                       for name, one in config.inputs.items()},
            **({"teachers": {name: self.teacher(name).described() | ({"live": True} if one.live else {})
                                for name, one in config.teachers.items()}} if config.teachers else {}),
            **({"materials": {name: {"reader": self.make("reader", one.reader, f"materials.{name}.reader").described(), "group": one.group,
                                     "steps": [self._step(step) for step in self.material(name).steps]}
                              for name, one in config.materials.items()}} if config.materials else {}),
            "model": {"module": config.model.module, "source": source_digest(self.module())} if config.model.module else
                     {name: {**trunk.described(), "inputs": takes[name]} for name, trunk in trunks.items()},
            "tasks": {name: {"kind": task.kind, "labels": task.labels, "weight": self.weights(tasks)[name],
                             "head": self.heads(tasks)[name].described(), "loss": self.losses(tasks)[name].described(),
                             "trunks": None if config.model.module else self.wiring(tasks, trunks)[name],
                             "metrics": [metric.described() for metric in self.metrics(tasks)[name]]} for name, task in tasks.items()},
            "train": {"batch_size": train.batch_size, "accumulate": train.accumulate, "clip": train.clip, "threads": train.threads,
                      "parameters": {pattern: dict(vars(one)) for pattern, one in train.parameters.items()}, "precision": train.precision,
                      "compile": train.compile, "average": train.average,
                      "optimizer": self.optimizer(), "scheduler": self.scheduler(),
                      **{kind: self.training(kind).described() for kind in ("sampler", "balancer", "trainer")}},
            "batch": [self._step(step) for step in self.batch_steps()],
            "evaluation": dict(vars(config.evaluation)),
        }

    @staticmethod
    def _step(step: Step) -> dict[str, Any]:
        return {**step.described(), "id": step.id, "p": step.p, "parts": step.parts, "fit": step.fit}
