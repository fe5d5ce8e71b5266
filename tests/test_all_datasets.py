"""One experiment file over four datasets of three plugins: emotion and stress out of the same recordings, scenes, speakers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile

import mtcore
from mtcore import Experiment
from mtcore.errors import ExperimentError
from mtcore.plugin.registry import resolve_target

FILE = """
name = "all"

[datasets.emotion]
reader = "ravdess.speech"
root = "ravdess"
tasks = ["emotion"]

[datasets.stress]
reader = "ravdess.stress"
root = "ravdess"

[datasets.scenes]
reader = "dcase.scenes2017"
root = "scenes"

[datasets.prompts]
reader = "voiceprompts.prompts"
root = "prompts"
tasks = ["speaker"]
group = "phrase"

[signal]
steps = ["mono", {use = "features.resample", rate = 8000}]

[inputs.summary]
extractor = {use = "features.logbank_summary", filters = 24, frame = 0.03, hop = 0.01}
steps = [{use = "core.standardize", per = "cell", fit = "shared"}]

[split]
folds = 2
validation = 0.2

[model]
trunk = {use = "core.mlp", hidden = [32]}

[train]
epochs = 2
batch_size = 32

[report]
reporters = []

[vary]
datasets = "subsets"
"""
NAMES = ("emotion", "stress", "scenes", "prompts")
TASKS = {"emotion": "emotion", "stress": "stress", "scenes": "scene", "prompts": "speaker"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Miniatures of all datasets, an experiment file beside them."""
    root = tmp_path_factory.mktemp("all")
    for plugin, name in (("ravdess", "ravdess"), ("dcase", "scenes"), ("voiceprompts", "prompts")):
        resolve_target(f"mtcore_{plugin}.example:make")(root / name)
    (root / "all.toml").write_text(FILE, encoding="utf-8")
    return root


def opened(place, **options):
    return Experiment.from_file(place / "all.toml", cache=place / "cache", **options)


@pytest.fixture(scope="module")
def experiment(place):
    return opened(place)


@pytest.fixture(scope="module")
def runs(experiment):
    """All that are planned, by the names of their datasets and fold; the features of all are there."""
    found = {(run.variation.datasets, run.fold): run for run in experiment.runs()}
    experiment.extract(list(found.values()))
    return found


@pytest.fixture(scope="module")
def trained(place, experiment, runs):
    """Two datasets alone and together, and all four, in both folds."""
    some = [runs[names, fold] for names in (("emotion",), ("stress",), ("emotion", "stress"), NAMES) for fold in (0, 1)]
    for run in some:
        run.execute(experiment.progress)
    return some


def parts_of(experiment, name, fold=0):
    return experiment.corpus.parts.folds[fold][name]


def test_every_subset_is_planned_once_per_fold(runs):
    subsets = [some for size in range(1, 5) for some in itertools.combinations(NAMES, size)]
    assert set(runs) == {(some, fold) for some in subsets for fold in (0, 1)} and len(subsets) == 15
    assert all(set(run.tasks) == {TASKS[name] for name in names} for (names, _), run in runs.items())
    assert len({run.folder.path for run in runs.values()}) == 30


def test_given_test_clips_are_tested_in_every_fold(experiment, runs):
    [scenes] = [one for one in experiment.corpus.datasets if one.name == "scenes"]
    given = np.array([clip.parts.get("given") == "test" for clip in scenes.clips])
    assert given.sum() == 9 and len(given) == 45
    for fold in (0, 1):
        assert ((parts_of(experiment, "scenes", fold) == 2) == given).all()
        tested = {scenes.clips[c].id for _, c in runs[("scenes",), fold].data().clips("test")}
        assert tested == {clip.id for clip, held in zip(scenes.clips, given) if held}


def test_clips_of_one_recording_lie_in_one_part_whatever_dataset_they_are_of(experiment):
    by_name = {one.name: one for one in experiment.corpus.datasets}
    for fold in (0, 1):
        parts: dict[str, set[int]] = {}
        for name in ("emotion", "stress"):
            for clip, part in zip(by_name[name].clips, parts_of(experiment, name, fold)):
                parts.setdefault(clip.groups["actor"], set()).add(int(part))
        assert len(parts) == 5 and all(len(some) == 1 for some in parts.values())
        files = [{clip.audio.path for clip in by_name[name].clips} for name in ("emotion", "stress")]
        assert len(files[0] & files[1]) == 15  # fearful and neutral speech
    tested = np.stack([parts_of(experiment, "emotion", fold) == 2 for fold in (0, 1)])
    assert (tested.sum(axis=0) == 1).all()


def test_phrases_lie_in_one_part_and_all_speakers_in_each(experiment):
    [prompts] = [one for one in experiment.corpus.datasets if one.name == "prompts"]
    phrases: dict[str, set[int]] = {}
    for clip, part in zip(prompts.clips, parts_of(experiment, "prompts")):
        phrases.setdefault(clip.groups["phrase"], set()).add(int(part))
    assert all(len(some) == 1 for some in phrases.values())
    for part in (0, 2):
        heard = {clip.targets["speaker"] for clip, code in zip(prompts.clips, parts_of(experiment, "prompts")) if code == part}
        assert heard == set(prompts.tasks["speaker"].labels)


def test_parts_are_the_same_in_every_subset(runs):
    for fold in (0, 1):
        whole = runs[NAMES, fold].data()
        for name in NAMES:
            alone = runs[(name,), fold].data()
            assert (alone.parts[name] == whole.parts[name]).all()


