"""Experiments through the public door: what runs, what continues, what is redone."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mtcore import Experiment
from mtcore.errors import DataError, ExperimentError, TrainingError
from mtcore.plugin import Clip, File
from mtcore.progress import Progress

HERE = Path(__file__).parent


class Stop(Progress):
    """Raises after so many lines of `track` with a label that holds a text."""

    def __init__(self, text: str, after: int):
        self.text, self.after = text, after

    def track(self, items, total, label):
        for item in items:
            yield item
            if self.text in label:
                self.after -= 1
                if self.after <= 0:
                    raise KeyboardInterrupt


def weights(run, name="last"):
    return torch.load(run.folder.checkpoint(name), weights_only=True)["model"]


def figures(run):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in run.folder.metrics()]


def test_the_same_file_gives_the_same_bits_and_a_second_call_does_nothing(make):
    one, two = make(runs="one").run(), make(runs="two").run()
    for a, b in zip(one, two):
        assert a.folder.path.name == b.folder.path.name
        assert all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values()))
        assert figures(a) == figures(b)
    before = {run.name: run.folder.checkpoint("last").stat().st_mtime_ns for run in one}
    again = make(runs="one").run()
    assert before == {run.name: run.folder.checkpoint("last").stat().st_mtime_ns for run in again}


@pytest.mark.parametrize("after", [1, 4, 5])
def test_interrupted_training_continues_to_the_same_bits(make, after):
    changes = {"split": {"folds": 1, "validation": 0.2}, "train": {"epochs": 3, "batch_size": 8, "scheduler": {"use": "cosine"}},
               "model": {"trunk": {"use": "core.mlp", "hidden": [16], "dropout": 0.2}}}
    [whole] = make(runs="whole", **changes).run()
    with pytest.raises(KeyboardInterrupt):
        make(runs="cut", **changes, progress=Stop("epoch", after)).run()
    [run] = make(runs="cut", **changes).runs()
    assert run.folder.info["status"] == "interrupted"
    [run] = make(runs="cut", **changes).run()
    assert run.folder.info["status"] == "done"
    assert all(torch.equal(x, y) for x, y in zip(weights(whole).values(), weights(run).values()))
    assert figures(whole) == figures(run)


def test_more_epochs_continue_the_run_unless_the_schedule_depends_on_them(make):
    short = {"split": {"folds": 1}, "train": {"epochs": 1, "batch_size": 8}}
    long = {"split": {"folds": 1}, "train": {"epochs": 3, "batch_size": 8}}
    [a], [b] = make(**short).run(), make(**long).run()
    assert a.folder.path == b.folder.path
    [fresh] = make(runs="fresh", **long).run()
    assert figures(b) == figures(fresh)
    short["train"] |= {"scheduler": "cosine"}
    long["train"] |= {"scheduler": "cosine"}
    assert make(**short).runs()[0].folder.path != make(**long).runs()[0].folder.path


def test_no_feature_is_computed_twice_and_a_changed_parameter_is_another_store(make, tmp_path):
    make(split={"folds": 1}).run()
    stores = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "features").rglob("shard-*")}
    make(split={"folds": 1}, train={"epochs": 1, "batch_size": 4}).run()
    assert stores == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "features").rglob("shard-*")}
    make(split={"folds": 1}, inputs={"main": {"extractor": {"use": "core.spectrogram", "hop": 0.02}}}).extract()
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2


def test_fitted_state_belongs_to_a_fold_and_comes_from_its_training_part(make):
    import numpy as np

    runs = make().run()
    means = []
    for run in runs:
        data = run.data()
        one = data.inputs["a"]["main"]
        arrays = [one.store.read(one.keys[c]).data for _, c in data.clips("train")]
        [state] = data.states.values()
        expected = np.concatenate(arrays, -1).mean(-1)
        np.testing.assert_allclose(np.ravel(state["mean"]), expected.ravel(), rtol=1e-4, atol=1e-5)
        means.append(np.ravel(state["mean"]))
        saved = run.folder.load_state()
        assert all(np.array_equal(value, np.asarray(next(iter(saved.values()))[key])) for key, value in state.items())
    assert not np.allclose(means[0], means[1])


def test_groups_lie_in_one_part_and_every_clip_is_tested_once(make):
    experiment = make()
    experiment.extract()
    tested = {}
    for run in experiment.runs():
        data = run.data()
        parts = {}
        for part in ("train", "validation", "test"):
            for d, c in data.clips(part):
                clip = data.datasets[d].clips[c]
                assert parts.setdefault(clip.groups["take"], part) == part
                tested[clip.id] = tested.get(clip.id, 0) + (part == "test")
    assert set(tested.values()) == {1}


def test_many_tasks_in_many_datasets(make, generated):
    experiment = make(datasets={"a": {"reader": generated(chosen=("label", "size"))},
                                "b": {"reader": generated(chosen=("label", "tags"), offset=100)}},
                      split={"folds": 1}, vary={"datasets": "subsets", "tasks": ["singles", "all"]})
    names = {run.variation.name for run in experiment.runs()}
    assert {"a_label", "a_size", "b_label", "b_tags", "a+b_label+size+tags"} <= names
    runs = {run.variation.name: run for run in experiment.run()}
    run = runs["a+b_label+size+tags"]
    rows = run.data().rows("train")
    batch = rows.batch([0, 1, 2, len(rows) - 1, len(rows) - 2, 3])
    for name in ("label", "size", "tags"):
        assert len(torch.arange(len(batch.clips))[batch.rows[name]]) == len(batch.targets[name])
    assert set(run.folder.info["tasks"]) == {"label", "size", "tags"}


def test_label_limits_act_on_training_only(make):
    one = make(datasets={"a": {"reader": make().config.datasets["a"].reader, "max_per_label": {"label": {"low": 2}}}}, split={"folds": 1})
    data, free = one.runs()[0], make(split={"folds": 1}).runs()[0]
    one.extract()
    count = lambda run, part: sum(run.data().datasets[d].clips[c].targets["label"] == "low" for d, c in run.data().clips(part))
    assert count(data, "train") == 2
    assert count(data, "test") == count(free, "test")


def test_a_loss_that_is_not_finite_names_task_and_clips(make):
    changes = {"split": {"folds": 1}, "train": {"epochs": 2, "batch_size": 8, "optimizer": {"use": "sgd", "lr": 1e30}}}
    with pytest.raises(TrainingError, match="task label is not finite.*a/c"):
        make(**changes).run()


def test_bad_audio_is_listed_at_once_and_skipped_only_if_allowed(make, tmp_path, registry):
    import numpy as np
    import soundfile

    root = tmp_path / "sounds"
    for label in ("one", "two"):
        (root / label).mkdir(parents=True)
        for i in range(8):
            soundfile.write(root / label / f"{i}.wav", np.random.default_rng(i).standard_normal(4000) * 0.1, 8000)
    (root / "one" / "text.wav").write_text("no sound at all")
    soundfile.write(root / "two" / "empty.wav", np.zeros(0), 8000)
    data = {"a": {"reader": "core.folders", "root": str(root)}}
    with pytest.raises(DataError) as caught:
        make(datasets=data, split={"folds": 1}).run()
    assert "2 clips" in str(caught.value) and "text.wav" in str(caught.value) and "empty.wav" in str(caught.value)
    [run] = make(datasets=data, split={"folds": 1}, extract={"on_error": "skip"}).run()
    assert "text.wav" in (run.folder.path / "run.log").read_text() and run.folder.info["status"] == "done"


def test_a_task_fixed_by_its_group_is_an_error_when_named(make, generated):
    class Fixed(generated):
        def clips(self, root):
            for clip in super().clips(root):
                yield Clip(clip.id, clip.audio, clip.targets, {"take": clip.targets["label"], "other": clip.groups["take"]})

    with pytest.raises(ExperimentError, match="task label lies in one group.*take.*other"):
        make(datasets={"a": {"reader": Fixed(), "tasks": ["label"]}}).corpus  # noqa: B018
    found = make(datasets={"a": {"reader": Fixed(chosen=("label", "size"))}}).corpus
    assert list(found.tasks) == ["size"] and any("label left out" in line for line in found.notes)


def test_two_tasks_of_one_name_need_one_list_of_labels(make, generated):
    from mtcore.plugin import Task

    class Other(generated):
        def tasks(self, root):
            return [Task.multiclass("label", ("low", "middle", "high", "more"))]

    datasets = {"a": {"reader": generated()}, "b": {"reader": Other(offset=100)}}
    with pytest.raises(ExperimentError, match="low, middle, high; dataset b: low, middle, high, more"):
        make(datasets=datasets).corpus  # noqa: B018
    listed = make(datasets=datasets, tasks={"label": {"labels": ["more", "high", "middle", "low"]}}).corpus
    assert listed.tasks["label"].labels == ("more", "high", "middle", "low")


def test_mapping_merges_and_removes_labels(make, generated):
    use = {"label": {"as": "height", "labels": {"low": "deep", "middle": "deep", "high": ""}}}
    corpus = make(datasets={"a": {"reader": generated(), "tasks": use}}).corpus
    assert corpus.tasks["height"].labels == ("deep",)
    assert {clip.targets["height"] for clip in corpus.datasets[0].clips} == {"deep"} and len(corpus.datasets[0].clips) == 24
    assert any("12 targets of task height removed" in line for line in corpus.notes)


def test_early_stopping_and_the_best_checkpoint_look_at_validation(make):
    changes = {"split": {"folds": 1, "validation": 0.2},
               "train": {"epochs": 30, "batch_size": 8, "stop": {"on": "label.recall_macro", "patience": 2},
               "optimizer": {"use": "adam", "lr": 1e-2}}}
    [run] = make(**changes).run()
    info = run.folder.info
    scores = {line["epoch"]: line["value"] for line in run.folder.metrics()
              if line["part"] == "validation" and line["metric"] == "recall_macro"}
    assert info["epoch"] < 30 and info["epoch"] == info["best_epoch"] + 2
    assert scores[info["best_epoch"]] == max(scores.values())
    assert torch.load(run.folder.checkpoint("best"), weights_only=True)["epoch"] == info["best_epoch"]


def test_a_watched_figure_that_is_better_when_lower_keeps_its_lowest_epoch(make, generated):
    changes = {"datasets": {"a": {"reader": generated(chosen=("size",))}}, "split": {"folds": 1, "validation": 0.2},
               "train": {"epochs": 6, "batch_size": 8, "stop": {"on": "size.rmse"}, "optimizer": {"use": "adam", "lr": 1e-2}}}
    [run] = make(**changes).run()
    scores = {line["epoch"]: line["value"] for line in run.folder.metrics() if line["part"] == "validation" and line["metric"] == "rmse"}
    assert scores[run.folder.info["best_epoch"]] == min(scores.values()) < max(scores.values())


def test_the_best_checkpoint_by_the_mean_of_several_figures(make, generated):
    """Of "size.rmse" the lower one is better. A run without the task "size" goes by what is left."""
    changes = {"datasets": {"a": {"reader": generated(chosen=("label", "size"))}}, "split": {"folds": 1, "validation": 0.2},
               "vary": {"tasks": [["label", "size"], ["label"]]},
               "train": {"epochs": 6, "batch_size": 8, "stop": {"on": ["label.recall_macro", "size.rmse"]}, "optimizer": {"use": "adam", "lr": 1e-2}}}
    both, label = make(**changes).run()
    for run in (both, label):
        of = {(line["task"], line["metric"], line["epoch"]): line["value"] for line in run.folder.metrics("validation")}
        scores = {epoch: (of["label", "recall_macro", epoch] - of.get(("size", "rmse", epoch), 0.0)) for epoch in range(1, 7)}
        assert scores[run.folder.info["best_epoch"]] == max(scores.values())
    assert of.keys() < {(line["task"], line["metric"], line["epoch"]) for line in both.folder.metrics("validation")}


def test_seeds_vary_and_the_parts_stay(make):
    one, other = make(split={"folds": 1}, vary={"seed": [1, 2]}).runs()
    assert one.folder.path != other.folder.path
    assert one.builder.described(("a",), one.tasks)["split"] == other.builder.described(("a",), other.tasks)["split"]


def test_what_is_in_every_variation_needs_no_default(make):
    trunks = [{"use": "core.mlp", "hidden": [8], "as": "small"}, {"use": "core.mlp", "hidden": [32], "as": "large"}]
    inputs = [{"extractor": "core.spectrogram", "steps": ["core.standardize"], "as": "plain"}]
    varied = make(split={"folds": 1}, model={}, inputs={}, vary={"model.trunk": trunks, "inputs.main": inputs})
    assert [run.variation.name for run in varied.runs()] == ["small_plain", "large_plain"] and varied.check()
    with pytest.raises(ExperimentError, match="^inputs: expected at least one"):
        make(inputs={}, vary={"model.trunk": trunks})
    with pytest.raises(ExperimentError, match="^model: expected a trunk"):
        make(model={}, vary={"seed": [1, 2]})
    with pytest.raises(ExperimentError, match="model: expected a trunk"):
        make(model={}, vary={"model.module": ["", "x"]}).runs()


def test_a_default_that_is_written_out_is_the_same_run(make):
    short = make(split={"folds": 1}, train={"epochs": 1, "stop": {"patience": 2}})
    long = make(split={"folds": 1, "repeats": 1, "test": 0.2}, train={"epochs": 1, "stop": {"patience": 2, "on": "loss"}},
                evaluation={"windows": "clip"})
    assert [run.name for run in short.runs()] == [run.name for run in long.runs()]


@pytest.mark.parametrize("key", ["split.folds", "datasets.a.group", "datasets.a.root", "datasets.a.reader", "datasets.a.reader.chosen",
                                 "datasets.a.tasks", "tasks.label.labels"])
def test_what_bears_on_the_parts_does_not_vary(make, key):
    with pytest.raises(ExperimentError, match=key):
        make(vary={key: [1, 2]})


def test_an_optimizer_without_a_name_is_the_default_one(make):
    [run] = make(split={"folds": 1}, train={"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.1}, "scheduler": {"warmup": 2}}).runs()
    assert run.builder.optimizer() == {"use": "adam", "lr": 0.1} and run.builder.scheduler() == {"use": "constant", "warmup": 2}


def test_updates_instead_of_epochs_and_a_sample(make):
    [run] = make(split={"folds": 1}, train={"updates": 7, "batch_size": 8}).run()
    assert max(line["update"] for line in run.folder.metrics()) == 7
    [small] = make(split={"folds": 1}, sample=5).run()
    assert small.folder.info["clips"]["train"] == 5 and small.folder.path != run.folder.path


def test_a_file_says_its_stretch():
    assert str(File("x.wav", 1.0, 2.5)) == "x.wav [1 s to 2.5 s]"


def test_interrupted_extraction_keeps_its_shards_and_redoes_no_row(make, generated, tmp_path):
    changes = {"datasets": {"a": {"reader": generated(clips_=200, seconds=0.1)}}, "split": {"folds": 1},
               "train": {"epochs": 1, "batch_size": 32}}
    with pytest.raises(KeyboardInterrupt):
        make(**changes, progress=Stop("extracting", 2)).extract()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("shard-*")}
    assert 2 * 2 <= len(kept) < 2 * 4  # npy and parquet; 200 clips are four shards
    whole = make(**changes)
    whole.extract()
    found = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("shard-*")}
    assert len(found) == 2 * 4 and kept.items() <= found.items()
    [want] = whole.wanted(whole.runs())
    assert not want.missing() and len(want.store.rows) == 200


def test_fewer_epochs_or_another_stop_rule_train_anew(make):
    rules = {"split": {"folds": 1, "validation": 0.2}}
    long = {"epochs": 4, "batch_size": 8}
    for changed in ({"epochs": 2}, {"stop": {"on": "label.accuracy"}}, {"epochs": None, "updates": 5}):
        train = {key: value for key, value in (long | changed).items() if value is not None}
        make(runs="same", **rules, train=long).run()
        [run] = make(runs="same", **rules, train=train).run()
        [fresh] = make(runs="fresh", **rules, train=train).run()
        assert figures(run) == figures(fresh) and run.folder.info["best_epoch"] == fresh.folder.info["best_epoch"]
        assert all(torch.equal(x, y) for x, y in zip(weights(run).values(), weights(fresh).values()))


def test_a_component_by_path_is_known_by_its_source(make, tmp_path):

    stored = []
    for value in (1.0, 20.0):  # of two lengths: within a second Python tells compiled files by their size only
        (tmp_path / "mine.py").write_text(f"""
