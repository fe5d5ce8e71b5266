"""Whatever is wrong with files, names and sound gets a message that says what, where and what to do, and its exit code."""

from __future__ import annotations

import json
import re
import typing
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from mtcore.cli import main
from mtcore.errors import DataError, ExperimentError
from mtcore.plugin import Clip, Lazy, Reader, Task
from mtcore.plugin.building import parameters_of
from mtcore.plugin.registry import get_registry

FILE = """
name = "small"
[datasets.a]
reader = "core.folders"
root = "sounds"
[inputs.main]
extractor = {use = "core.spectrogram", hop = 0.016}
steps = ["core.standardize"]
[split]
folds = 1
test = 0.25
validation = 0.0
[model]
trunk = {use = "core.mlp", hidden = [8]}
[train]
epochs = 1
batch_size = 4
[report]
reporters = []
"""


def write(path, seconds=0.25, rate=8000, seed=0, channels=1, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = np.random.default_rng(seed).standard_normal((round(seconds * rate), channels)) * 0.1
    soundfile.write(path, sound, rate, **options)


@pytest.fixture
def place(tmp_path):
    """A folder with eight recordings of two classes and an experiment file."""
    for label in ("one", "two"):
        for i in range(4):
            write(tmp_path / "sounds" / label / f"{i}.wav", seed=i + 4 * (label == "two"))
    (tmp_path / "small.toml").write_text(FILE, encoding="utf-8")
    return tmp_path


@pytest.fixture
def call(place):
    """`mtcore COMMAND FILE …`: exit code and everything that was said."""

    def run(*arguments, command="run", file="small.toml"):
        where = ["--cache", str(place / "cache"), "--runs", str(place / "runs")]
        result = CliRunner().invoke(main, [command, str(place / file), *arguments, *where])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


def index(place, text, **changes):
    """The experiment over a table instead of folders."""
    (place / "sounds" / "index.csv").write_text(text, encoding="utf-8")
    content = FILE.replace("core.folders", "core.csv")
    for old, new in changes.items():
        content = content.replace(old, new)
    (place / "small.toml").write_text(content, encoding="utf-8")


ROWS = "path,label\n" + "".join(f"{label}/{i}.wav,{label}\n" for label in ("one", "two") for i in range(4))


def expect(told, code, *patterns):
    found, output = told
    assert found == code, output
    for pattern in patterns:
        assert re.search(pattern, output, re.DOTALL), f"{pattern!r} not in:\n{output}"
    assert "not foreseen" not in output


# The file --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "patterns"), [
    ("model.trunk=core.mpl", ["model.trunk: unknown trunk 'core.mpl'.*did you mean.*mlp", "mtcore list trunk"]),
    ("model.trunk=birds.net", ["no plugin 'birds' is installed", "pip install mtcore-birds"]),
    ("datasets.a.reader=folder", ["datasets.a.reader: unknown reader 'folder'.*folders"]),
    ("inputs.main.extractor=core.mlp", ["inputs.main.extractor: unknown extractor 'core.mlp'", "core.mlp is a trunk"]),
    ("train.epoch=3", ["train.epoch: unknown key; did you mean epochs"]),
    ("trian.epochs=3", ["trian: unknown key; did you mean train"]),
    ("train.epochs=many", ["train.epochs: expected.*int.*found|train.epochs: expected.*int.*got"]),
    ("model.trunk.hiden=[3]", ["model.trunk.hiden: core.mlp has no parameter 'hiden'.*did you mean.*hidden"]),
    ("inputs.main.steps.standardise.per=all", ["inputs.main.steps: no step with the id 'standardise'; found standardize"]),
    ("name.of.what=3", ["name.of: name is no table"]),
    ("split.folds.many=3", ["split.folds.*no table"]),
    ("train.stop.on=lable.recall_macro", ["train.stop.on: expected loss, or TASK.FIGURE .or a list of some. with a task out of label; found"]),
    ("tasks.label.weight=-1", ["tasks.label.weight: expected float >= 0.0, found -1"]),
    ("train.sampler={use = \"samplers.balanced\", task = \"lable\"}", ["train.sampler: task: expected one of label; found 'lable'"]),
    ("tasks.lable.weight=2.0", ["tasks.lable: no dataset has this task; found label"]),
    ("vary={\"split.seed\" = [1, 2]}", ["vary.split.seed: .*parts are drawn once per experiment"]),
    ("vary={\"datasets.a.group\" = [\"x\", \"y\"]}", ["vary.datasets.a.group: .*parts are drawn once"]),
    ("vary={seed = 3}", ["vary.seed: expected a list of values, found 3"]),
    ("vary={\"train.epoch\" = [1, 2]}", ["train.epoch: unknown key; did you mean epochs"]),
    ("vary={datasets = \"subset\"}", ["vary.datasets: expected.*subsets.*found 'subset'"]),
    ("vary={datasets = 3}", ["vary.datasets: expected.*found 3"]),
    ("vary=3", ["vary: expected"]),
    ("datasets=3", ["datasets: expected"]),
    ("model=core.mlp", ["model: expected a table"]),
    ("datasets.a.group=speaker", ["datasets.a.group: core.folders gives the groups none; found 'speaker'"]),
    ("datasets.a.tasks=[\"lable\"]", ["datasets.a.tasks: core.folders declares label; found 'lable'"]),
    ("datasets.a.tasks={label = {labels = {three = \"two\"}}}", ["datasets.a.tasks.label.labels: 'three' is no label.*one, two"]),
    ("datasets.a.tasks={label = 3}", ["datasets.a.tasks.label: expected a table"]),
    ("datasets.a.max_per_label={label = {three = 2}}", ["datasets.a.max_per_label.label: expected a number per label"]),
    ("datasets.a.max_per_label={label = {one = \"two\"}}", ["datasets.a.max_per_label.label: expected a number per label"]),
    ("split.folds=20", ["dataset a: expected at least 20 groups.*found 8"]),
    ("split.folds=0", ["split.folds"]),
    ("split.test=1.5", ["split.test|share"]),
    ("split.folds=official", ["split.folds = \"official\": expected a dataset with folds of its own"]),
    ("inputs.main.extractor.fft=128", ["expected an FFT that holds a frame of 256 samples.*found fft = 128"]),
    ("inputs.main.steps=[\"core.mono\", \"core.mono\"]", ["core.mono acts on signals"]),
    ("inputs.main.extractor.frame=-1.0", ["frame"]),
    ("train.optimizer=adma", ["train.optimizer: torch has .*adam.*found 'adma'"]),
    ("train.optimizer={use = \"adam\", rl = 0.1}", ["train.optimizer.*rl"]),
    ("train.scheduler=cosin", ["train.scheduler: expected one of .*cosine.*found 'cosin'"]),
    ("train.epochs=0", ["train: expected at least one epoch or update"]),
    ("train.optimizer=3", ["train.optimizer: expected a name or a table.*found 3"]),
    ('train.scheduler={use = "cosine", warmup = "x"}', ["train.scheduler.warmup: expected a number.*found 'x'"]),
    ('train.scheduler={use = "step", every = 0}', ["train.scheduler.every: expected a number.*found 0"]),
    ("train.threads=0", ["train.threads: expected"]),
    ("train.clip=-1.0", ["train.clip: expected"]),
    ("tasks.label.loss=core.mse", ["core.mse.*multiclass|multiclass.*core.mse"]),
    ("tasks.label.metrics=[\"core.regression\"]", ["core.regression.*multiclass|multiclass.*core.regression"]),
    ("tasks.label.labels=[\"one\"]", ["tasks.label.labels lists one; dataset a also has two"]),
])
def test_what_is_wrong_with_the_file(call, changed, patterns):
    for command in ("check", "run"):
        expect(call("--set", changed, command=command), 2, *patterns)


