"""Splits: nothing that belongs together is divided, everything is tested once, shares are kept, and what cannot be is said."""

import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from mtcore.errors import ExperimentError, LeakError
from mtcore.preparing.split import SplitDataset, assign, check_leaks, draw_parts, joined_groups, labels_in_one_group

TRAIN, VALIDATION, TEST = 0, 1, 2


def dataset(name="birds", groups=(), labels=None, audio=None, parts=None, only=None):
    groups = list(groups)
    audio = audio or [(f"{name}{place}", 0.0, None) for place in range(len(groups))]
    labels = np.zeros((len(groups), 0)) if labels is None else np.asarray(labels)
    return SplitDataset(name, groups, audio, parts or [{}] * len(groups), labels, only)


def one_hot(labels):
    return np.eye(max(labels) + 1)[labels]


def draw(*datasets, folds=3, test=0.2, validation=0.1, seed=1):
    parts = draw_parts(datasets, folds=folds, test=test, validation=validation, seed=seed)
    check_leaks(datasets, parts)
    return parts


def per_fold(parts, name="birds"):
    return np.stack([fold[name] for fold in parts.folds])


# What belongs together ------------------------------------------------------------------------------------------------


STRETCH = st.tuples(st.sampled_from([None, "x", "y"]), st.integers(0, 5), st.integers(1, 3), st.booleans()).map(
    lambda drawn: (drawn[0], drawn[1] / 2, None if drawn[3] else (drawn[1] + drawn[2]) / 2))
CLIP = st.tuples(st.one_of(st.none(), st.integers(0, 8).map("g{}".format)), st.one_of(st.just((None, 0.0, None)), STRETCH),
                 st.lists(st.integers(0, 2), min_size=3, max_size=3))


def of_clips(name, clips, only=None):
    groups, audio, labels = zip(*clips)
    return dataset(name, groups, labels, list(audio), only=only)


def overlap(one, other):
    end = lambda audio: float("inf") if audio[2] is None else audio[2]
    return one[0] is not None and one[0] == other[0] and one[1] < end(other) and other[1] < end(one)


@given(st.lists(st.lists(CLIP, min_size=1, max_size=12), min_size=1, max_size=3))
@settings(max_examples=80, deadline=None)
def test_components_are_what_hangs_together(drawn):
    datasets = [of_clips(f"d{number}", clips) for number, clips in enumerate(drawn)]
    component = np.concatenate(joined_groups(datasets))
    flat = [clip for clips in drawn for clip in clips]
    expected = list(range(len(flat)))
    for i, j in combinations(range(len(flat)), 2):
        if (flat[i][0] is not None and flat[i][0] == flat[j][0]) or overlap(flat[i][1], flat[j][1]):
            expected = [expected[i] if number == expected[j] else number for number in expected]
    assert (np.equal.outer(component, component) == np.equal.outer(expected, expected)).all()
    assert sorted(set(component)) == list(range(component.max() + 1))


def test_stretches_that_touch_do_not_overlap():
    audio = [("x", 0.64 * place, 0.64 * (place + 1)) for place in range(50)] + [("x", 31.9, None), ("y", 0.0, None)]
    component, = joined_groups([dataset(groups=[None] * 52, audio=audio)])
    assert len(set(component)) == 51
    assert component[49] == component[50]


@given(st.lists(st.lists(CLIP, min_size=1, max_size=30), min_size=1, max_size=3), st.integers(1, 4),
       st.sampled_from([0.0, 0.1, 0.4]), st.integers(0, 3), st.data())