from dataclasses import dataclass
import numpy as np
from mtcore.plugin import Extractor

@dataclass(frozen=True, kw_only=True)
class Constant(Extractor):
    def prepare(self, rate):
        return lambda x: np.full((1, 4), {value}, np.float32)

    def axis(self, rate):
        return None
""")
        sys.modules.pop("mine", None)
        import linecache

        linecache.clearcache()
        experiment = make(inputs={"main": {"extractor": "mine:Constant"}}, split={"folds": 1})
        experiment.extract()
        stored.append(float(experiment.runs()[0].data().rows("train").batch([0]).inputs["main"].mean()))
    assert stored == [1.0, 20.0]


def test_a_task_left_out_of_one_dataset_is_not_trained_there(make, generated):
    corpus = make(datasets={"a": {"reader": generated(clips_=3, chosen=("label", "size"))},
                            "b": {"reader": generated(offset=100, chosen=("label", "size"))}}, split={"folds": 2, "validation": 0.0})
    corpus.extract()
    data = corpus.runs()[0].data()
    assert "label" not in data.datasets[0].tasks and all("label" not in targets for targets in data.encoded["a"])
    assert all("label" in targets for targets in data.encoded["b"])


def test_a_step_for_one_part_does_not_act_where_another_is_fitted(make):
    import numpy as np

    steps = [{"use": "core.crop_or_pad", "length": 3, "parts": ["test"]}, "core.standardize"]
    found = []
    for chosen in (steps, steps[1:]):
        experiment = make(inputs={"main": {"extractor": "core.spectrogram", "steps": chosen}}, split={"folds": 1})
        experiment.extract()
        data = experiment.runs()[0].data()
        found.append(next(iter(data.states.values()))["mean"])
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_cut_short_is_named(make):
    changes = {"split": {"folds": 1}}
    [run] = make(**changes, train={"epochs": 1, "batch_size": 8}).run()
    path = run.folder.checkpoint("last")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="last.pt: expected a checkpoint"):
        make(**changes, train={"epochs": 2, "batch_size": 8}).run()


def test_a_dataset_may_have_its_own_chain(make):
    """Each dataset's rows come from its own extractor and steps; what it does not say is the input's."""
    content = {"datasets": {name: {"reader": {"use": "core.tones", "count": 12}, **more} for name, more in {
        "a": {}, "b": {"inputs": {"main": {"extractor": {"use": "core.spectrogram", "scale": "power"}, "signal": ["mono"]}}}}.items()},
        "inputs": {"main": {"extractor": "core.spectrogram", "steps": []}}, "split": {"folds": 2, "validation": 0.0}}
    chains = {name: [step["use"] for step in steps] for name, steps in
              make(**content).runs()[0].builder.described(("a", "b"), make(**content).tasks)["inputs"]["main"].items()}
    assert chains == {"a": ["core.spectrogram"], "b": ["core.mono", "core.spectrogram"]}
    experiment = make(**content)
    experiment.extract()
    data = experiment.runs()[0].data()
    rows = data.rows("train")
    batch = rows.batch(range(len(rows)))
    lowest = {name: min(float(x.min()) for x, clip in zip(batch.inputs["main"], batch.clips) if clip.startswith(name)) for name in "ab"}
    assert lowest["a"] < -10 and lowest["b"] >= 0


def test_a_dataset_s_own_chain_needs_an_input_that_exists(make):
    with pytest.raises(ExperimentError, match="datasets.a.inputs.mian: expected one of the inputs main"):
        make(datasets={"a": {"reader": "core.tones", "inputs": {"mian": {"steps": []}}}})


def test_repeats_draw_all_folds_anew(make):
    once, twice = (make(split={"folds": 3, "repeats": repeats}).corpus.parts.folds for repeats in (1, 2))
    assert len(twice) == 6 and all((a["a"] == b["a"]).all() for a, b in zip(once, twice))
    assert any((a["a"] != b["a"]).any() for a, b in zip(once, twice[3:]))
    assert sorted({int(clip) for fold in twice[3:] for clip in (fold["a"] == 2).nonzero()[0]}) == list(range(len(once[0]["a"])))


def test_workers_change_nothing_but_time(make):
    """Batches prepared by other processes give the same figures; the number of workers is no part of a run's identity."""
    figures = []
    for workers in (0, 2):
        run = make(runs=f"runs{workers}", split={"folds": 1}, train={"epochs": 2, "batch_size": 8, "workers": workers}).run()[0]
        figures.append((run.name, (run.folder.path / "metrics.jsonl").read_bytes()))
    assert figures[0] == figures[1]