def test_a_task_may_weigh_nothing(call):
    expect(call("--set", "tasks.label.weight=0", command="check"), 0, "all well")


@pytest.mark.parametrize("name", ["recal", "recall", "recall/thre", "recall_macr"])
def test_a_figure_that_the_watched_task_does_not_have(call, name):
    expect(call("--set", "split.validation=0.3", "--set", f"train.stop.on=label.{name}"), 2,
           f"train.stop.on: task label has the figures accuracy, .*recall/LABEL.*recall_macro.*; found '{name}'; did you mean recall")


def test_a_file_that_is_missing_or_no_toml(call, place):
    expect(call(file="absent.toml"), 2, "absent.toml: expected an experiment file, found nothing there")
    (place / "bad.toml").write_text("name = ", encoding="utf-8")
    expect(call(file="bad.toml"), 2, "bad.toml: expected a TOML file: Invalid value")
    (place / "latin.toml").write_bytes("name = 'Stra\u00dfe'".encode("latin-1"))
    expect(call(file="latin.toml"), 2, "latin.toml: expected a TOML file: .*utf-8")
    expect(call("--set", "train.epochs"), 2, "--set: expected KEY=VALUE, found 'train.epochs'")
    (place / "empty.toml").write_text("", encoding="utf-8")
    expect(call(file="empty.toml"), 2, "name: expected, but it is missing")


