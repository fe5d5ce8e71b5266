"""Leaks that an experiment accepts in writing."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given as given_
from hypothesis import settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

import mtcore
from mtcore.clip import PARTS
from mtcore.errors import ExperimentError, LeakError
from mtcore.extracting.chain import Array
from mtcore.plugin import Clip, Extractor, Lazy, Preparer, Reader, Task, param
from mtcore.preparing import similar as similar_
from mtcore.preparing.split import SplitDataset, check_leaks, draw_parts
from mtcore.testing.sounds import write_tone

TRAIN, VALIDATION, TEST = range(3)


def given(name, clips, audio=None):
    """Clips as (group, given part or "")."""
    groups, parts = zip(*clips)
    return SplitDataset(name, groups, audio or [(f"{name}{place}", 0.0, None) for place in range(len(clips))],
                        [{"given": part} if part else {} for part in parts], np.zeros((len(clips), 0)))


def draw(*datasets, accept=(), folds=2, validation=0.0):
    parts = draw_parts(datasets, folds=folds, test=0.2, validation=validation, seed=3, accept=accept)
    check_leaks(datasets, parts, accept)
    return parts


TORN = [("a", "train"), ("a", "test"), ("a", ""), ("b", "train"), ("b", "test"), ("c", "train"), ("c", "train"), ("d", "test")]


def test_what_is_named_is_accepted_and_what_is_not_stops():
    birds = given("birds", TORN)
    with pytest.raises(LeakError, match=r"found 1 in two or more \(dataset birds\): b \(train, test\)"):
        draw(birds, accept=["a"])
    with pytest.raises(LeakError, match="found 2 in two or more"):
        draw(birds, accept=["birds"])
    parts = draw(birds, accept=["b", "a", "nothing"], validation=0.4)
    for fold in parts.folds:
        assert fold["birds"][:5].tolist() == [TRAIN, TEST, -1, TRAIN, TEST]  # as given; what is not, in no part
        assert fold["birds"][7] == TEST
    assert parts.accepted == {"a", "b"}
    assert "warning: accepted leak in the given parts: a (train, test)" in parts.notes
    assert any("1 clips of dataset birds are not used" in note for note in parts.notes)


def test_the_error_says_the_line_to_write():
    birds = given("birds", [('say "a"', "train"), ('say "a"', "test"), (None, "train"), ("é", "test")],
                  [("x", 0, None), ("y", 0, None), ("5f" * 16, 0.0, None), ("5f" * 16, 0.0, None)])
    with pytest.raises(LeakError) as error:
        draw(birds)
    line = re.search(r"accept_leaks = .*\]", str(error.value)).group()
    accept = tomllib.loads(line)["accept_leaks"]
    assert accept == ['say "a"', "audio 5f5f5f5f", "é"]
    assert draw(birds, accept=accept).accepted == set(accept)
    for few in (accept[:2], accept[::2], accept[1:]):
        with pytest.raises(LeakError):
            draw(birds, accept=few)


def test_the_line_to_write_holds_no_name_that_nothing_has():
    """What is accepted already and goes by some clip's name stays in it, once; what is misspelt does not."""
    birds = given("birds", [("a", "train"), ("a", "test"), ("b", "train"), (None, "test"), ("c", "train")],
                  [("x", 0, None), ("y", 0, None), ("5f" * 16, 0.0, None), ("5f" * 16, 0.0, None), ("z", 0, None)])
    with pytest.raises(LeakError) as error:
        draw(birds, accept=["a", "bb", "b", "c"])
    line = re.search(r"accept_leaks = .*\]", str(error.value)).group()
    assert tomllib.loads(line)["accept_leaks"] == ["a", "b", "c", "audio 5f5f5f5f"]