def test_an_epoch_without_the_watched_figure_is_no_better_than_any_other(make, monkeypatch):
    """A figure may be undefined in one epoch; the losses, on another scale, must not stand in for it."""
    from mtcore.training.gradient import GradientRun

    seen = []
    whole = GradientRun._evaluate

    def evaluate(self, part):
        predictions, found = whole(self, part)
        if part == "validation" and len(seen) < 3:
            seen.append(self.epoch)
            found["label"].pop("recall_macro") if self.epoch == 2 else found["label"].update(recall_macro=-5.0 - self.epoch)
        return predictions, found

    monkeypatch.setattr(GradientRun, "_evaluate", evaluate)
    run, = make(split={"folds": 1, "validation": 0.3}, train={"epochs": 3, "stop": {"on": "label.recall_macro"}}).run()
    assert run.folder.info["best_epoch"] == 1


@pytest.mark.parametrize("key", ["train.parameters.'trunks.*'.lr", 'train.parameters."trunks.*".lr', "'train'.parameters.'trunks.*'.lr"])
def test_a_key_with_dots_is_quoted(make, tmp_path, key):
    runs = make(split={"folds": 1}, vary={key: [0.0, 0.1]}).runs()
    assert [{name: one.lr for name, one in run.config.train.parameters.items()} for run in runs] == [{"trunks.*": 0.0}, {"trunks.*": 0.1}]
    (tmp_path / "e.toml").write_text("name = 'e'\ndatasets = {a = {reader = 'core.tones'}}\ninputs = {main = {extractor = 'waveform'}}\n"
                                     "model = {trunk = 'mlp'}\n")
    opened = Experiment.from_file(tmp_path / "e.toml", {key: "0.5"})
    assert {name: one.lr for name, one in opened.config.train.parameters.items()} == {"trunks.*": 0.5}
    with pytest.raises(ExperimentError, match="data is read and parts are drawn once"):
        make(vary={"datasets.'a'.root": ["x", "y"]})


