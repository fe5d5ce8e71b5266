"""openSMILE's functionals against the library called by hand, for each channel."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import opensmile
import pytest
from mtcore_features.smile import SETS, OpenSmile

from mtcore.plugin import ClipError, ParameterError


def noise(n, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal((2, n)).astype(np.float32)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("rate", (8000, 16000, 44100))
def test_equals_opensmile_down_to_the_shortest_clip(name, rate):
    function = OpenSmile(set=name).prepare(rate)
    smile = opensmile.Smile(feature_set=name, feature_level="func")
    for n in (rate, math.ceil(SETS[name] * rate / 1000)):
        x = noise(n)
        found, expected = function(x), np.concatenate([smile.process_signal(channel, rate).to_numpy() for channel in x])
        assert found.dtype == np.float32 and found.shape == (2, len(smile.feature_names)) and np.array_equal(found, expected)
    with pytest.raises(ClipError, match=f"too short for {name}: "):
        function(x[:, :-1])


@pytest.mark.parametrize("name", SETS)
def test_silence_is_finite(name):
    assert np.isfinite(OpenSmile(set=name).prepare(16000)(np.zeros((1, 16000), np.float32))).all()


def test_full_scale_does_not_wrap():
    x = np.sin(2 * np.pi * 100 * np.arange(16000) / 16000, dtype=np.float64)[None].astype(np.float32)
    assert x.max() == 1
    function = OpenSmile(set="IS09").prepare(16000)
    assert np.allclose(function(x), function(x * np.float32(0.9999)), rtol=0.2, atol=0.05)
    assert np.array_equal(function(2 * x), function(np.clip(2 * x, -1, 1)))


def test_threads_do_not_disturb_each_other():
    function, clips = OpenSmile().prepare(16000), [noise(8000, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as threads:
        assert np.array_equal(np.stack(list(threads.map(function, clips))), np.stack([function(x) for x in clips]))


def test_needs_a_rate():
    with pytest.raises(ParameterError, match="expected sound with a sampling rate"):
        OpenSmile().prepare(None)