def test_shared_scaling_is_fitted_once_over_the_training_clips_of_all_datasets(runs):
    data = runs[NAMES, 0].data()
    [(key, state)] = data.states.items()
    assert key == ("summary.standardize", "")
    rows = np.stack([one.store.read(one.keys[c]).data for d, c in data.clips("train") for one in [data.input(d, "summary")]])
    assert {d for d, _ in data.clips("train")} == {0, 1, 2, 3} and rows.shape[1:] == (1, 168)
    np.testing.assert_allclose(np.ravel(state["mean"]), rows.mean(0, dtype=np.float64).ravel(), rtol=1e-4, atol=1e-4)
    batch = np.concatenate([data.rows("train").batch(range(len(data.rows("train")))).inputs["summary"].numpy()]).astype(float)
    np.testing.assert_allclose(batch.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(batch.std(0), 1, atol=1e-3)
    [other] = runs[("emotion",), 0].data().states.values()
    assert not np.allclose(other["mean"], state["mean"], rtol=1e-2)


def test_recordings_used_by_two_datasets_are_stored_once_per_stretch(place, experiment, runs):
    [store] = (place / "cache" / "features").iterdir()
    [want] = experiment.wanted(list(runs.values()))
    stretches = {(clip.audio.path, clip.audio.stop) for one in experiment.corpus.datasets for clip in one.clips}
    assert want.store.folder == store and want.missing() == [] and len(want.clips) == len(stretches)


def test_runs_end_and_are_compared(experiment, trained):
    assert {run.folder.info["status"] for run in trained} == {"done"}
    together = trained[-1]
    assert set(together.folder.info["tasks"]) == set(TASKS.values())
    comparison = mtcore.compare([experiment.runs_folder])
    found = [(row["variation"]["datasets"], row["task"]) for row in comparison.rows()]
    assert found == [("emotion", "emotion"), ("stress", "stress"), ("emotion+stress", "emotion"), ("emotion+stress", "stress"),
                     *(("+".join(NAMES), TASKS[name]) for name in NAMES)]
    assert all(row["n"] == 2 and 0 <= row["mean"] <= 1 and row["metric"] == "recall_macro" for row in comparison.rows())
    gained = {(row["variation"]["datasets"], row["task"]) for row in comparison.rows() if row["gain"] is not None}
    assert gained == {(names, task) for names in ("emotion+stress", "+".join(NAMES)) for task in ("emotion", "stress")}
    assert all(name in str(comparison) for name in ("emotion+stress", "+".join(NAMES), *TASKS.values()))


def test_what_is_there_is_not_done_again(place, trained):
    before = {run.name: (run.folder.path / "metrics.jsonl").stat().st_mtime_ns for run in trained}
    again = {run.name: run for run in opened(place).runs() if run.done}
    assert before == {name: (run.folder.path / "metrics.jsonl").stat().st_mtime_ns for name, run in again.items()}


def test_a_new_recording_is_the_only_one_that_is_extracted(place, runs):
    """A further actor, with a name of the layout; the rest stays in the store."""
    folder = place / "ravdess" / "Audio_Speech_Actors_01-24" / "Actor_05"
    folder.mkdir()
    sound = np.random.default_rng(0).standard_normal(48000) * 0.1
    for emotion in (1, 6):
        soundfile.write(folder / f"03-01-{emotion:02}-01-01-01-05.wav", sound + emotion / 100, 48000)
    experiment = opened(place)
    [want] = experiment.wanted(experiment.runs())
    missing = sorted(want.clips[key][0].split("/")[0] for key in want.missing())
    assert missing == ["emotion"] * 2 + ["stress"] * 2


def test_yes_and_no_mean_the_dataset_s_labels_whatever_their_order_in_the_experiment(make):
    from dataclasses import dataclass

    from mtcore.plugin import Clip, Lazy, Reader, Task

    @dataclass(frozen=True, kw_only=True)
    class Speech(Reader):
        generated = True

        def tasks(self, root):
            return [Task.binary("speech", ("silence", "voice")), Task.binary("loud")]

        def clips(self, root):
            for number in range(12):
                yield Clip(f"c{number}", Lazy(len, ()), {"speech": number % 2 == 1, "loud": False})

    experiment = make(datasets={"a": {"reader": Speech()}}, tasks={"speech": {"labels": ["voice", "silence"]}})
    clips = experiment.corpus.datasets[0].clips
    assert [clip.targets["speech"] for clip in clips[:2]] == ["silence", "voice"]
    with pytest.raises(ExperimentError, match="datasets.a.tasks: two tasks are called 'loud'"):
        make(datasets={"a": {"reader": Speech(), "tasks": {"speech": {"as": "loud"}, "loud": {}}}}).tasks


def test_the_same_samples_in_another_format_are_split_as_one(make, tmp_path):
    """A copy as FLAC beside the WAV: other bytes, one recording."""
    for number in range(12):
        samples = np.random.default_rng(number).integers(-3000, 3000, 2000).astype(np.int16)
        for folder, ending in (("a", "wav"), ("b", "flac")):
            path = tmp_path / folder / "xy"[number % 2] / f"{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, 8000, subtype="PCM_16")
    datasets = {name: {"reader": "core.folders", "root": str(tmp_path / name)} for name in "ab"}
    parts = {identical: make(datasets=datasets, split={"folds": 3, "validation": 0.2, "identical": identical}).corpus.parts.folds
             for identical in ("bytes", "samples")}
    assert all((fold["a"] == fold["b"]).all() for fold in parts["samples"])
    assert any((fold["a"] != fold["b"]).any() for fold in parts["bytes"])
