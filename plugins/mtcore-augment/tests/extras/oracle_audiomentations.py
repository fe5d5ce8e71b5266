"""Transforms of audiomentations against the library called by hand, and what the conformance kit expects of the step."""

import random

import audiomentations
import numpy as np
import pytest
from mtcore_augment.library import TRANSFORMS, Audiomentations

from mtcore.plugin import Context, ParameterError
from mtcore.testing import checks_of

RATE = 16000


def sound(channels=1):
    return (0.1 * np.random.default_rng(0).standard_normal((channels, RATE))).astype(np.float32)


def prepared(channels=1, **parameters):
    return Audiomentations(**parameters).prepare(Context((channels, None), RATE))


@pytest.mark.parametrize("check", [check for check in checks_of("augment") if check.subject.spec
                                   and check.subject.spec.name == "audiomentations"], ids=lambda check: check.id)
def test_conformance(check):
    check()


@pytest.mark.parametrize("channels", (1, 2))
@pytest.mark.parametrize("name", TRANSFORMS)
def test_draws_from_its_stream_alone_and_leaves_the_process_alone(name, channels):
    apply, x, results = prepared(channels, transform=name).apply, sound(channels), []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)
        before = random.getstate(), np.random.get_state()[1].copy()
        results.append(apply(x, {}, np.random.default_rng(0)))
        assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1])
        apply(x, {}, np.random.default_rng(5))
    assert results[0].tobytes() == results[1].tobytes() and results[0].shape == x.shape and results[0].dtype == np.float32
    assert np.array_equal(x, sound(channels))


@pytest.mark.parametrize("name", TRANSFORMS)
def test_equals_the_library_and_silence_stays_finite(name):
    x, seed = sound(), int(np.random.default_rng(3).integers(1 << 32))
    found = prepared(transform=name).apply(x, {}, np.random.default_rng(3))
    random.seed(seed)
    np.random.seed(seed)
    assert np.array_equal(found, getattr(audiomentations, name)(p=1.0)(x.copy(), RATE))
    assert np.isfinite(prepared(transform=name).apply(0 * x, {}, np.random.default_rng(3))).all()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_happens_stays_where_it_was(name):
    step = prepared(transform=name)
    for seed in range(4):
        silence, click = np.zeros((1, RATE), np.float32), np.zeros((1, RATE), np.float32)
        click[0, RATE // 2] = 0.5
        before, after = (step.apply(x, {}, np.random.default_rng(seed)) for x in (silence, click))
        change = np.abs(after - before)[0]
        assert not change.any() or abs(int(change.argmax()) - RATE // 2) <= 0.001 * RATE


def test_options_are_those_of_the_transform():
    found = prepared(transform="Gain", options={"min_gain_db": 6.0, "max_gain_db": 6.0}).apply(sound(), {}, np.random.default_rng(0))
    assert np.allclose(found, sound() * 10 ** (6 / 20))
    with pytest.raises(ParameterError, match="refuses its options .*loudness"):
        prepared(transform="Gain", options={"loudness": 6.0})
    with pytest.raises(ParameterError, match="write p beside use"):
        prepared(transform="Gain", options={"p": 0.5})
