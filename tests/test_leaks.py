"""Leaks that an experiment accepts in writing."""

from __future__ import annotations

import re
import tomllib

import numpy as np
import pytest

import mtcore
from mtcore.clip import PARTS
from mtcore.errors import ExperimentError, LeakError
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
