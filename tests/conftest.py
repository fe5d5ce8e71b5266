"""Small worlds for the tests: a reader of generated clips, and experiments over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from mtcore.experiment.run import Experiment
from mtcore.plugin import Clip, Event, Lazy, Reader, Task, param
from mtcore.plugin.registry import Registry

RATE = 2000


def tone(number: int, seconds: float):
    """A tone whose height says its class, with noise."""
    rng = np.random.default_rng(number)
    time = np.arange(int(seconds * RATE)) / RATE
    return (np.sin(2 * np.pi * (150 + 200 * (number % 3)) * time) + 0.3 * rng.standard_normal(len(time))).astype(np.float32)[None], RATE


def beeps(number: int, seconds: float):
    """Noise with one beep of a second, at a place that `beep_at` knows."""
    rng = np.random.default_rng(number)
    time = np.arange(int(seconds * RATE)) / RATE
    onset = beep_at(number)
    return (0.1 * rng.standard_normal(len(time)) + ((time >= onset) & (time < onset + 1)) * np.sin(2 * np.pi * 400 * time)
            ).astype(np.float32)[None], RATE


def beep_at(number: int) -> float:
    return 0.25 * (number % 8)


@dataclass(frozen=True, kw_only=True)
class Generated(Reader):
    """Generated clips of three classes: label, size (regression), tags (multi-label), and events in clips of several seconds."""

    generated = True
    default_group = "take"
    clips_: int = param(36, help="number of clips")
    seconds: float = param(0.5, help="length", unit="s")
    chosen: tuple[str, ...] = param(("label",), help="tasks")
    missing: int = param(0, help="every so many-th clip lacks its label; 0: none")
    offset: int = param(0, help="number of the first clip")

    def tasks(self, root):
        known = {"label": Task.multiclass("label", ("low", "middle", "high")), "size": Task.regression("size", "x"),
                 "tags": Task.multilabel("tags", ("low", "odd")), "beep": Task.events("beep", ("beep",))}
        return [known[name] for name in self.chosen]

    def clips(self, root):
        for i in range(self.offset, self.offset + self.clips_):
            targets = {"label": ("low", "middle", "high")[i % 3], "size": 10.0 + i % 3,
                       "tags": {name for name, has in (("low", i % 3 == 0), ("odd", i % 2)) if has},
                       "beep": [Event(beep_at(i), beep_at(i) + 1, "beep")]}
            lacks = self.missing and i % self.missing == 0
            load = beeps if "beep" in self.chosen else tone
            yield Clip(f"c{i}", Lazy(load, (i, self.seconds), key=f"{load.__name__}-{i}-{self.seconds}"),
                       {name: targets[name] for name in self.chosen if not (lacks and name == self.chosen[0])}, {"take": f"g:{i // 2}"})


@pytest.fixture(scope="session")
def registry():
    return Registry()


@pytest.fixture
def generated():
    """The reader's class: importing it from a test module would make a second one."""
    return Generated


@pytest.fixture
def make(tmp_path, registry):
    """Experiments over generated clips: `make(datasets={"a": {…}}, train={…}, …)`; same cache and runs folder within a test."""

    def build(runs="runs", **changes):
        options = {key: changes.pop(key) for key in ("sample", "jobs", "progress") if key in changes}
        content = {"name": "test", "datasets": {"a": {"reader": Generated()}},
                   "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}},
                   "split": {"folds": 3, "validation": 0.2}, "model": {"trunk": {"use": "core.mlp", "hidden": [16]}},
                   "train": {"epochs": 2, "batch_size": 8}, "report": {"reporters": []}} | changes
        return Experiment(content, tmp_path, tmp_path / runs, tmp_path / "cache", registry=registry, **options)

    return build
