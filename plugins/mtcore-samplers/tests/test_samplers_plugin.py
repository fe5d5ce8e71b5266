"""Shares are kept, epochs end where they shall, every row comes, and everything follows from the stream."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_samplers.buckets import Bucketed
from mtcore_samplers.shares import Balanced, Temperature, Weighted

import mtcore
from mtcore.plugin import ParameterError, SamplerIndex
from mtcore.testing import parametrize_checks


@parametrize_checks("samplers")
def test_conformance(check):
    check()


def index(sizes, labels=None, lengths=None):
    dataset = np.repeat(np.arange(len(sizes)), sizes)
    rows = len(dataset)
    return SamplerIndex(dataset, np.arange(rows), np.asarray(lengths) if lengths is not None else np.full(rows, 10),
                        {"word": np.asarray(labels)} if labels is not None else {}, tuple("abcdef"[:len(sizes)]))


def epoch(sampler, of, batch_size, seed=0):
    return list(sampler.build(of, batch_size)(1, np.random.default_rng(seed)))


SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 16), st.sampled_from([Balanced(), Temperature(power=0.3), Temperature(power=1.0), Weighted(weights={"a": 3.0})]),
       st.integers(0, 99))
def test_no_source_is_a_row_away_from_its_share_and_the_longest_is_covered(sizes, batch_size, sampler, seed):
    of = index(sizes)
    batches = epoch(sampler, of, batch_size, seed)
    weights = {Balanced: lambda n, s: 1.0, Temperature: lambda n, s: s**sampler.power if isinstance(sampler, Temperature) else 0,
               Weighted: lambda n, s: 3.0 if n == 0 else 1.0}[type(sampler)]
    shares = np.array([weights(number, size) for number, size in enumerate(sizes)])
    shares = shares / shares.sum()
    drawn = np.zeros(len(sizes))
    for number, batch in enumerate(batches, 1):
        assert len(batch) == batch_size
        drawn += np.bincount(of.dataset[batch], minlength=len(sizes))
        assert (np.abs(drawn - shares * batch_size * number) < 1 + 1e-6).all()
    counts = Counter(row for batch in batches for row in batch)
    passes = [[counts[row] for row in np.flatnonzero(of.dataset == number)] for number in range(len(sizes))]
    assert all(max(seen) - min(seen) <= 1 for seen in passes)  # each source is gone through in whole shuffles
    assert batches == epoch(sampler, of, batch_size, seed)


@pytest.mark.parametrize("until, batches", [("longest", 20), ("shortest", 2), ("b", 4)])
def test_where_an_epoch_ends(until, batches):
    assert len(epoch(Balanced(until=until), index([100, 20, 10]), 15)) == batches
    assert len(epoch(Balanced(until=until, batches=7), index([100, 20, 10]), 15)) == 7


def test_rows_of_the_named_source_come_whole_and_those_of_a_longer_one_in_part():
    of = index([100, 20, 10])
    for until, whole in (("longest", "abc"), ("b", "bc"), ("shortest", "c")):
        counts = Counter(row for batch in epoch(Temperature(power=0.5, until=until), of, 4) for row in batch)
        rows = {name: np.flatnonzero(of.dataset == number) for number, name in enumerate("abc")}
        assert "".join(name for name in "abc" if all(counts[row] for row in rows[name])) == whole


@settings(max_examples=40, deadline=None)
@given(SIZES, st.integers(1, 16), st.sampled_from([Balanced(until="shortest"), Weighted(weights={"a": 3.0}, until="shortest"),
    Temperature(batches=2)]),
       st.integers(1, 5))
def test_a_source_that_an_epoch_leaves_unfinished_goes_on_in_the_next(sizes, batch_size, sampler, epochs):
    of = index(sizes)
    build = lambda number: list(sampler.build(of, batch_size)(number, np.random.default_rng(number)))
    every = [[row for batch in build(number) for row in batch] for number in range(epochs)]
    for source in range(len(sizes)):
        rows = [[row for row in epoch if of.dataset[row] == source] for epoch in every]
        if len(rows[0]) < sizes[source]:
            walked = sum(rows, [])
            passes = [walked[first:first + sizes[source]] for first in range(0, len(walked), sizes[source])]
            assert all(len(set(one)) == len(one) for one in passes)  # each a shuffle of all rows, the last one begun


def test_another_seed_is_another_walk():
    walks = [list(Balanced(until="shortest").build(replace(index([50, 4]), seed=seed), 4)(1, np.random.default_rng(0))) for seed in (1, 1, 2)]
    assert walks[0] == walks[1] != walks[2]


@pytest.mark.parametrize("sampler", [Balanced(until="shortest"), Temperature(batches=5), Weighted(weights={"b": 2.5}), Bucketed(pool=2)])
def test_an_epoch_goes_on_behind_any_batch_and_others_are_other_draws(sampler):
    build = lambda: sampler.build(index([50, 20, 9], lengths=np.arange(79) % 13), 7)
    whole = list(build()(4, np.random.default_rng(8)))
    for consumed in range(len(whole)):
        assert list(islice(build()(4, np.random.default_rng(8)), consumed, None)) == whole[consumed:]
    assert list(build()(5, np.random.default_rng(9))) != whole


def test_labels_in_equal_numbers():
    labels = [0] * 90 + [1] * 10 + [-1] * 20
    batches = epoch(Balanced(task="word"), index([100, 20], labels), 12)
    assert {tuple(np.bincount(np.array(labels)[batch] + 1)) for batch in batches} == {(4, 4, 4)}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 16), st.integers(1, 8))
def test_buckets_hold_every_row_once_and_pad_no_more_than_a_plain_shuffle(lengths, batch_size, pool):
    of = index([len(lengths)], lengths=lengths)
    batches = epoch(Bucketed(pool=pool), of, batch_size)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= batch_size for batch in batches)
    within = sum(np.ptp(of.length[batch]) for batch in batches)
    if pool * batch_size >= len(lengths):  # one pool: sorted as a whole, so that no range is gone over twice
        assert within <= np.ptp(lengths)


@pytest.mark.parametrize("sampler, says", [(Balanced(until="x"), "longest, shortest or one of a, b"), (Balanced(task="y"), "expected one of word"),
                                           (Weighted(weights={"z": 1.0}), "datasets out of a, b")])
def test_what_is_refused(sampler, says):
    with pytest.raises(ParameterError, match=says):
        sampler.build(index([3, 4], labels=[0] * 7), 2)


@pytest.mark.parametrize("sampler", [{"use": "samplers.temperature", "until": "shortest"}, {"use": "samplers.balanced", "task": "timbre"},
                                     "samplers.bucketed", {"use": "samplers.weighted", "weights": {"chords": 2.0}, "batches": 3}])
def test_a_run_and_its_continuation(tmp_path, sampler):
    def run(runs, epochs):
        experiment = mtcore.Experiment({
            "name": "s", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 24}},
            "chords": {"reader": {"use": "core.chords", "count": 40}}},
            "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize"]}}, "split": {"folds": 1, "validation": 0.2},
            "model": {"trunk": {"use": "core.mlp", "hidden": [8]}}, "train": {"epochs": epochs, "batch_size": 8, "sampler": sampler},
            "report": {"reporters": []}}, tmp_path, tmp_path / runs, tmp_path / "cache")
        one, = experiment.run()
        return one.folder.path

    assert ("rows gone through: tones" in (run("cut", 1) / "run.log").read_text()) == (sampler != "samplers.bucketed")
    assert (run("cut", 3) / "metrics.jsonl").read_text() == (run("whole", 3) / "metrics.jsonl").read_text()