@settings(max_examples=60, deadline=None)
def test_no_component_is_divided_and_each_is_tested_once(drawn, folds, validation, seed, data):
    datasets = [of_clips(f"d{number}", clips) for number, clips in enumerate(drawn)]
    components = joined_groups(datasets)
    assume(all(len(set(some)) >= max(folds, 2) for some in components))
    order = data.draw(st.permutations(datasets))
    parts = draw(*order, folds=folds, test=0.3, validation=validation, seed=seed)
    for name, component in zip([d.name for d in datasets], components):
        part = per_fold(parts, name)
        assert ((part >= TRAIN) & (part <= TEST)).all()
        assert (np.sum(part == TEST, axis=0) == 1).all() if folds > 1 else True
        for fold in part if len(drawn) == 1 else ():  # datasets that overlap crosswise may have no such division
            assert {TRAIN, TEST} <= set(fold)
            assert (VALIDATION in fold) == (validation > 0 and len(set(component[fold != TEST])) > 1)
    again = draw(*datasets, folds=folds, test=0.3, validation=validation, seed=seed)
    assert all((fold[d.name] == other[d.name]).all() for fold, other in zip(parts.folds, again.folds) for d in datasets)


def test_the_seed_decides():
    birds = dataset(groups=[None] * 60, labels=one_hot([0, 1, 2] * 20))
    first, same, other = (per_fold(draw(birds, seed=seed)) for seed in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).any()


# Shares ---------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=12, max_size=80), st.integers(2, 5), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_single_clips_of_one_label_are_divided_as_by_scikit_learn(labels, folds, seed):
    counts = one_hot(labels)
    part = per_fold(draw(dataset(groups=[None] * len(labels), labels=counts), folds=folds, validation=0, seed=seed)) == TEST
    found = part @ counts
    sizes = [sorted(np.bincount(np.array(labels)[test], minlength=counts.shape[1]).sum()
                    for _, test in StratifiedKFold(folds).split(labels, np.zeros(len(labels))))]
    assert (found.max(axis=0) - found.min(axis=0) <= 1).all()
    assert sorted(part.sum(axis=1)) == sizes[0]


def test_hold_out_keeps_its_shares():
    labels = [0] * 500 + [1] * 100 + [2] * 50 + [3] * 20
    birds = dataset(groups=[None] * 670, labels=one_hot(labels))
    part = per_fold(draw(birds, folds=1, test=0.2, validation=0.25))[0]
    for label in range(4):
        tested, validated = (np.mean(part[np.array(labels) == label] == which) for which in (TEST, VALIDATION))
        assert (tested, validated) == pytest.approx((0.2, 0.2), abs=0.021)


@pytest.mark.parametrize("seed", range(5))
def test_groups_of_unequal_size_are_spread_at_least_as_well_as_by_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    group = np.sort(rng.choice(60, p=(weights := rng.pareto(1.5, 60) + 0.1) / weights.sum(), size=2000))
    label = (rng.integers(6, size=60)[group] + (rng.random(2000) < 0.5) * rng.integers(6, size=2000)) % 6
    counts = one_hot(label)
    share = counts.sum(axis=0) / 5
    birds = dataset(groups=[f"g{number}" for number in group], labels=counts)
    ours = (per_fold(draw(birds, folds=5, validation=0)) == TEST) @ counts
    theirs = [counts[test].sum(axis=0) for _, test in StratifiedGroupKFold(5).split(counts, label, group)]
    error = lambda found: np.sqrt(np.mean((np.array(found) / share - 1)**2))
    assert error(ours) <= 1.1 * error(theirs)


def test_many_labels_at_once_are_spread_evenly():
    rng = np.random.default_rng(0)
    labels = rng.random((3000, 20)) < np.geomspace(0.5, 0.005, 20)
    birds = dataset(groups=[None] * 3000, labels=labels.astype(np.uint8))
    tested = (per_fold(draw(birds, folds=5)) == TEST) @ labels.astype(float)
    assert (np.abs(tested - labels.sum(axis=0) / 5) <= 1.5).all()


def test_each_dataset_is_divided_in_the_shares_and_joint_ones_together():
    birds = dataset("birds", [f"site{place % 30}" for place in range(300)], one_hot([0, 1, 2] * 100))
    frogs = dataset("frogs", [f"site{15 + place % 20}" for place in range(100)], one_hot([0, 1] * 50))
    rain = dataset("rain", [None] * 40)
    parts = draw(birds, frogs, rain, folds=5, validation=0.2)
    for some, tolerance in ((birds, 10), (frogs, 10), (rain, 0)):
        part = per_fold(parts, some.name)
        assert (np.abs(np.sum(part == TEST, axis=1) - len(some.groups) / 5) <= tolerance).all()
        assert (np.abs(np.sum(part == VALIDATION, axis=1) - 0.16 * len(some.groups)) <= tolerance + 2).all()
    both = set(birds.groups) & set(frogs.groups)
    for fold in parts.folds:
        where = [dict(zip(some.groups, fold[some.name])) for some in (birds, frogs)]
        assert all(where[0][group] == where[1][group] for group in both)


