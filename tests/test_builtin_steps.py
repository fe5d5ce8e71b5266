"""The core's own steps and extractors against sklearn, scipy and numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import get_window, stft
from sklearn.preprocessing import StandardScaler

from mtcore.builtin.extractors import Spectrogram, Waveform
from mtcore.builtin.preparers import CropOrPad, Mono, Standardize
from mtcore.plugin import Axis, ClipError, Context, Moved, ParameterError, Sums

AXIS = Axis(0.01, 0.015)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sums_of(arrays):
    exact = [x.astype(np.float64) for x in arrays]
    return Sums(np.array([x.shape[-1] for x in arrays]), *(np.stack([f(x) for x in exact]) for f in (
        lambda x: x.sum(-1), lambda x: np.square(x).sum(-1), lambda x: x.min(-1), lambda x: x.max(-1))))


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
    assert (prepared.rate, prepared.axis) == (rate, axis)
    return y, moved


def fitted(step, arrays, axis):
    x = arrays[0]
    return step.prepare(Context((*x.shape[:-1], None) if axis else x.shape, axis=axis)).fit(iter(arrays))


# Mono -----------------------------------------------------------------------------------------------------------------


def test_mono_is_the_mean_of_the_channels():
    x = noise(3, 50)
    for channels in (2, 3):
        assert np.allclose(run(Mono(), x[:channels], 8000)[0], x[:channels].mean(0, keepdims=True))
    assert np.array_equal(run(Mono(), x[:1], 8000)[0], x[:1])
    with pytest.raises(ParameterError, match=r"expected sound \[channels, n\] with a rate, found shape \(4,\)"):
        Mono().prepare(Context((4,), 8000))
    with pytest.raises(ParameterError, match="without one"):  # a picture's rows are no channels
        Mono().prepare(Context((8, 8)))


# CropOrPad ------------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(found=st.integers(1, 40), wanted=st.integers(1, 40), where=st.sampled_from(("start", "center")), signal=st.booleans())
def test_crop_or_pad_keeps_a_stretch_and_pads_zeros_at_the_end(found, wanted, where, signal):
    x = noise(2, 3, found) if not signal else noise(2, found)
    y, moved = run(CropOrPad(length=wanted, where=where), x, **({"rate": 100} if signal else {"axis": AXIS}))
    first = round(moved / 0.01)
    assert y.shape == (*x.shape[:-1], wanted)
    assert np.array_equal(y[..., :found], x[..., first:first + wanted]) and not y[..., found:].any()
    assert first == ((found - wanted) // 2 if where == "center" and found > wanted else 0)


def test_crop_or_pad_in_seconds():
    assert run(CropOrPad(length="3s"), noise(1, 10), 16000)[0].shape == (1, 48000)
    assert run(CropOrPad(length=".5 s"), noise(1, 10), 11025)[0].shape == (1, round(0.5 * 11025))
    assert run(CropOrPad(length="1.5s"), noise(1, 8, 10), axis=Axis(221 / 22050))[0].shape == (1, 8, 150)


@pytest.mark.parametrize("length, expected", [("min", 3), ("median", 6), ("max", 20)])
def test_crop_or_pad_learns_a_whole_length(length, expected):
    arrays = [noise(1, frames) for frames in (3, 20, 8, 5)]
    step = CropOrPad(length=length)
    state = fitted(step, arrays, AXIS)
    assert step.fitted and state["length"] == expected and np.issubdtype(state["length"].dtype, np.integer)
    assert step.prepare(Context((1, None), axis=AXIS)).fit_sums(sums_of(arrays)) == state
    assert run(step, arrays[1], axis=AXIS, state=state)[0].shape == (1, expected)
    assert not CropOrPad(length=5).fitted and not CropOrPad(length="5s").fitted


def test_the_median_between_two_frames_is_the_frame_below():
    assert fitted(CropOrPad(length="median"), [noise(1, 4), noise(1, 7)], AXIS)["length"] == 5


@pytest.mark.parametrize("length, message", [
    ("long", "expected length as a whole number of samples or frames, .* one of min, median and max; found 'long'"),
    (0, r"at least one sample or frame, found 0 \(one is 0.01 s\)"), ("0.001s", "at least one sample or frame, found '0.001s'")])
def test_wrong_lengths_are_errors(length, message):
    with pytest.raises(ParameterError, match=message):
        CropOrPad(length=length).prepare(Context((1, None), axis=AXIS))


def test_crop_or_pad_needs_time():
    with pytest.raises(ParameterError, match=r"expected arrays with a time axis, found shape \(1, 168\)"):
        CropOrPad(length=3).prepare(Context((1, 168)))


# Standardize ----------------------------------------------------------------------------------------------------------


def shifted(*shape, seed):
    """Bins of very different place and spread."""
    return (noise(*shape, seed=seed) * np.float32([[0.01], [1], [30]]) + np.float32([[5], [-60], [1000]])).astype(np.float32)


def sklearn_says(rows, x):
    return StandardScaler().fit(rows.astype(np.float64)).transform(x.astype(np.float64))


def test_standardize_per_bin_and_all_equal_sklearn():
    arrays = [shifted(2, 3, frames, seed=frames) for frames in (50, 9, 120)]
    x = arrays[1]
    y, _ = run(Standardize(), x, axis=AXIS, state=fitted(Standardize(), arrays, AXIS))
    expected = sklearn_says(np.concatenate([a.reshape(6, -1).T for a in arrays]), x.reshape(6, -1).T).T
    assert np.allclose(y, expected.reshape(x.shape), atol=1e-5)
    step = Standardize(per="all")
    y, _ = run(step, x, axis=AXIS, state=fitted(step, arrays, AXIS))
    expected = sklearn_says(np.concatenate([a.reshape(-1, 1) for a in arrays]), x.reshape(-1, 1))
    assert np.allclose(y, expected.reshape(x.shape), atol=1e-5)


@pytest.mark.parametrize("per, axis", [("cell", AXIS), ("cell", None), ("bin", None)])
def test_standardize_per_element_equals_sklearn(per, axis):
    arrays = [shifted(3, 8, seed=seed) for seed in range(20)]
    step = Standardize(per=per)
    y, _ = run(step, arrays[0], axis=axis, state=fitted(step, arrays, axis))
    assert np.allclose(y, sklearn_says(np.stack([a.ravel() for a in arrays]), arrays[0].reshape(1, -1)).reshape(3, 8), atol=1e-5)


@pytest.mark.parametrize("per", ("bin", "all"))
def test_standardize_from_sums_equals_standardize_from_arrays(per):
    arrays = [shifted(2, 3, frames, seed=frames) for frames in (50, 9, 120)]
    prepared = Standardize(per=per).prepare(Context((2, 3, None), axis=AXIS))
    slow, quick = prepared.fit(iter(arrays)), prepared.fit_sums(sums_of(arrays))
    for key in ("mean", "deviation"):
        assert slow[key].shape == quick[key].shape and np.allclose(slow[key], quick[key], rtol=1e-7)


def test_sums_are_used_only_where_they_suffice():
    assert Standardize(per="cell").prepare(Context((2, 3, None), axis=AXIS)).fit_sums is None
    assert Standardize().prepare(Context((2, 3))).fit_sums is None


@settings(max_examples=40, deadline=None)
@given(value=st.floats(-1e4, 1e4, width=32) | st.just(np.float32(0.1)),
       lengths=st.lists(st.integers(1, 900), min_size=3, max_size=9))
def test_what_never_varied_becomes_zero(value, lengths):
    arrays = [np.full((2, frames), value, np.float32) for frames in lengths]
    prepared = Standardize().prepare(Context((2, None), axis=AXIS))
    for state in (prepared.fit(iter(arrays)), prepared.fit_sums(sums_of(arrays))):
        assert (state["deviation"] == 1).all()
        assert np.abs(prepared.apply(arrays[0], state, None)).max() <= 1e-9 * abs(value)


@pytest.mark.parametrize("per", ("bin", "cell", "all"))
def test_standardize_has_an_inverse(per):
    arrays = [shifted(2, 3, 20, seed=seed) for seed in range(4)]
    prepared = Standardize(per=per).prepare(Context((2, 3, None), axis=AXIS))
    state = prepared.fit(iter(arrays))
    assert np.allclose(prepared.inverse(prepared.apply(arrays[2], state, None), state), arrays[2], rtol=1e-5, atol=1e-5)


def test_the_three_ways_to_standardize_differ():
    arrays = [shifted(3, 8, seed=seed) for seed in range(4)]
    steps = [Standardize(per=per) for per in ("bin", "cell", "all")]
    results = [run(step, arrays[0], axis=AXIS, state=fitted(step, arrays, AXIS))[0] for step in steps]
    assert not any(np.allclose(results[i], results[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_standardize_says_when_shapes_differ():
    with pytest.raises(ParameterError, match=r"of one shape for per = 'cell', found \(1, 4\) and \(1, 5\).*put crop_or_pad"):
        fitted(Standardize(per="cell"), [noise(1, 4), noise(1, 5)], AXIS)
    with pytest.raises(ParameterError, match=r"of one shape for per = 'bin', found \(1, 1\) and \(2, 1\)"):
        fitted(Standardize(), [noise(1, 4), noise(2, 4)], AXIS)
    with pytest.raises(ClipError, match=r"fits moments of shape \(1, 4\), found \(1, 5\); put crop_or_pad in front"):
        run(Standardize(per="cell"), noise(1, 5), axis=AXIS, state=fitted(Standardize(per="cell"), [noise(1, 4)], AXIS))


# Extractors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 100), (2, 3, 4, 5), (7,)])
def test_waveform_gives_the_array_as_it_is(shape):
    x = noise(*shape)
    assert np.array_equal(Waveform().prepare(None)(x), x)
    assert Waveform().axis(None) is None and Waveform().axis(8000) == Axis(1 / 8000, 0.0)
    strided = Waveform().prepare(8000)(np.repeat(x, 2, axis=-1)[..., ::2].astype(np.float64))
    assert strided.dtype == np.float32 and strided.flags.c_contiguous


@pytest.mark.parametrize("rate", (8000, 16000, 44100, 48000))
@pytest.mark.parametrize("options", [{}, {"fft": 4096, "hop": 0.02}, {"frame": 0.025}], ids=str)
def test_spectrogram_equals_scipy(rate, options):
    step, x = Spectrogram(scale="magnitude", **options), 0.1 * noise(2, int(3.3 * rate))
    frame, hop, fft = step.lengths(rate)
    window = get_window("hann", frame)
    _, times, expected = stft(x, fs=rate, window=window, nperseg=frame, noverlap=frame - hop, nfft=fft, boundary=None,
                              padded=False)
    magnitude = step.prepare(rate)(x)
    assert magnitude.shape == expected.shape
    assert np.allclose(magnitude, np.abs(expected) * window.sum(), atol=1e-5 * magnitude.max())
    assert np.allclose(times, step.axis(rate).first + step.axis(rate).hop * np.arange(len(times)))
    power = Spectrogram(scale="power", **options).prepare(rate)(x)
    assert np.allclose(power, np.square(magnitude), rtol=1e-5)
    assert np.allclose(Spectrogram(**options).prepare(rate)(x), 10 * np.log10(np.maximum(power, 1e-10)), atol=1e-3)


@pytest.mark.parametrize("rate", (8000, 44100))
def test_a_click_appears_where_the_axis_says(rate):
    step = Spectrogram(scale="power")
    hop, first = step.axis(rate)
    for seconds in (0.2, 0.317, 0.733):
        x = np.zeros((1, rate), np.float32)
        x[0, round(seconds * rate)] = 1
        assert step.prepare(rate)(x)[0].sum(0).argmax() == round((seconds - first) / hop)


def test_spectrogram_is_pure_and_finite():
    x = noise(2, 8000)
    x.flags.writeable = False
    plain = Spectrogram().prepare(8000)(x)
    assert plain.dtype == np.float32 and plain.flags.c_contiguous and np.array_equal(plain, Spectrogram().prepare(8000)(x))
    assert np.allclose(Spectrogram().prepare(8000)(0 * x), -100)
    for change in ({"frame": 0.05}, {"hop": 0.02}, {"fft": 512}, {"scale": "power"}):
        other = Spectrogram(**change).prepare(8000)(x)
        assert other.shape != plain.shape or not np.allclose(other, plain)


def test_errors_of_the_spectrogram():
    with pytest.raises(ParameterError, match=r"a frame of 1536 samples \(0.032 s at 48000 Hz\), found fft = 512; leave fft out"):
        Spectrogram(fft=512).prepare(48000)
    with pytest.raises(ParameterError, match="expected sound with a sampling rate"):
        Spectrogram().prepare(None)
    with pytest.raises(ParameterError, match="a hop of at least 1; found .* hop = 0 s, which is 0, at 8000 Hz"):
        Spectrogram(hop=0.0).prepare(8000)
    with pytest.raises(ClipError, match=r"too short for one frame: .* at least 256 samples \(0.032 s at 8000 Hz\), found 255"):
        Spectrogram().prepare(8000)(noise(1, 255))
