"""Masks on features."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_augment.masks import SpecAugment

from mtcore.plugin import Axis, Context, ParameterError

AXIS = Axis(0.01, 0.0125)


def applied(step, x, seed=0):
    return step.prepare(Context((*x.shape[:-1], None), axis=AXIS)).apply(x, {}, np.random.default_rng(seed))


def features(*shape):
    return np.random.default_rng(0).gamma(2, 2, shape).astype(np.float32)


def runs(hidden):
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
    return edges[1::2] - edges[::2]


@given(seed=st.integers(0, 2**32), channels=st.integers(1, 2), bins=st.integers(8, 40), frames=st.integers(1, 200),
       bands=st.integers(0, 2), stretches=st.integers(0, 2), share=st.floats(0, 1), fill=st.sampled_from(("mean", "zero")))
@settings(max_examples=60, deadline=None)
def test_masks_are_whole_bands_and_stretches_no_wider_than_allowed(seed, channels, bins, frames, bands, stretches, share, fill):
    x = features(channels, bins, frames)
    before = x.copy()
    step = SpecAugment(bands=bands, bins=6, stretches=stretches, frames="0.2s", share=share, fill=fill)
    found = applied(step, x, seed)
    assert found.dtype == np.float32 and np.array_equal(x, before) and found.tobytes() == applied(step, x, seed).tobytes()
    hidden = found != x
    assert np.allclose(found[hidden], x.mean(dtype=np.float64) if fill == "mean" else 0, rtol=1e-6)
    if fill == "zero":  # the mean may be one of the values
        assert (hidden == hidden[0]).all()
        rows, columns = hidden[0].all(axis=1), hidden[0].all(axis=0)
        whole = rows.all()
        assert whole or np.array_equal(hidden[0], rows[:, None] | columns)
        assert whole or sum(runs(rows)) <= 6 * bands
        assert whole or (columns.sum() <= stretches * min(20, int(share * frames)))


def test_widths_and_places_are_drawn_evenly():
    x, widths, first, last = features(1, 20, 100), [], 0, 0
    for seed in range(600):
        hidden = (applied(SpecAugment(bands=1, bins=5, stretches=0, fill="zero"), x, seed) != x)[0, :, 0]
        widths.append(int(hidden.sum()))
        first, last = first + hidden[0], last + hidden[-1]
    counts = np.bincount(widths)
    assert len(counts) == 6 and counts.min() > 60 and first and last and 0.5 < first / last < 2


def test_mean_keeps_the_mean_of_a_constant_and_silence():
    for value in (0.0, -80.0):
        x = np.full((1, 24, 50), value, np.float32)
        assert np.array_equal(applied(SpecAugment(), x), x)


def test_frames_may_be_a_number_and_seconds_follow_the_hop():
    x = features(1, 24, 1000)
    for frames in (30, "0.3s"):
        widest = max((applied(SpecAugment(bands=0, stretches=1, frames=frames, share=1.0, fill="zero"), x, seed) == 0)[0, 0].sum()
                     for seed in range(200))
        assert widest == 30


@pytest.mark.parametrize("context", (Context((1, 24)), Context((1, None), rate=16000.0), Context((None,), axis=AXIS),
                                     Context((1, 7, None), axis=AXIS)))
def test_what_cannot_be_masked_is_an_error(context):
    with pytest.raises(ParameterError, match="expected .* found"):
        SpecAugment().prepare(context)
