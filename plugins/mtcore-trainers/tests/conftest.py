"""Experiments over generated sounds, and a cut in place of a kill."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

import mtcore
from mtcore.cli import main
from mtcore.plugin import Clip, Event, Lazy, Reader, Task, param
from mtcore.training.gradient import GradientRun, load_checkpoint


class Cut(Exception):
    """In place of a kill."""


def tone(number, seconds):
    time = np.arange(int(seconds * 2000)) / 2000
    noise = 0.3 * np.random.default_rng(number).standard_normal(len(time))
    return (np.sin(2 * np.pi * (150, 300, 600)[number % 3] * time) + noise).astype(np.float32)[None], 2000.0


@dataclass(frozen=True, kw_only=True)
class Sounds(Reader):
    """A clip's number says all of its targets; `missing`: every so many-th clip lacks the first task."""

    generated = True
    default_group = "take"
    clips_: int = param(40, help="number of clips")
    chosen: tuple[str, ...] = param(("label", "size"), help="tasks")
    missing: int = param(0, help="every so many-th")
    offset: int = param(0, help="first number")
    longer: float = param(0.0, help="seconds more for every other clip")

    def tasks(self, root):
        known = {"label": Task.multiclass("label", ("low", "middle", "high")), "size": Task.regression("size", "x"),
                 "odd": Task.binary("odd"), "always": Task.binary("always"), "tags": Task.multilabel("tags", ("low", "high")),
                 "beep": Task.events("beep", ("beep",))}
        return [known[name] for name in self.chosen]

    def clips(self, root):
        for i in range(self.offset, self.offset + self.clips_):
            targets = {"label": ("low", "middle", "high")[i % 3], "size": 10.0 + i % 3, "odd": i % 2 == 1, "always": True,
                       "tags": {name for name, has in (("low", i % 3 == 0), ("high", i % 3 == 2)) if has},
                       "beep": [Event(0.1, 0.2, "beep")]}
            seconds = 0.2 + self.longer * (i % 2)
            lacks = self.missing and i % self.missing == 0
            yield Clip(f"c{i}", Lazy(tone, (i, seconds), key=f"tone-{i}-{seconds}"),
                       {name: targets[name] for name in self.chosen if not (lacks and name == self.chosen[0])},
                       {"take": f"g:{i // 2}"})


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make(tmp_path, cache):
    """`make(trainer, readers={"a": {…}}, train={…}, runs="runs", …)`"""

    def build(trainer, readers=None, train=None, runs="runs", **changes):
        datasets = {name: {"reader": Sounds(**options)} for name, options in (readers or {"a": {}}).items()}
        content = {"name": "t", "datasets": datasets, "split": {"folds": 1, "validation": 0.2},
                   "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}},
                   "model": {"trunk": {"use": "core.mlp", "hidden": [8], "dropout": 0.2}},
                   "train": {"epochs": 3, "batch_size": 4, "trainer": trainer, **(train or {})},
                   "report": {"reporters": []}} | changes
        content["train"] = {key: value for key, value in content["train"].items() if value is not None}
        return mtcore.Experiment(content, tmp_path, tmp_path / runs, cache)

    return build


class Recorded:
    """A run over files, moved away from what it was made with: `path`; `found`, what it said of its test part; its `log`."""

    def __init__(self, root, cache, trainer):
        sounds = root / "sounds"
        sounds.mkdir()
        lines = ["path,group,label,odd,tags,size"]
        for i in range(40):
            samples, rate = tone(i, 0.2 + 0.1 * (i % 2))
            soundfile.write(sounds / f"{i}.wav", samples.T, int(rate), subtype="FLOAT")
            size = "" if i % 5 == 0 else str(10 + i % 3 + i / 100)
            label, odd, tags = ("low", "middle", "high")[i % 3], ("no", "yes")[i % 2], (";", "a", "a;b")[i % 3]
            lines.append(f"{i}.wav,{i // 2},{label},{odd},{tags},{size}")
        (sounds / "index.csv").write_text("\n".join(lines))
        self.root, self.cache = root, cache
        self.content = {"datasets": {"a": {"reader": {"use": "core.csv", "kinds": {"odd": "binary"}}, "root": str(sounds)}},
                        "split": {"folds": 1, "validation": 0.2}, "report": {"reporters": []}, "train": {"epochs": 1},
                        "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}},
                        "model": {"trunk": {"use": "core.cnn", "channels": [4]}}}
        run, = self.beside(name="t", train={"trainer": trainer}).run()
        self.found, self.log = run.folder.load_predictions("best")["test"], (run.folder.path / "run.log").read_text()
        self.path = root / "moved"
        run.folder.path.rename(self.path)

    def beside(self, **changes):
        return mtcore.Experiment({**self.content, "name": "other", **changes}, self.root, self.root / "runs", self.cache)

    def predict(self, *options):
        files = [str(self.root / "sounds" / clip[2:]) for clip in self.found["label"].clips]
        return CliRunner().invoke(main, ["predict", str(self.path), *files, *options])

    def agrees(self, *options):
        result = self.predict("--json", *options)
        assert result.exit_code == 0, result.output
        said = {Path(path).name: tasks for path, tasks in json.loads(result.output).items()}
        for task, one in self.found.items():
            for clip, scores, decided in zip(one.clips, one.scores, one.decided):
                told = said[clip[2:]][task]
                if task == "size":
                    assert told["decision"] == pytest.approx(float(decided), rel=1e-6)
                    continue
                p = [1 - scores, scores] if task == "odd" else scores
                assert np.allclose(list(told["scores"].values()), p, atol=1e-6)
                labels = np.array(one.task.labels)
                assert told["decision"] == (labels[decided.astype(bool)].tolist() if task == "tags" else labels[decided])


@pytest.fixture
def recorded(tmp_path, cache):
    return lambda trainer: Recorded(tmp_path, cache, trainer)


@pytest.fixture
def cut(monkeypatch):
    """`cut(n)`: the n-th update from now on does not happen; `cut(None)`: all do."""
    whole, left = GradientRun.one_update, [None]

    def one_update(self, micro, total):
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Cut
        whole(self, micro, total)

    monkeypatch.setattr(GradientRun, "one_update", one_update)
    return lambda number: left.__setitem__(0, number)


@pytest.fixture
def seen(monkeypatch):
    """What each update got: a list of (run, epoch, batches)."""
    whole, found = GradientRun.one_update, []

    def one_update(self, micro, total):
        found.append((self, self.epoch, list(micro)))
        whole(self, micro, total)

    monkeypatch.setattr(GradientRun, "one_update", one_update)
    return found


def told(run):
    states = [load_checkpoint(run.folder.checkpoint(name)) for name in ("best", "last")]
    return (run.folder.path / "metrics.jsonl").read_text(), [[state["model"], state["optimizer"]] for state in states]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.fixture
def continues(make, cut):
    """`continues(trainer, cuts, …)`: cut off so many updates after each start, it ends with the bits of an uninterrupted run."""

    def check(trainer, cuts=(1, 3, 6), train=None, **content):
        train = {"save": {"updates": 1}} | (train or {})
        whole, = make(trainer, train=train, runs="whole", **content).run()
        for number in cuts:
            cut(number)
            with pytest.raises(Cut):
                make(trainer, train=train, runs="cut", **content).run()
        cut(None)
        continued, = make(trainer, train=train, runs="cut", **content).run()
        assert continued.name == whole.name and same(told(continued), told(whole))
        assert (continued.folder.path / "run.log").read_text().count("continued after") == len(cuts)
        return whole

    return check