def test_own_folds_with_a_group_in_two_parts():
    parts = [{"fold1": "train", "fold2": "test"}, {"fold1": "test", "fold2": "test"}, {"fold1": "train", "fold2": "train"},
             {"fold1": "test", "fold2": "train"}]
    scenes = SplitDataset("scenes", ["r", "r", "s", "t"], [(f"{n}", 0.0, None) for n in range(4)], parts, np.zeros((4, 0)))
    with pytest.raises(LeakError, match="fold 1"):
        draw(scenes, folds="official")
    drawn = draw(scenes, folds="official", accept=["r"])
    assert [[PARTS[code] for code in fold["scenes"]] for fold in drawn.folds] == [list(part) for part in zip(*(p.values() for p in parts))]
    assert [note for note in drawn.notes if "accepted" in note] == ["warning: accepted leak in the given parts of fold 1: r (train, test)"]


# Of an experiment ---------------------------------------------------------------------------------------------------


@pytest.fixture
def voices(tmp_path):
    """An experiment on six recordings of three speakers, of which s1 is trained and tested."""
    rows = ["path,word,group,part"]
    for number, (speaker, part) in enumerate([("s0", "train"), ("s0", "train"), ("s1", "train"), ("s1", "test"), ("s2", "test"), ("s2", "test")]):
        write_tone(tmp_path / "voices" / f"{number}.wav", 300 + 100 * number)
        rows.append(f"{number}.wav,{'yes' if number % 2 else 'no'},{speaker},{part}")
    (tmp_path / "voices" / "index.csv").write_text("\n".join(rows))

    def build(**split):
        return mtcore.Experiment({
            "name": "voices", "datasets": {"voices": {"reader": "core.csv", "root": "voices", "tasks": ["word"]}},
            "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}},
            "split": {"folds": 1, "validation": 0.0, **split}, "model": {"trunk": {"use": "core.mlp", "hidden": [4]}},
            "train": {"epochs": 1}, "report": {"reporters": []}}, tmp_path, tmp_path / "runs", tmp_path / "cache")
    return build


def test_an_experiment_accepts_in_writing(voices):
    with pytest.raises(LeakError, match=r'accept_leaks = \["group:s1"\]'):
        voices().check()
    accepting = voices(accept_leaks=["group:s1"])
    warning = "warning: accepted leak in the given parts: group:s1 (train, test)"
    assert warning in accepting.check()
    one, = accepting.run()
    assert warning in (one.folder.path / "run.log").read_text()
    assert one.folder.info["config"]["split"]["accept_leaks"] == ["group:s1"]
    with pytest.raises(ExperimentError, match="split.accept_leaks: no leak goes by the name 'group:s2'"):
        voices(accept_leaks=["group:s1", "group:s2"]).check()


# Alike ----------------------------------------------------------------------------------------------------------------


def components(linked):
    """Sets of linked numbers, by walking."""
    found, left = set(), set(range(len(linked)))
    while left:
        some, ways = set(), [left.pop()]
        while ways:
            some.add(one := ways.pop())
            ways += [other for other in np.flatnonzero(linked[one]) if other not in some]
        left -= some
        found.add(frozenset(map(int, some)))
    return found


@settings(max_examples=30, deadline=None)
@given_(st.integers(0, 40), st.integers(0, 2**32), st.sampled_from([0.55, 0.75, 0.99]), st.integers(1, 7))
def test_sets_are_those_of_a_graph_of_cosines(number, seed, threshold, block):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, (number, 3)).astype(np.float32) * rng.uniform(0.5, 100, (number, 1)).astype(np.float32)

    class Rows(dict):
        shape = lambda self, key: self[key].data.shape
        read = dict.__getitem__

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similar_, "_BLOCK", block)
        found = similar_.find_similar(Rows({f"k{i}": Array(v[None]) for i, v in enumerate(vectors)}),
            {f"k{i}": f"c{i}" for i in range(number)}, threshold)
    whole = (cosine_similarity(vectors) >= threshold) & ~np.eye(number, dtype=bool) if number else np.zeros((0, 0), bool)
    assert found.pairs == whole.sum() // 2
    assert {frozenset(i for i in range(number) if found.sets[f"k{i}"] == one) for one in found.sets.values()} == components(whole)
    assert all(whole[int(a[1:]), int(b[1:])] for a, b, _ in found.told) and len(found.told) == min(5, found.pairs)


@dataclass(frozen=True, kw_only=True)
class Level(Extractor):
    """Of a clip in which sample i is one, the unit vector i, turned a little by what follows it."""

    def prepare(self, rate):
        return lambda x: np.ascontiguousarray(x[:, :50])

    def axis(self, rate):
        return None