# The recordings --------------------------------------------------------------------------------------------------------


def test_a_folder_that_is_missing_or_has_no_recordings(call, place):
    expect(call("--set", "datasets.a.root=nowhere"), 1, "dataset a: expected recordings below .*nowhere, found nothing there",
           "mtcore info core.folders")
    (place / "bare").mkdir()
    expect(call("--set", "datasets.a.root=bare"), 1,
           r"bare: expected recordings \(.*\.wav.*\) in one folder per class, found none")
    expect(call("--set", "datasets.a.root=bare", "--set", "datasets.a.reader=ravdess.speech"), 1,
           r"bare: expected files matching '\*\*/Actor_\*/03-\*\.wav', found none")


def test_sound_that_cannot_be_used_is_listed_at_once(call, place):
    folder = place / "sounds" / "one"
    (folder / "text.wav").write_text("no sound at all")
    (folder / "nothing.wav").write_bytes(b"")
    write(folder / "silent.wav", seconds=0)
    write(folder / "whole.flac", seconds=2)
    (folder / "cut.flac").write_bytes((folder / "whole.flac").read_bytes()[:9000])
    (folder / "cut.wav").write_bytes((folder / "0.wav").read_bytes()[:600])
    bad = ["text.wav", "nothing.wav", "silent.wav", "cut.flac", "cut.wav"]
    (folder / "whole.flac").unlink()
    expect(call(), 1, "5 clips cannot be used", *[re.escape(name) for name in bad], "0 bytes", "cut off", "without samples",
           'on_error = "skip" in .extract.')
    expect(call("--set", "extract.on_error=skip"), 0, "5 clips cannot be used and are skipped", *map(re.escape, bad))
    [log] = (place / "runs").rglob("run.log")
    assert all(name in log.read_text(encoding="utf-8") for name in bad)


def test_nothing_left_to_train_on(call, place):
    for path in (place / "sounds").rglob("*.wav"):
        path.write_bytes(b"")
    for command in ("check", "run"):
        expect(call("--set", "extract.on_error=skip", command=command), 1, "no clip is left to train on")


@pytest.mark.parametrize("bytes_", [64, 500])
def test_features_that_were_cut_off_are_not_read(call, place, bytes_):
    expect(call(), 0)
    [shard] = (place / "cache" / "features").rglob("shard-*.npy")
    shard.write_bytes(shard.read_bytes()[:-bytes_])
    expect(call("--set", "seed=2"), 1, "expected a shard of a feature store, found .* bytes in .*npy",
           "delete the file to have it made again")
    shard.with_suffix(".parquet").unlink()
    expect(call("--set", "seed=2"), 0)


def test_clips_too_short_for_one_frame_are_all_named(call, place):
    write(place / "sounds" / "one" / "blip.wav", seconds=0.01)
    write(place / "sounds" / "two" / "click.wav", seconds=0.02)
    expect(call(), 1, "2 clips cannot be used",
           "a/one/blip.wav: .*too short for one frame: expected at least 256 samples.*found 80",
           "a/two/click.wav: .*found 160", "crop_or_pad")