def test_the_smallest_dataset_is_in_every_part():
    large = dataset("large", [f"g{place // 50}" for place in range(1000)], one_hot([0, 1] * 500))
    small = dataset("small", ["g0", "g1", "s", "t", "t"], one_hot([0, 1, 1, 0, 0]))
    parts = draw(large, small, folds=4, validation=0.3)
    assert all({TRAIN, VALIDATION, TEST} <= set(fold["small"]) for fold in parts.folds)


def test_assign_fills_the_first_labels_everywhere():
    counts = np.array([[90, 1, 0], [5, 0, 1], [5, 0, 1], [1, 1, 0]])
    part = assign(counts, [0.5, 0.3, 0.2], np.random.default_rng(0), everywhere=2)
    assert set(part) == {0, 1, 2}
    assert part[0] == 0


def test_a_hundred_rare_labels_do_not_starve_the_validation_part():
    birds = dataset(groups=[None] * 400, labels=one_hot(list(range(100)) * 4))
    for part in per_fold(draw(birds, folds=4, validation=0.1)):
        assert np.sum(part == TEST) == 100 and 24 <= np.sum(part == VALIDATION) <= 36


# Given parts ----------------------------------------------------------------------------------------------------------


def test_given_parts_hold_in_every_fold():
    given_parts = [{"given": part} for part in ("train", "test", "validation") for _ in range(10)] + [{}] * 10
    birds = dataset(groups=[f"g{place}" for place in range(40)], parts=given_parts)
    frogs = dataset("frogs", ["g0", "g10", "g20"] + ["g35", "a", "b", "c", "d"])
    parts = draw(birds, frogs, folds=3, validation=0.2)
    assert (per_fold(parts) == [TRAIN] * 10 + [TEST] * 10 + [VALIDATION] * 10 + [TRAIN] * 10).all()
    assert (per_fold(parts, "frogs")[:, :4] == [TRAIN, TEST, VALIDATION, TRAIN]).all()
    assert (np.sum(per_fold(parts, "frogs")[:, 4:] == TEST, axis=0) >= 0).all()
    assert np.sum(per_fold(parts, "frogs")[:, 4:] == TEST) == 4
    assert any("birds" in line and "brings" in line for line in parts.notes)


def test_validation_is_drawn_out_of_given_training():
    birds = dataset(groups=[None] * 100, labels=one_hot([0, 1] * 50), parts=[{"given": "train"}] * 80 + [{"given": "test"}] * 20)
    for part in per_fold(draw(birds, folds=2, validation=0.1)):
        assert (part[80:] == TEST).all() and Counter(part[:80].tolist()) == {TRAIN: 72, VALIDATION: 8}


def test_given_training_beside_free_clips():
    birds = dataset(groups=[None] * 30, parts=[{"given": "train"}] * 10 + [{}] * 20)
    part = per_fold(draw(birds, folds=4))
    assert (part[:, :10] != TEST).all()
    assert (np.sum(part[:, 10:] == TEST, axis=0) == 1).all()


@pytest.mark.parametrize("first, second", [("train", "test"), ("train", "validation"), ("validation", "test")])
def test_given_parts_that_tear_a_group_apart(first, second):
    birds = dataset(groups=["a", "a", "b", "b", "c"], parts=[{"given": part} for part in (first, second, first, second, first)])
    with pytest.raises(LeakError) as error:
        draw(birds)
    assert "found 2 in two or more (dataset birds)" in str(error.value)
    assert f"a ({first}, {second}), b ({first}, {second})" in str(error.value)