@dataclass(frozen=True, kw_only=True)
class Halves(Preparer):
    """Clips of different lengths."""

    def prepare(self, context):
        return context.then(lambda x, state, rng: x[:, :20 + int(x.argmax())])


def impulse(place, rest):
    x = np.zeros((1, 60), np.float32)
    x[0, place], x[0, 49], x[0, 55] = 1, rest, place * 0.01 + rest
    return x, 1000


@dataclass(frozen=True, kw_only=True)
class Impulses(Reader):
    """Clips as (place, rest, part)."""

    generated = True
    of: Any = param(help="clips")

    def tasks(self, root):
        return [Task.multiclass("place", ("odd", "even"))]

    def clips(self, root):
        for number, (place, rest, part) in enumerate(self.of):
            yield Clip(f"i{number}", Lazy(impulse, (place, rest), key=f"{place}-{rest}"), {"place": ("even", "odd")[number % 2]}, {},
                       {"given": part} if part else {})


def test_alike_recordings_of_all_datasets_are_split_as_one(make):
    one = [(n, 0.0, "") for n in range(20)]
    other = [(n, 0.05, "") for n in range(0, 20, 2)]  # cosine 0.9988
    how = {"use": Level(), "threshold": 0.99}
    build = lambda **split: make(datasets={"a": {"reader": Impulses(of=one)}, "b": {"reader": Impulses(of=other)}},
                                 inputs={"main": {"extractor": "core.waveform"}}, split={"folds": 4, "validation": 0.2, **split})
    together = lambda experiment: [(fold["a"][::2] == fold["b"]).all() for fold in experiment.corpus.parts.folds]
    assert not all(together(build()))
    experiment = build(similar=how)
    assert all(together(experiment))
    line, = (line for line in experiment.check() if "alike" in line)
    assert line.startswith("10 pairs of different recordings are alike by ") and "a/i0 and b/i0 (0.999)" in line and line.endswith(", …")
    assert not any(together(build(similar=how | {"threshold": 0.9999}))[:2])


def test_alike_recordings_in_two_given_parts_are_a_leak(make):
    clips = [(n, 0.0, part) for n, part in enumerate(["train"] * 4 + ["test"] * 4)] + [(0, 0.05, "test")]
    build = lambda **split: make(datasets={"a": {"reader": Impulses(of=clips)}}, inputs={"main": {"extractor": "core.waveform"}},
                                 split={"folds": 1, "validation": 0.0, **split})
    build().corpus
    with pytest.raises(LeakError, match=r"audio \w+ \+ audio \w+ \(train, test\)") as error:
        build(similar={"use": Level()}).corpus
    accept = tomllib.loads(re.search(r"accept_leaks = .*\]", str(error.value)).group())
    assert build(similar={"use": Level()}, **accept).corpus.parts.folds[0]["a"].tolist() == [TRAIN] * 4 + [TEST] * 5


def test_vectors_are_computed_once_and_need_one_size(make, monkeypatch):
    clips = [(n, 0.0, "") for n in range(9)]
    build = lambda similar: make(datasets={"a": {"reader": Impulses(of=clips)}}, inputs={"main": {"extractor": "core.waveform"}},
                                 split={"folds": 3, "validation": 0.0, "similar": similar})
    build({"use": Level()}).corpus
    monkeypatch.setattr(Level, "prepare", lambda self, rate: pytest.fail("computed again"))
    build({"use": Level(), "threshold": 0.5}).corpus
    for wrong, says in (({"use": Level(), "threshold": 1.5}, "split.similar.threshold: expected a cosine"), ("core.mono", "split.similar"),
                        ({"use": "core.spectrogram", "threshold": "high"}, "threshold"),
                        ({"use": "core.waveform", "signal": ["core.standardize"]}, r"split.similar.signal\[0\]"),
                        ({"use": "core.waveform", "signal": [Halves()]}, r"one vector of a fixed size per clip, found \[1, \d+\] \(a/i\d\), ")):
        with pytest.raises(ExperimentError, match=says):
            build(wrong).corpus
