"""Steps on signals and on features against librosa, soxr's own promise, sklearn and numpy."""

import importlib
import importlib.metadata
import subprocess
import sys

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_features import hooks
from mtcore_features.signal import Cut, Normalise, Resample, Trim
from mtcore_features.steps import MinMax, Summary, Window
from sklearn.preprocessing import MinMaxScaler

from mtcore.plugin import Axis, ClipError, Context, Moved, ParameterError, Sums

AXIS = Axis(0.01, 0.0)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(step, x, rate=None, axis=None, state=None):
    """Apply a step and check what holds of every step; gives the array and how far it moved."""
    timed = rate is not None or axis is not None
    prepared = step.prepare(Context((*x.shape[:-1], None) if timed else x.shape, rate, axis))
    x.flags.writeable = False
    result, again = prepared.apply(x, state or {}, None), prepared.apply(x, state or {}, None)
    moved, y = (result.by, result.array) if isinstance(result, Moved) else (0.0, result)
    assert y.dtype == np.float32 and y.flags.c_contiguous
    assert np.array_equal(y, again.array if isinstance(again, Moved) else again)
    shape = prepared.shape(state) if callable(prepared.shape) else prepared.shape
    assert len(shape) == y.ndim and all(a in (None, b) for a, b in zip(shape, y.shape))
    return y, moved, prepared


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old, new", [(8000, 16000), (16000, 8000), (44100, 16000), (48000, 8000), (44100, 48000)])
def test_resample_equals_librosa(old, new):
    x = noise(2, old // 2 + 7)
    y, moved, prepared = run(Resample(rate=new), x, old)
    expected = librosa.resample(y=x, orig_sr=old, target_sr=new, res_type="soxr_hq")
    assert prepared.rate == new and moved == 0 and abs(y.shape[1] - x.shape[1] * new / old) <= 0.5
    n = min(y.shape[1], expected.shape[1])
    assert np.abs(y[:, :n] - expected[:, :n]).max() <= 1e-5 * np.abs(expected).max()


def test_resample_keeps_sound_in_its_place_and_is_identity_at_the_same_rate():
    t = np.arange(48000) / 48000
    x = np.exp(-((t - 0.3) / 0.002) ** 2)[None].astype(np.float32)
    y, _, _ = run(Resample(rate=8000), x, 48000)
    assert y[0].argmax() == 2400
    same, _, prepared = run(Resample(rate=48000), x, 48000)
    assert np.array_equal(same, x) and prepared.rate == 48000


@pytest.mark.parametrize("rate", (8000, 48000))
@pytest.mark.parametrize("options", [{}, {"top_db": 20.0}, {"frame": 0.02, "hop": 0.005}], ids=str)
def test_trim_equals_librosa_and_says_what_it_took(rate, options):
    level = np.interp(np.arange(rate) / rate, [0, 0.3, 0.4, 0.6, 0.8, 1], [1e-5, 1e-5, 1, 1, 1e-5, 1e-5])
    x = noise(2, rate) * level.astype(np.float32)
    step = Trim(**options)
    y, moved, _ = run(step, x, rate)
    expected, (start, stop) = librosa.effects.trim(y=x, top_db=step.top_db, frame_length=round(step.frame * rate),
                                                   hop_length=round(step.hop * rate))
    assert np.array_equal(y, expected) and moved == start / rate > 0.2 and stop < rate


def test_trim_parameters_matter_and_silence_stays():
    x = noise(1, 8000) * np.linspace(0, 1, 8000, dtype=np.float32) ** 4
    lengths = {run(Trim(**options), x, 8000)[0].shape[1] for options in ({}, {"top_db": 20.0}, {"frame": 0.2}, {"hop": 0.0123})}
    assert len(lengths) == 4
    zeros = np.zeros((1, 8000), np.float32)
    assert run(Trim(), zeros, 8000)[0].shape == (1, 8000)


@pytest.mark.parametrize("level", (0.0, -20.0))
def test_normalise_reaches_the_level_and_keeps_the_balance(level):
    x = noise(2, 4000) * np.float32([[0.1], [0.01]])
    peak, _, _ = run(Normalise(level=level), x, 8000)
    rms, _, _ = run(Normalise(mode="rms", level=level), x, 8000)
    assert 20 * np.log10(np.abs(peak).max()) == pytest.approx(level, abs=1e-4)
    assert 10 * np.log10(np.square(rms, dtype=np.float64).mean()) == pytest.approx(level, abs=1e-4)
    assert np.allclose(peak[0] * x[1], peak[1] * x[0], atol=1e-9)


def test_normalise_leaves_silence():
    assert not run(Normalise(), np.zeros((2, 100), np.float32), 8000)[0].any()
    assert not run(Normalise(mode="rms"), np.zeros((2, 100), np.float32), 8000)[0].any()


def test_cut_takes_whole_samples():
    x = noise(2, 100_000)
    y, moved, _ = run(Cut(seconds=1.28), x, 48000)
    assert np.array_equal(y, x[:, :61440]) and moved == 0
    y, moved, _ = run(Cut(start=0.5, seconds=0.25), x, 8000)
    assert np.array_equal(y, x[:, 4000:6000]) and moved == 0.5
    assert np.array_equal(run(Cut(start=1.0), x, 8000)[0], x[:, 8000:])
    assert run(Cut(seconds=0.29), x, 100)[0].shape == (2, 29)       # 0.29 * 100 is just below 29 in floating point
    assert run(Cut(seconds=0.1), x, 11025)[0].shape == (2, 1102)    # rounded down
    assert np.array_equal(run(Cut(seconds=60.0), x, 8000)[0], x)


@pytest.mark.parametrize("step", [Resample(rate=8000), Trim(), Cut(seconds=1.0)])
def test_signal_steps_need_sound(step):
    with pytest.raises(ParameterError, match=r"expected sound \[channels, n\] with a .* rate, found shape \(3, 4\), rate None"):
        step.prepare(Context((3, 4)))


def test_errors_of_signal_steps():
    with pytest.raises(ClipError, match=r"too short to cut: .* more than 800 samples \(start = 0.1 s at 8000 Hz\), found 800"):
        run(Cut(start=0.1), noise(1, 800), 8000)
    with pytest.raises(ParameterError, match="at least one sample at 8000 Hz, found seconds = 1e-05"):
        run(Cut(seconds=1e-5), noise(1, 800), 8000)
    with pytest.raises(ParameterError, match="frame and hop of at least one sample at 8000 Hz, found 0 s"):
        run(Trim(frame=0.0), noise(1, 800), 8000)


# Features -------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(frames=st.integers(1, 60), length=st.integers(1, 30), hop=st.integers(1, 40) | st.none())
def test_windows_are_all_that_lie_fully_inside(frames, length, hop):
    prepared = Window(length=length, hop=hop).prepare(Context((1, 4, None), axis=AXIS))
    shape = (1, 4, frames)
    if frames < length:
        with pytest.raises(ClipError, match=f"at least {length} frames .* found {frames}; .*crop_or_pad"):
            prepared.count(shape, {})
        return
    starts = [first for first in range(0, frames, hop or length) if first + length <= frames]
    assert [prepared.slice(shape, i, {}) for i in range(prepared.count(shape, {}))] == [(first, length) for first in starts]
    assert prepared.shape == (1, 4, length) and prepared.axis == AXIS


def test_windows_in_seconds_cover_the_same_time_at_every_hop():
    for hop in (0.01, 221 / 22050, 1 / 16000):
        prepared = Window(length="1s", hop="0.25 s").prepare(Context((1, None), axis=Axis(hop)))
        first, frames = prepared.slice((1, 100_000), 3, {})
        assert first * hop == pytest.approx(0.75, abs=2 * hop) and frames * hop == pytest.approx(1, abs=hop)
    assert Window.window and Window.acts_on == "feature"


@pytest.mark.parametrize("step, message", [
    (Window(length="1 minute"), 'expected length as a whole number of frames or as seconds such as "1.5s", found \'1 minute\''),
    (Window(length=10, hop=0), "expected hop of at least one frame, found 0"),
    (Window(length="0.001s"), r"expected length of at least one frame, found '0.001s' \(a frame is 0.01 s\)"),
    (Summary(statistics=("mean", "mode")), "expected statistics out of min, max, std, mean, median, p25, p75; found mode"),
    (Summary(statistics=()), "found none")])
def test_wrong_parameters_of_feature_steps(step, message):
    with pytest.raises(ParameterError, match=message):
        step.prepare(Context((1, 8, None), axis=AXIS))


@pytest.mark.parametrize("step", [Window(length=3), Summary()])
def test_window_and_summary_need_a_time_axis(step):
    with pytest.raises(ParameterError, match=r"time axis.* found shape \(1, 168\)"):
        step.prepare(Context((1, 168)))


@pytest.mark.parametrize("shape", [(2, 5, 33), (2, 5, 1), (3, 2, 5, 4), (17,)])
def test_summary_equals_numpy(shape):
    x = noise(*shape)
    y, _, prepared = run(Summary(), x, axis=AXIS)
    exact = x.astype(np.float64)
    rows = [exact.min(-1), exact.max(-1), exact.std(-1), exact.mean(-1), *np.percentile(exact, [50, 25, 75], axis=-1)]
    assert prepared.axis is None
    assert np.allclose(y, np.concatenate([np.atleast_1d(row) for row in rows], axis=-1), atol=1e-5)
    chosen, _, _ = run(Summary(statistics=("mean", "p75")), x, axis=AXIS)
    assert np.allclose(chosen, np.concatenate([np.atleast_1d(rows[3]), np.atleast_1d(rows[6])], axis=-1), atol=1e-5)


def minmax(per, arrays, axis, x):
    context = Context(x.shape, axis=axis)
    state = MinMax(per=per).prepare(context).fit(iter(arrays))
    return run(MinMax(per=per), x, axis=axis, state=state), state


def test_minmax_equals_sklearn():
    arrays = [noise(2, 3, frames, seed=frames) for frames in (5, 9, 2)]
    (y, _, prepared), _ = minmax("bin", arrays, AXIS, arrays[1])
    scaler = MinMaxScaler().fit(np.concatenate([x.reshape(6, -1).T for x in arrays]))
    assert np.allclose(y, scaler.transform(arrays[1].reshape(6, -1).T).T.reshape(2, 3, -1), atol=1e-5)
    (y, _, _), _ = minmax("all", arrays, AXIS, arrays[1])
    scaler = MinMaxScaler().fit(np.concatenate([x.reshape(-1, 1) for x in arrays]))
    assert np.allclose(y, scaler.transform(arrays[1].reshape(-1, 1)).reshape(y.shape), atol=1e-5)
    for axis, per in ((AXIS, "cell"), (None, "cell"), (None, "bin")):
        cells = [noise(2, 7, seed=seed) for seed in range(5)]
        (y, _, prepared), state = minmax(per, cells, axis, cells[0])
        scaler = MinMaxScaler().fit(np.stack([x.ravel() for x in cells]))
        assert np.allclose(y, scaler.transform(cells[0].reshape(1, -1)).reshape(2, 7), atol=1e-5)
        assert np.allclose(prepared.inverse(y, state), cells[0], atol=1e-5)


def test_minmax_from_sums_equals_minmax_from_arrays():
    arrays = [noise(2, 3, frames, seed=frames) for frames in (5, 9, 2)]
    sums = Sums(np.array([5, 9, 2]), *(np.stack([f(x.astype(np.float64), axis=-1) for x in arrays])
                                       for f in (np.sum, lambda x, axis: np.square(x).sum(axis), np.min, np.max)))
    for per in ("bin", "all"):
        prepared = MinMax(per=per).prepare(Context((2, 3, None), axis=AXIS))
        fitted, quick = prepared.fit(iter(arrays)), prepared.fit_sums(sums)
        assert all(np.array_equal(fitted[key], quick[key]) and fitted[key].shape == quick[key].shape for key in fitted)
    assert MinMax(per="cell").prepare(Context((2, 3, None), axis=AXIS)).fit_sums is None
    assert MinMax().prepare(Context((2, 3))).fit_sums is None


def test_minmax_of_what_never_varied_is_zero():
    x = np.full((1, 4), -40, np.float32)
    (y, _, _), _ = minmax("bin", [x, x], AXIS, x)
    assert not y.any()


def test_minmax_says_when_shapes_differ():
    with pytest.raises(ParameterError, match=r"of one shape for per = 'cell', found \(1, 4\) and \(1, 5\).*put crop_or_pad"):
        minmax("cell", [noise(1, 4), noise(1, 5)], AXIS, noise(1, 4))
    with pytest.raises(ClipError, match=r"fits ranges of shape \(1, 4\), found \(1, 5\)"):
        minmax("cell", [noise(1, 4)], AXIS, noise(1, 5))


# The plugin -----------------------------------------------------------------------------------------------------------


def test_the_plugin_is_found_and_every_target_is_of_its_kind():
    point, = [p for p in importlib.metadata.entry_points(group="mtcore") if p.name == "features"]
    assert point.load() is hooks and point.dist.name == "mtcore-features"
    specs = [*hooks.mtcore_register_preparers(), *hooks.mtcore_register_extractors()]
    for spec in specs:
        module, name = spec.target.split(":")
        component = getattr(importlib.import_module(module), name)
        assert component.kind == spec.kind and component.__doc__ and spec.summary
    assert {spec.name for spec in specs} == {"resample", "trim", "normalise", "cut", "window", "summary", "decibels", "pcen",
                                             "minmax", "stft", "mel", "logmel", "mfcc", "logbank", "logbank_summary", "gammatone",
                                             "cqt", "chroma", "fingerprint", "opensmile", "transformers", "onnx"}


def test_the_hook_module_is_light_and_components_leave_librosa_for_later():
    code = ("import sys, mtcore_features.hooks as h; list(h.mtcore_register_extractors());"
            "assert not {'numpy', 'scipy', 'librosa', 'torch', 'soxr'} & set(sys.modules), 'hooks';"
            "import mtcore_features.spectral, mtcore_features.logbank, mtcore_features.signal, mtcore_features.steps;"
            "import mtcore_features.gammatone, mtcore_features.music, mtcore_features.smile, mtcore_features.pretrained;"
            "assert not {'librosa', 'scipy.signal', 'torch', 'soxr', 'sklearn', 'opensmile', 'transformers', 'onnxruntime'}"
            " & set(sys.modules), 'components'")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