def test_inputs_of_different_shapes(call, place):
    write(place / "sounds" / "two" / "long.wav", seconds=1)
    expect(call(), 2, "model.trunks.main: mlp needs inputs of one size", "length that differs from clip to clip; add a step such as crop_or_pad")
    write(place / "sounds" / "one" / "stereo.wav", channels=2)
    expect(call("--set", 'inputs.main.steps=[{use = "crop_or_pad", length = 10}, "standardize"]'), 2,
           "inputs.main, at clip a/one/stereo.wav: expected training arrays of one shape.*1, 129, 1.*2, 129, 1")


# Labels ----------------------------------------------------------------------------------------------------------------


def test_two_datasets_that_do_not_agree_about_a_task(call, place):
    for label in ("one", "three"):
        for i in range(4):
            write(place / "other" / label / f"{i}.wav", seed=20 + i + 4 * (label == "one"))
    other = 'datasets.b={reader = "core.folders", root = "other"}'
    expect(call("--set", other), 2, "task label has different labels: dataset a: one, two; dataset b: one, three",
           "tasks.label.labels", "datasets.b.tasks.label.labels")
    (place / "other" / "index.csv").write_text("path,label\n" + "".join(f"{label}/{i}.wav,{i + 4 * (label == 'one')}.5\n"
                                               for label in ("one", "three") for i in range(4)), encoding="utf-8")
    other = 'datasets.b={reader = {use = "core.csv", kinds = {label = "regression"}}, root = "other"}'
    expect(call("--set", other), 2, "task label is multiclass in dataset a and regression in b", "datasets.b.tasks.label.as")


def test_a_task_fixed_by_its_group(call, place):
    rows = "path,who,label,group:who,group:take\n" + "".join(
        f"{label}/{i}.wav,p{i % 2}{label},{label},{'ab'[i % 2]}{label},t{i}\n" for label in ("one", "two") for i in range(4))
    index(place, rows)
    named = ("--set", "datasets.a.group=who", "--set", 'datasets.a.tasks=["who"]')
    expect(call(*named), 2, "every label of task who lies in one group, since the split is by who", "datasets.a.group = .*'take'")
    expect(call("--set", "datasets.a.group=who"), 0)
    [log] = (place / "runs").rglob("run.log")
    assert "task who left out, since each of its labels lies in one group of who" in log.read_text(encoding="utf-8")


