"""Materials: datasets that steps mix in, split like any; and datasets that are used in some parts only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from mtcore.errors import ExperimentError
from mtcore.plugin import Clip, Lazy, Preparer, Reader, param

RATE = 2000


def level(number: int, rate: int = RATE):
    return np.full((1, 500), float(number), np.float32), rate


@dataclass(frozen=True, kw_only=True)
class Levels(Reader):
    """Clip i is the constant i: what was drawn can be read off."""

    generated = True
    count: int = param(12, help="clips")
    rate: int = param(RATE, help="Hz")

    def tasks(self, root):
        return []

    def clips(self, root):
        for number in range(1, self.count + 1):
            yield Clip(f"l{number}", Lazy(level, (number, self.rate), key=f"level-{number}-{self.rate}"), {}, {"place": f"l:{number // 2}"})


@dataclass(frozen=True, kw_only=True)
class Add(Preparer):
    """Adds 1000 times the first sample of what it draws."""

    random = True
    material: str = param("noise", help="which")

    def prepare(self, context):
        return context.then(lambda x, state, rng: x + 1000 * context.materials[self.material].draw(rng)[0, 0])


def drawn(rows):
    """Numbers of the material's clips in all rows of an epoch, 0 where there is none."""
    return {round(float(x.mean()) / 1000) for x in rows.batch(range(len(rows))).inputs["main"]}


@pytest.fixture
def mixing(make):
    def build(steps=(Add(),), materials=None, **changes):
        return make(materials={"noise": {"reader": Levels(), "group": "place"}} if materials is None else materials,
                    signal={"steps": list(steps)}, inputs={"main": {"extractor": "core.waveform"}}, **changes)
    return build


def test_each_part_draws_from_the_material_s_own_part(mixing):
    experiment = mixing()
    experiment.extract()
    for run in experiment.runs():
        parts = dict(zip(range(1, 13), experiment.corpus.parts.folds[run.fold]["noise"]))
        assert set(parts.values()) == {0, 1, 2} and all(parts[n] == parts[n + 1] for n in range(2, 12, 2))
        rows, seen = run.data().rows("train"), set()
        for epoch in range(6):
            rows.epoch = epoch
            seen |= drawn(rows)
        assert seen == {number for number, part in parts.items() if part == 0}
        assert drawn(run.data().rows("test")) == {0}


def test_check_tries_the_material_and_stores_nothing(mixing, tmp_path):
    assert any("first losses" in line for line in mixing().check())
    assert not (tmp_path / "cache" / "features").exists()


def test_the_material_is_stored_once_and_goes_through_the_signal_steps(mixing, tmp_path):
    experiment = mixing(steps=["core.mono", Add()], train={"epochs": 1, "batch_size": 8})
    experiment.run()
    stored = [want for want in experiment.wanted(experiment.runs()) if any(name.startswith("noise/") for name, _ in want.clips.values())]
    assert [[step.id for step in want.chain.steps] for want in stored] == [["mono", "waveform"]]
    assert not any(want.missing() for want in experiment.wanted(experiment.runs()))


def test_identical_audio_is_split_as_one(mixing, generated):
    """The noise is made of the dataset's own recordings: none that is tested may be mixed into training."""
    experiment = mixing(materials={"noise": {"reader": generated()}})
    for parts in experiment.corpus.parts.folds:
        assert parts["noise"].tolist() == parts["a"].tolist()


def test_what_the_material_is_belongs_to_the_run(mixing):
    names = {mixing().runs()[0].name, mixing(materials={"noise": {"reader": Levels(count=8)}}).runs()[0].name,
             mixing(materials={}, steps=["core.mono"]).runs()[0].name}
    assert len(names) == 3


@pytest.mark.parametrize("change, message", [
    ({"materials": {"noise": {"reader": Levels(rate=4000)}}}, "material noise has the rate 4000.0 Hz, the clips have 2000.0 Hz here; put resample"),
    ({"materials": {"a": {"reader": Levels()}}}, "materials.a: a dataset has this name too"),
    ({"materials": {"noise": {"reader": Levels(), "group": "site"}}}, "materials.noise.group: .* gives the groups place; found 'site'"),
    ({"materials": {"noise": {"reader": Levels(), "signal": [Add()]}}}, "materials.noise.signal: expected steps that are neither random"),
    ({"vary": {"materials.noise.reader": [Levels()]}}, "vary.materials.noise.reader: data is read and parts are drawn once"),
    ({"materials": {"noise": {"reader": Levels(count=1)}}}, "material noise has no clip in the train part|expected|too few"),
])
def test_what_is_refused(mixing, change, message):
    with pytest.raises(ExperimentError, match=message):
        mixing(**change).check()


def test_a_dataset_for_training_only(make, generated):
    """All its clips are trained on, in every fold; the others' folds are drawn as ever."""
    both = {"a": {"reader": generated()}, "b": {"reader": generated(offset=100), "parts": ["train"]}}
    experiment = make(datasets=both)
    for parts in experiment.corpus.parts.folds:
        assert set(parts["b"].tolist()) == {0} and set(parts["a"].tolist()) == {0, 1, 2}


def test_a_dataset_left_out_of_validation(make, generated):
    experiment = make(datasets={"a": {"reader": generated()}, "b": {"reader": generated(offset=100), "parts": ["train", "test"]}})
    experiment.extract()
    run = experiment.runs()[0]
    assert {dataset for dataset, _ in experiment._data(run).clips("validation")} == {0}


@pytest.mark.parametrize("parts, message", [([], "datasets.a.parts: expected at least one"),
    (["tain"], r"datasets.a.parts\[0\]: invalid enum value 'tain'")])
def test_parts_that_are_none(make, generated, parts, message):
    with pytest.raises(ExperimentError, match=message):
        make(datasets={"a": {"reader": generated(), "parts": parts}})
