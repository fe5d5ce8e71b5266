"""Reader, extractor and signal step on their own; then digits and tones in one network, from the experiment file beside them."""

from __future__ import annotations

import functools
import subprocess
import sys
from difflib import SequenceMatcher
from importlib import metadata
from itertools import pairwise
from math import lcm
from pathlib import Path

import mtcore_images.reader
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_images.pixels import Pixels
from mtcore_images.reader import SHEETS, Digits
from mtcore_images.sonogram import Sonogram
from sklearn.datasets import load_digits

import mtcore
from mtcore.plugin import ClipError, Context, ParameterError

FILE = Path(__file__).parents[1] / "digits_and_tones.toml"
SHORT = {"split.folds": "1", "split.test": "0.3", "train.updates": "120", "vary": "{}"}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


# Reader ---------------------------------------------------------------------------------------------------------------


def test_found_through_its_entry_point():
    (entry,) = metadata.distribution("mtcore-images").entry_points.select(group="mtcore")
    hooks = entry.load()
    specs = [*hooks.mtcore_register_readers(), *hooks.mtcore_register_preparers(), *hooks.mtcore_register_extractors()]
    assert (entry.name, [spec.name for spec in specs]) == ("images", ["digits", "sonogram", "pixels"])


def test_modules_that_readers_need_are_light():
    program = "import sys, mtcore_images.hooks, mtcore_images.reader; print({'numpy', 'sklearn', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_every_picture_is_a_clip_with_its_digit_and_ink():
    reader, found = mtcore.get_registry().make("reader", "images.digits"), load_digits()
    dataset = mtcore.read("digits", reader, Path("nowhere"))
    assert [clip.targets["digit"] for clip in dataset.clips] == [str(digit) for digit in found.target]
    assert len({clip.audio.key for clip in dataset.clips}) == len(dataset.clips) == 1797
    for clip, image in zip(dataset.clips, found.images):
        picture, rate = clip.audio.load(*clip.audio.args)
        assert rate is None and picture.dtype == np.float32 and np.array_equal(picture * 16, image)
        assert clip.targets["ink"] == pytest.approx(picture.sum())


def test_a_loaded_picture_is_the_callers_own():
    picture, _ = mtcore_images.reader.picture(5)
    picture[:] = 0
    assert mtcore_images.reader.picture(5)[0].any()


def test_sheets_are_copies_of_one_form(tmp_path):
    clips = list(Digits().clips(tmp_path))
    written = "".join(clip.targets["digit"] for clip in clips)
    form = written[:SHEETS[1]]
    for number, (first, end) in enumerate(pairwise((*SHEETS, len(clips))), 1):
        assert {clip.groups["sheet"] for clip in clips[first:end]} == {f"sklearn.digits:{number}"}
        assert written[first + 1:first + 10] == "123456789"
        assert SequenceMatcher(None, form, written[first:end], autojunk=False).ratio() > 0.96


def test_digits_of_one_sheet_look_alike():
    flat = load_digits().data
    sheet = np.searchsorted(SHEETS, np.arange(len(flat)), side="right")
    squares = np.square(flat).sum(1)
    distance = squares[:, None] + squares - 2 * flat @ flat.T
    np.fill_diagonal(distance, np.inf)
    same = sheet[distance.argmin(1)] == sheet
    assert all(same[sheet == number].mean() > 0.3 for number in range(1, len(SHEETS) + 1))  # by chance 0.07


