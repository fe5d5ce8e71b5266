"""Samplers of the core: every row once per epoch, and how datasets share batches."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcore.builtin.samplers import Alternating, Mixed, Proportional
from mtcore.plugin import SamplerIndex

few = settings(max_examples=50, deadline=None)
SAMPLERS = [Mixed(), Proportional(), Alternating()]
sizes = st.lists(st.integers(0, 40), min_size=1, max_size=5)


def index_of(sizes, seed=0):
    dataset = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return SamplerIndex(dataset=dataset, group=np.zeros_like(dataset), length=np.ones_like(dataset), labels={})


def epoch_of(sampler, index, batch_size, seed=0, epoch=0):
    return list(sampler.build(index, batch_size)(epoch, np.random.default_rng(seed)))


@given(sampler=st.sampled_from(SAMPLERS), sizes=sizes, batch_size=st.integers(1, 12), seed=st.integers(0, 9))
@few
def test_every_row_comes_once_and_the_generator_decides(sampler, sizes, batch_size, seed):
    index = index_of(sizes, seed)
    batches = epoch_of(sampler, index, batch_size, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(sum(sizes)))
    assert all(type(row) is int for batch in batches for row in batch)
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert batches == epoch_of(sampler, index, batch_size, seed)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_epochs_differ_with_the_generator(sampler):
    index, batches = index_of([30, 30]), {}
    for seed in (1, 2):
        batches[seed] = epoch_of(sampler, index, 8, seed)
    assert batches[1] != batches[2]


@given(sampler=st.sampled_from(SAMPLERS[:2]), sizes=sizes, batch_size=st.integers(1, 12))
@few
def test_only_the_last_batch_is_smaller(sampler, sizes, batch_size):
    lengths = [len(batch) for batch in epoch_of(sampler, index_of(sizes), batch_size)]
    assert all(length == batch_size for length in lengths[:-1])


@given(sizes=sizes, batch_size=st.integers(1, 12), seed=st.integers(0, 9))
@few
def test_proportional_batches_keep_the_ratio_of_what_is_left(sizes, batch_size, seed):
    index, left = index_of(sizes), np.array(sizes)
    for batch in epoch_of(Proportional(), index, batch_size, seed):
        counts = np.bincount(index.dataset[batch], minlength=len(sizes))
        assert (np.abs(counts - len(batch) * left / left.sum()) < 1).all()
        left -= counts


def test_proportional_spreads_a_small_dataset_over_the_epoch():
    index = index_of([1000, 10])
    places = [np.mean([i for i, batch in enumerate(epoch_of(Proportional(), index, 10, seed)) if index.dataset[batch].any()])
              for seed in range(40)]
    assert 40 < np.mean(places) < 61  # of 101 batches


@given(sizes=sizes, batch_size=st.integers(1, 12), seed=st.integers(0, 9))
@few
def test_alternating_batches_hold_one_dataset(sizes, batch_size, seed):
    index = index_of(sizes)
    batches = epoch_of(Alternating(), index, batch_size, seed)
    datasets = [set(index.dataset[batch].tolist()) for batch in batches]
    assert all(len(found) == 1 for found in datasets)
    assert Counter(found.pop() for found in datasets) == Counter({d: -(-n // batch_size) for d, n in enumerate(sizes) if n})


def test_alternating_draws_datasets_by_their_size():
    index = index_of([90, 10])
    first = [index.dataset[epoch_of(Alternating(), index, 1, seed)[0][0]] for seed in range(400)]
    assert 0.05 < np.mean(first) < 0.16


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_million_rows(sampler):
    index = index_of([700_000, 299_000, 1_000])
    rows = np.concatenate(epoch_of(sampler, index, 256))
    assert np.array_equal(np.sort(rows), np.arange(1_000_000))