def test_given_parts_of_two_datasets_that_share_audio():
    birds = dataset(groups=[None], audio=[("5f" * 16, 0.0, 2.0)], parts=[{"given": "train"}])
    frogs = dataset("frogs", [None], audio=[("5f" * 16, 1.0, None)], parts=[{"given": "test"}])
    with pytest.raises(LeakError, match=r"\(dataset birds, frogs\): audio 5f5f5f5f \(train, test\)"):
        draw(birds, frogs)


def test_parts_only():
    birds = dataset(groups=[f"g{place}" for place in range(20)])
    noise = dataset("noise", [f"g{place}" for place in range(5)] + [None] * 10, only=("train",))
    unseen = dataset("unseen", [None] * 3, only=("test",))
    parts = draw(birds, noise, unseen, folds=4, validation=0.2)
    shared = per_fold(parts)[:, :5]
    assert (per_fold(parts, "noise")[:, :5] == np.where(shared == TRAIN, TRAIN, -1)).all()
    assert (per_fold(parts, "noise")[:, 5:] == TRAIN).all()
    assert (per_fold(parts, "unseen") == TEST).all()
    assert any(re.fullmatch(r"fold \d: \d clips of dataset noise are not used", line) for line in parts.notes)


# Own folds ------------------------------------------------------------------------------------------------------------