# Extractor ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 4))
def test_another_size_holds_the_means_of_areas(sizes):
    old_height, old_width, height, width = sizes
    x = noise(old_height, old_width)
    fine = x.repeat(lcm(old_height, height) // old_height, 0).repeat(lcm(old_width, width) // old_width, 1)
    expected = fine.reshape(height, len(fine) // height, width, fine.shape[1] // width).mean((1, 3))
    before, found = x.copy(), Pixels(height=height, width=width).prepare(None)(x)
    assert found.dtype == np.float32 and np.allclose(found, expected[None], atol=1e-6) and np.array_equal(x, before)
    assert found.mean() == pytest.approx(x.mean(), abs=1e-6)


@pytest.mark.parametrize("shape, options, expected", [
    ((8, 8), {}, (1, 8, 8)), ((3, 5, 7), {}, (3, 5, 7)), ((3, 5, 7), {"height": 4}, (3, 4, 7)),
    ((5, 7), {"width": 2}, (1, 5, 2))])
def test_sizes(shape, options, expected):
    x = noise(*shape)
    found = Pixels(**options).prepare(None)(x)
    assert found.shape == expected and Pixels(**options).axis(None) is None
    if not options:
        assert np.array_equal(found, x.reshape(expected))


def test_channels_are_scaled_alike():
    x, scale = noise(3, 6, 10), Pixels(height=4, width=3).prepare(None)
    assert np.allclose(scale(x), np.concatenate([scale(channel) for channel in x]), atol=1e-6)


def test_what_is_no_picture():
    with pytest.raises(ParameterError, match="found sound at 8000 Hz; add the step images.sonogram"):
        Pixels().prepare(8000.0)
    for shape in ((8,), (2, 3, 4, 5)):
        with pytest.raises(ClipError, match="expected a picture"):
            Pixels().prepare(None)(noise(*shape))


# Sonogram -------------------------------------------------------------------------------------------------------------


def drawn(x, rate=8000.0, **options):
    return Sonogram(**options).prepare(Context((len(x), None), rate)).apply(x, {}, None)


@pytest.mark.parametrize("options", [{}, {"frame": 0.02, "hop": 0.0051}, {"depth": 20.0}], ids=str)
@pytest.mark.parametrize("rate", [8000, 44100])
def test_equals_scipy(rate, options):
    x = noise(2, rate // 2) * np.linspace(0.01, 1, rate // 2, dtype=np.float32) - 0.5
    frame, hop = round(options.get("frame", 0.032) * rate), round(options.get("hop", 0.016) * rate)
    power = scipy.signal.spectrogram(x, rate, "hann", frame, frame - hop, detrend=False, mode="magnitude")[2] ** 2
    level, depth = 10 * np.log10(power / power.max())[:, ::-1], options.get("depth", 60.0)
    found = drawn(x, rate, **options)
    assert found.dtype == np.float32 and np.allclose(found, np.clip(1 + level / depth, 0, 1), atol=1e-4)


def test_a_tone_is_a_line_at_its_height_however_loud():
    time = np.arange(8000) / 8000
    low, high = (np.sin(2 * np.pi * hertz * time, dtype=np.float32)[None] for hertz in (500, 3000))
    pictures = [drawn(level * sound) for sound in (low, high) for level in (0.01, 1)]
    assert np.allclose(pictures[0], pictures[1], atol=1e-4) and np.allclose(pictures[2], pictures[3], atol=1e-4)
    lines = [int(picture.mean(-1).argmax()) for picture in pictures[::2]]
    assert lines == [128 - 500 / 31.25, 128 - 3000 / 31.25]  # a row is 31.25 Hz high, the lowest at the bottom


def test_silence_is_black_and_sound_stays_as_it_is():
    x = np.zeros((1, 4000), np.float32)
    assert not drawn(x).any() and not x.any()


def test_the_picture_has_the_announced_shape_and_no_time():
    known = Sonogram().prepare(Context((2, None), 8000.0))
    assert (known.rate, known.axis, known.shape) == (None, None, (2, 129, None))
    assert known.apply(noise(2, 8000), {}, None).shape == (2, 129, 61)


def test_what_cannot_be_drawn():
    with pytest.raises(ClipError, match="at least 256 samples, found 255"):
        drawn(noise(1, 255))
    with pytest.raises(ParameterError, match="found arrays without"):
        Sonogram().prepare(Context((8, 8)))
    with pytest.raises(ParameterError, match="at least 2 samples and a hop of at least 1; found 256 and 0"):
        Sonogram(hop=0.00001).prepare(Context((1, None), 8000.0))


# Digits and tones in one network --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def opened(cache, runs="runs", sample=None, **overrides):
    return mtcore.Experiment.from_file(FILE, SHORT | overrides, cache=cache, runs_folder=cache / runs, sample=sample)


@pytest.fixture(scope="module")
def trained(cache):
    (run,) = opened(cache).run()
    return run


def figures(run):
    """Test figures of the best checkpoint by task."""
    return {row["task"]: row["mean"] for row in mtcore.compare([run.folder.path]).rows()}


def test_clips_go_through_to_the_loss(cache):
    lines = "\n".join(opened(cache).check())
    assert "inputs.picture of digits: stored: pixels" in lines and "inputs.picture of tones: stored: sonogram > pixels" in lines
    assert "rows picture [1, 32, 32]" in lines
    assert all(f"{task} " in lines.partition("first losses")[2] for task in ("digit", "ink", "timbre", "pitch"))


def test_one_network_learns_digits_and_tones(trained):
    found, data = figures(trained), trained.data()
    test = data.clips("test")
    assert {data.datasets[d].name for d, _ in test} == {"digits", "tones"}
    targets = [data.datasets[d].clips[c].targets for d, c in test]
    truth = {task: np.array([one[task] for one in targets if task in one]) for task in ("ink", "pitch")}
    guess = {task: np.abs(values - np.median(values)).mean() for task, values in truth.items()}
    assert found["digit"] > 0.8 and found["timbre"] > 0.5  # by chance 0.1 and 0.25
    assert found["ink"] < 0.5 * guess["ink"] and found["pitch"] < 0.8 * guess["pitch"]


def test_sheets_lie_in_one_part(trained):
    data = trained.data()
    (digits,) = [dataset for dataset in data.datasets if dataset.name == "digits"]
    parts = {}
    for clip, part in zip(digits.clips, data.parts["digits"]):
        parts.setdefault(clip.groups["sheet"], set()).add(int(part))
    assert len(parts) == 14 and all(len(some) == 1 for some in parts.values()) and set.union(*parts.values()) == {0, 1, 2}


def test_a_second_experiment_loads_no_picture(trained, cache, monkeypatch):
    loaded = []

    @functools.wraps(load := mtcore_images.reader.picture)  # under its own name, which is part of what a clip is known by
    def counted(number):
        loaded.append(number)
        return load(number)

    monkeypatch.setattr(mtcore_images.reader, "picture", counted)
    again = opened(cache, runs="again")
    again.extract()
    assert loaded == [] and [len(want.missing()) for want in again.wanted(again.runs())] == [0, 0]
    again.runs()[0].data().rows("train").batch(range(4))
    assert loaded == []
    other = opened(cache, runs="again", **{"inputs.picture.extractor.height": "16"})
    other.extract()
    assert sorted(loaded) == list(range(1797))


def batch(cache, **overrides):
    """A few training rows, and the run's identity."""
    experiment = opened(cache, sample=4, **overrides)
    experiment.extract()
    (run,) = experiment.runs()
    rows = run.data().rows("train")
    return rows.batch(range(len(rows))), run.identity


@pytest.mark.parametrize("key, value", [
    ("inputs.picture.extractor.height", "24"), ("inputs.picture.extractor.width", "16"),
    ("datasets.tones.signal.sonogram.frame", "0.064"), ("datasets.tones.signal.sonogram.hop", "0.032"),
    ("datasets.tones.signal.sonogram.depth", "30.0")])
def test_every_parameter_changes_the_rows_and_the_run(cache, key, value):
    (usual, identity), (other, other_identity) = batch(cache), batch(cache, **{key: value})
    assert usual.clips == other.clips and identity != other_identity
    for clip, before, after in zip(usual.clips, usual.inputs["picture"], other.inputs["picture"]):
        touched = "extractor" in key or clip.startswith("tones/")
        assert (before.shape == after.shape and bool((before == after).all())) != touched