def test_a_label_that_training_or_test_lacks(call, place):
    """Four recordings each of one and two, of which one is only tested and two only trained."""
    rows = ROWS.replace("path,label", "path,label,part").replace("\n", ",train\n").replace("part,train", "part")
    rows = rows.replace("one/3.wav,one,train", "one/3.wav,three,test").replace("one/2.wav,one,train", "one/2.wav,one,test")
    index(place, rows)
    expect(call("--set", "train.epochs=2"), 0)
    [log] = (place / "runs").rglob("run.log")
    text = log.read_text(encoding="utf-8")
    assert "warning: task label: three: absent from training but tested; they count as recall 0" in text
    assert "warning: task label: two: absent from test; they are left out of its macro mean" in text
    lines = [json.loads(line) for line in log.with_name("metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {line["metric"]: line["value"] for line in lines if line["part"] == "test" and line["checkpoint"] == "last"}
    assert found["recall/three"] == 0 and "recall/two" not in found and found["recall_macro"] == found["recall/one"] / 2


def test_a_loss_that_is_not_finite(call):
    expect(call("--set", "train.epochs=3", "--set", 'train.optimizer={use = "sgd", lr = 1e30}'), 1,
           r"loss of task label is not finite.*a/(one|two)/\d.wav")


@pytest.mark.parametrize(("row", "message"), [
    ("one/9.wav,one\n", "1 clips? cannot be used.*9.wav.*No such file"),
    ("one/1.wav\n", "index.csv, line 10: expected 2 cells"),
    ("one/1.wav,two\n", "index.csv, line 10: the same recording and stretch stand in line 3"),
    (",two\n", "index.csv, line 10: column 'path': expected a path, found an empty cell"),
])
def test_a_table_that_is_wrong(call, place, row, message):
    index(place, ROWS + row)
    expect(call(), 1, message)


# Many formats ----------------------------------------------------------------------------------------------------------


def test_recordings_of_all_kinds_go_through_as_they_are(call, place):
    kinds = [("a b.wav", 8000, 1, "PCM_16"), ("b.wav", 44100, 2, "PCM_24"), ("c.wav", 16000, 1, "FLOAT"),
             ("d.wav", 11025, 1, "PCM_U8"), ("e.flac", 48000, 2, "PCM_24"), ("f.flac", 22050, 1, "PCM_S8"),
             ("g.ogg", 16000, 2, None), ("h.mp3", 44100, 1, None),
             ("i.mp3", 16000, 2, None), ("j.aiff", 32000, 1, "PCM_16"), ("k.AIFF", 96000, 2, "PCM_32"),
             ("l.wav", 8000, 1, "DOUBLE"),
             ("\u97f3 \u58f0.wav", 8000, 1, None),
             ("\u0437\u0432\u0443\u043a/\u0433\u043e\u043b\u043e\u0441.flac", 16000, 1, None),
             ("Stra\u00dfe \u2013 #1, 100%.wav", 22050, 2, None), ("m.wav", 8000, 6, "PCM_16")]
    rows = []
    for i, (name, rate, channels, subtype) in enumerate(kinds):
        write(place / "sounds" / "all" / name, 0.3 + 0.05 * i, rate, i, channels, subtype=subtype)
        pitch = "" if i % 5 == 4 else ("low", "\u9ad8")[i % 2]
        rows.append(f'"all/{name}",{pitch},{"" if i % 7 == 3 else "x;y" if i % 3 else "x"}')
    write(place / "sounds" / "all" / "blip.wav", 0.01, 44100)
    rows.append("all/blip.wav,low,y")
    steps = '"core.mono", {use = "features.resample", rate = 16000}, {use = "core.crop_or_pad", length = "0.5s"}'
    index(place, "path,pitch,tags\n" + "\n".join(rows) + "\n", **{"[inputs.main]": f"[signal]\nsteps = [{steps}]\n[inputs.main]"})
    expect(call(command="check"), 0, "dataset a: 17 clips", "pitch, tags", r"all well \(")
    expect(call(), 0)
    [folder] = [path.parent for path in (place / "runs").rglob("run.json")]
    info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert info["status"] == "done" and info["clips"]["train"] + info["clips"]["test"] == 17
    assert sorted(info["tasks"]["pitch"]["labels"]) == ["low", "\u9ad8"] and info["tasks"]["tags"]["kind"] == "multilabel"
    from mtcore import Experiment

    [run] = Experiment.from_file(place / "small.toml", cache=place / "cache", runs_folder=place / "runs").runs()
    rows = [(run.data().rows(part), part) for part in ("train", "test")]
    labelled = sum(len(found.batch(range(len(found))).targets["pitch"]) for found, _ in rows)
    assert run.done and labelled == 14  # three of 17 cells are empty
    assert {found.batch(range(len(found))).inputs["main"].shape[1:] for found, _ in rows} == {(1, 257, 30)}


@pytest.fixture
def failing(make):
    """An experiment whose reader fails in a way of its own."""
    @dataclass(frozen=True, kw_only=True)
    class Failing(Reader):
        generated = True
        where: str = "clips"

        def tasks(self, root):
            if self.where == "tasks":
                raise KeyError("gal/min")
            return [Task.multiclass("word", ["a", "b"])]

        def clips(self, root):
            yield Clip("r1", Lazy(len, ()), {"word": "a"})
            if self.where == "clips":
                float("n.a.")
            yield Clip("r2", Lazy(len, ()), {"word": "c"})

    return lambda where: make(datasets={"birds": {"reader": Failing(where=where)}})


@pytest.mark.parametrize("where, message", [
    ("tasks", r"dataset birds: .*Failing failed: KeyError: 'gal/min' \(.*test_messages.py, line \d+\)"),
    ("clips", r"dataset birds: .*failed after clip r1: ValueError: could not convert string to float: 'n.a.' \(.*line \d+\)"),
    ("label", r"dataset birds, clip r2: task word: unknown label 'c'")])
def test_what_a_reader_raises_names_dataset_clip_and_line(failing, where, message):
    with pytest.raises(DataError, match=message):
        failing(where).check()


def test_a_misspelt_stop_figure_is_found_by_check(make):
    with pytest.raises(ExperimentError, match="train.stop.on: task label has the figures .*; found 'recal_macro'; did you mean recall_macro"):
        make(train={"epochs": 1, "stop": {"on": "label.recal_macro"}}).check()


def test_a_stop_figure_that_few_clips_do_not_have_is_a_warning(make):
    lines = make(train={"epochs": 1, "stop": {"on": "label.auc"}}).check()
    assert any(line.startswith("warning") and "has the figures" in line and "'auc'" in line for line in lines)


def test_check_warns_of_recordings_of_several_rates(make, tmp_path):
    for rate in (8000, 11025):
        for number in range(6):
            write(tmp_path / "data" / "ab"[number % 2] / f"{rate}-{number}.wav", seconds=0.5, rate=rate)
    inputs = {"main": {"extractor": "core.spectrogram", "steps": [{"use": "core.crop_or_pad", "length": 10}]}}
    content = {"datasets": {"a": {"reader": "core.folders", "root": str(tmp_path / "data")}}, "split": {"folds": 2}}
    with pytest.raises(ExperimentError, match="257.*129.*Different rates: resample"):
        make(**content, inputs=inputs).check()
    inputs["main"]["extractor"] = {"use": "core.spectrogram", "fft": 512}
    assert any("with 8000, 11025 Hz" in line for line in make(**content, inputs=inputs).check())


def test_check_goes_through_clips_of_every_task(make, generated, call, place):
    """Of each dataset, and of a task that only the last clips have."""
    tasks = ("label", "size", "tags")
    datasets = {task: {"reader": generated(chosen=(task,), offset=40 * number)} for number, task in enumerate(tasks)}
    last = make(datasets=datasets, split={"folds": 1}).check()[-1]
    assert "first losses" in last and all(f"{task} " in last.partition("first losses")[2] for task in tasks)
    rows = "".join(f"{label}/{i}.wav,{label},{'xy'[i % 2] if (label, i > 1) == ('two', True) else ''},{'train' if i else 'test'}\n"
                   for label in ("one", "two") for i in range(4))
    index(place, "path,label,rare,part\n" + rows)
    expect(call(command="check"), 0, r"first losses .*label \d.*rare \d|first losses .*rare \d.*label \d")


def test_data_are_extracted_when_they_are_asked_for(make):
    assert len(make().runs()[0].data().rows("train")) > 0


# Numbers out of bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "says"), [
    ("model.trunk={use = \"core.cnn\", channels = [8, -1]}", r"model.trunk.channels\[1\]: expected 1 or more; found -1"),
    ("model.trunk={use = \"core.mlp\", hidden = [0]}", r"model.trunk.hidden\[0\]: expected 1 or more; found 0"),
    ("model.trunk={use = \"networks.soft\", trunk = {use = \"networks.crnn\", pool = [4, 0, 2]}}",
     r"model.trunk.trunk.pool\[1\]: expected 1 or more bins; found 0"),
    ("tasks.label.head={use = \"core.linear\", thresholds = [1.5]}",
     r"tasks.label.head.thresholds\[0\]: expected 0 or more and 1 or less; found 1.5")])
def test_numbers_of_a_list_have_bounds(call, changed, says):
    expect(call("--set", changed, command="check"), 2, says)


def test_every_whole_number_of_a_component_says_its_least_value():
    registry, inner = get_registry(), lambda kind: {kind}.union(*map(inner, typing.get_args(kind)))
    parameters = {f"{full}.{one.name}": one for full, spec in registry.specs()
                  for one in parameters_of(registry.load(spec.kind, full)) if int in inner(one.type)}
    assert {"core.mlp.hidden", "networks.crnn.pool", "core.frames.medians"} <= set(parameters)
    unbounded = [name for name, one in parameters.items() if one.minimum is None and one.choices is None]
    assert unbounded == ["features.transformers.layer"]  # which counts from the last one, too
