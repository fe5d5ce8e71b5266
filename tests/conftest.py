"""Small worlds for the tests: a reader of generated clips, and experiments over it."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mtcore import Experiment
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


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """`birds(changes)` installs the plugin of the folder `birds`, which keeps all rules, below a folder of sys.path, changed:
    {file: [(what, by what it is replaced)]}. `only` leaves out all components but these: "energy|gain"."""
    for variable in ("MTCORE_BLOCK", "MTCORE_PLUGINS", "MTCORE_STRICT_PLUGINS"):
        monkeypatch.delenv(variable, raising=False)

    def write(changes=None, only=""):
        site = tmp_path / "site"
        info = site / "mtcore_birds-0.1.0.dist-info"
        info.mkdir(parents=True)
        (site / "birds_kit").mkdir()
        for file in sorted((Path(__file__).parent / "birds").iterdir()):
            name, text = file.name.removesuffix(".py"), file.read_text()
            if only and name == "hooks":
                text = re.sub(rf"    yield (?!.*\"({only})\").*", "    yield from ()", text)
            for old, new in (changes or {}).get(name, ()):
                assert old in text, old
                text = text.replace(old, new)
            (info / name if name in ("METADATA", "entry_points.txt") else site / "birds_kit" / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()

    yield write
    for name in [name for name in sys.modules if name.split(".")[0] == "birds_kit"]:
        del sys.modules[name]