def own_folds(number, clips, per_group=2, **more):
    return [{f"fold{fold + 1}": "test" if place // per_group % number == fold else "train" for fold in range(number)} | more
            for place in range(clips)]


def test_own_folds_hold_and_the_others_are_drawn_in_their_number():
    scenes = dataset("scenes", [f"s{place // 2}" for place in range(24)], parts=own_folds(4, 24))
    birds = dataset(groups=["s0", "s0"] + [None] * 18)
    parts = draw(scenes, birds, folds="official", validation=0.25)
    assert len(parts.folds) == 4
    expected = np.array([[place // 2 % 4 == fold for place in range(24)] for fold in range(4)])
    assert ((per_fold(parts, "scenes") == TEST) == expected).all()
    assert (np.sum(per_fold(parts, "scenes") == VALIDATION, axis=1) == 4).all()
    assert (np.sum(per_fold(parts) == TEST, axis=0) == 1).all()
    assert (per_fold(parts)[:, 0] == per_fold(parts, "scenes")[:, 0]).all()


def test_own_folds_with_given_test_validation_and_absent_clips():
    parts = own_folds(2, 8) + [{"given": "test"}] * 2 + [{"fold1": "validation"}, {"fold2": "train"}, {}]
    scenes = dataset("scenes", [f"s{place // 2}" for place in range(10)] + [None] * 3, parts=parts)
    first, second = per_fold(draw(scenes, folds="official", validation=0.4), "scenes")
    assert first.tolist() == [2, 2, 0, 0, 2, 2, 0, 0, 2, 2, 1, -1, -1]
    assert (second[8:] == [2, 2, -1, second[11], -1]).all() and second[11] in (TRAIN, VALIDATION)
    assert np.sum(second == VALIDATION) > 0


def test_own_folds_that_tear_a_group_apart_in_one_fold_only():
    apart = own_folds(2, 4, per_group=1)
    with pytest.raises(LeakError, match=r"fold 1: .* found 1 in two or more \(dataset scenes\): s \(train, test\)"):
        draw(dataset("scenes", ["s", "s", "t", "u"], parts=apart), folds="official")
    twice = [{"fold1": "test", "fold2": "test"}, {"fold1": "test", "fold2": "test"}, {"fold1": "train"}, {"fold2": "train"}]
    draw(dataset("scenes", ["s", "s", "t", "u"], parts=twice), folds="official")


def test_own_folds_that_contradict_the_given_part():
    with pytest.raises(LeakError, match="fold1: .* found 4 clips with others .dataset scenes"):
        draw(dataset("scenes", [None] * 8, parts=own_folds(2, 8, given="train")), folds="official")


@pytest.mark.parametrize("datasets, says", [
    ([dataset("a", [None] * 8, parts=own_folds(4, 8)), dataset("b", [None] * 10, parts=own_folds(5, 10))], "a: 4, b: 5"),
    ([dataset("a", [None] * 8)], "found none among a"),
    ([dataset("a", [None] * 2, parts=[{"fold1": "test"}, {"fold3": "train"}])], "found fold1, fold3")])
def test_own_folds_that_cannot_be_used(datasets, says):
    with pytest.raises(ExperimentError, match=says):
        draw(*datasets, folds="official")


# What cannot be -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how, says", [({"folds": 0}, "split.folds"), ({"folds": 2.0}, "split.folds"),
                                       ({"folds": "some"}, "split.folds"), ({"folds": True}, "split.folds"),
                                       ({"test": 1.0}, "split.test"), ({"test": -0.1}, "split.test"),
                                       ({"validation": 1}, "split.validation: expected a share from 0 to below 1, found 1")])
def test_numbers_that_make_no_sense(how, says):
    with pytest.raises(ExperimentError, match=says):
        draw(dataset(groups=[None] * 9), **how)


@pytest.mark.parametrize("folds, says", [(3, "at least 3 groups to draw 3 folds from, found 2: left, right"), (1, None)])
def test_fewer_groups_than_folds(folds, says):
    birds, frogs = dataset(groups=["left", "right"] * 5), dataset("frogs", [None] * 9)
    if says:
        with pytest.raises(ExperimentError, match=f"dataset birds: expected {says}.*datasets.birds.group"):
            draw(birds, frogs, folds=folds)
    else:
        assert set(per_fold(draw(birds, frogs, folds=1, validation=0))[0]) == {TRAIN, TEST}


def test_one_group_cannot_be_held_out():
    with pytest.raises(ExperimentError, match="at least 2 groups to draw a test part from, found 1: all"):
        draw(dataset(groups=["all"] * 9), folds=1)


def test_no_test_part_at_all():
    assert set(per_fold(draw(dataset(groups=[None] * 10), folds=1, test=0.0, validation=0.2))[0]) == {TRAIN, VALIDATION}


def test_one_group_left_for_training_is_not_validated():
    parts = draw(dataset(groups=["left", "right"] * 5), folds=2, validation=0.9)
    assert (np.sum(per_fold(parts) == TRAIN, axis=1) == 5).all()
    assert "fold 1: dataset birds has no clips for validation: too few groups to divide" in parts.notes


def test_the_leak_check_finds_what_was_not_drawn_here():
    birds, frogs = dataset(groups=["a", "a", "b"]), dataset("frogs", ["b", "c"])
    parts = draw(birds, frogs, folds=2, validation=0)
    parts.folds[1]["frogs"][0] = TEST - parts.folds[1]["frogs"][0]
    with pytest.raises(LeakError, match=r"fold 2: .*\(dataset birds, frogs\): b \(train, test\)"):
        check_leaks([birds, frogs], parts)


def test_labels_in_one_group():
    labels = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1]])
    assert labels_in_one_group(labels, np.array([0, 0, 1, 1])).tolist() == [True, False, False, True]
    assert not labels_in_one_group(labels, np.zeros(4, int)).any()


def test_one_group_out_tests_each_group_alone():
    sizes = [1, 9, 2, 30, 5, 4]
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    parts = draw(dataset(groups=groups, labels=one_hot(np.arange(len(groups)) % 3)), folds="groups", validation=0.2)
    tested = [{group for group, part in zip(groups, fold["birds"]) if part == TEST} for fold in parts.folds]
    assert sorted(tested, key=min) == [{f"g{number}"} for number in range(len(sizes))]


def test_one_group_out_beside_clips_that_are_given():
    groups, given = [f"g{number // 2}" for number in range(12)], [{"given": "train"}] * 4 + [{}] * 8
    parts = draw(dataset(groups=groups, parts=given), folds="groups", validation=0.0)
    assert len(parts.folds) == 4 and (per_fold(parts)[:, :4] == TRAIN).all()


def test_one_group_out_of_none():
    with pytest.raises(ExperimentError, match='"groups" tests one group per fold, but none is left to draw'):
        draw(dataset(groups=["g0", "g1"], parts=[{"given": "train"}, {"given": "test"}]), folds="groups")