def test_setting_what_is_varied_is_an_error(tmp_path):
    (tmp_path / "e.toml").write_text("name = 'e'\n[vary]\n'train.epochs' = [1, 2]\n\"train.parameters.'*'.lr\" = [1, 2]\n")
    with pytest.raises(ExperimentError, match="the file varies it"):
        Experiment.from_file(tmp_path / "e.toml", {'train.parameters."*".lr': "3"})
    with pytest.raises(ExperimentError, match="--set train.epochs: the file varies it"):
        Experiment.from_file(tmp_path / "e.toml", {"train.epochs": "3"})


def test_mixed_rates_are_told_when_features_are_extracted(tmp_path):
    """`check` looks at a few clips only."""
    rows = ["path,label"]
    for i in range(12):
        rate = 16000 if i == 7 else 8000
        soundfile.write(tmp_path / f"{i}.wav", np.random.default_rng(i).standard_normal(rate // 4) * 0.1, rate)
        rows.append(f"{i}.wav,{'ab'[i % 2]}")
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    experiment = Experiment({"name": "rates", "datasets": {"mine": {"reader": "core.csv", "root": str(tmp_path)}},
                             "inputs": {"main": {"extractor": {"use": "core.spectrogram"}}}, "split": {"folds": 1},
                             "model": {"trunk": "core.cnn"}}, tmp_path, cache=tmp_path / "cache")
    experiment.extract()
    assert any("8000, 16000 Hz" in line for line in experiment.corpus.notes)
