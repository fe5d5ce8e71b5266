"""Constant-Q, chroma and gammatone against librosa, scipy and what they are by definition; dB and per-channel normalisation."""

import librosa
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_features.gammatone import Gammatone, centres, responses
from mtcore_features.music import Chroma, Cqt
from mtcore_features.spectral import Mel
from mtcore_features.steps import Decibels, Pcen

import mtcore
from mtcore.plugin import Axis, ClipError, Context, ParameterError


def noise(*shape, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tone(hertz, rate, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate, dtype=np.float64)[None].astype(np.float32)


def off(a, b):
    assert a.dtype == np.float32 and a.flags.c_contiguous and a.shape == b.shape
    return np.abs(a - b).max() / np.abs(b).max()


# Constant Q -----------------------------------------------------------------------------------------------------------

SMALL = {"fmin": 110.0, "bins": 36}


@pytest.mark.parametrize("rate, options", [
    (8000, SMALL), (16000, {}), (22050, SMALL | {"hop": 512 / 22050}),
    (16000, SMALL | {"hop": 0.02, "per_octave": 24, "bins": 50}),
    (48000, SMALL), (11025, SMALL)], ids=str)
def test_cqt_equals_librosa(rate, options):
    x, e = noise(2, 2 * rate, seed=rate), Cqt(**options)
    hop, _ = e.axis(rate)
    expected = librosa.cqt(y=x, sr=rate, hop_length=round(hop * rate), fmin=e.fmin, n_bins=e.bins, bins_per_octave=e.per_octave)
    assert off(e.prepare(rate)(x), np.abs(expected)) <= 1e-4


def test_with_gamma_it_equals_the_vqt_of_librosa():
    x = noise(1, 16000)
    expected = librosa.vqt(y=x, sr=16000, hop_length=160, fmin=110.0, n_bins=36, gamma=20.0)
    assert off(Cqt(**SMALL, gamma=20.0).prepare(16000)(x), np.abs(expected)) <= 1e-4


def test_a_tone_is_strongest_in_its_bin():
    e = Cqt()
    for position in (24, 45, 70):
        found = e.prepare(16000)(tone(e.fmin * 2 ** (position / 12), 16000))
        assert (found[0, :, 20:80].argmax(axis=0) == position).all()


def test_a_click_is_where_the_axis_of_cqt_says():
    x = np.zeros((1, 16000), np.float32)
    x[0, 4800] = 1
    energy = Cqt(fmin=220.0, bins=36).prepare(16000)(x)[0, -12:].sum(axis=0)
    hop, first = Cqt().axis(16000)
    assert (hop, first) == (0.01, 0.0) and energy.argmax() == 30


@settings(max_examples=15, deadline=None)
@given(extra=st.integers(0, 3000))
def test_cqt_of_every_length_has_its_frames_and_warns_of_nothing(extra):
    function, least = Cqt(**SMALL).prepare(8000), 1261
    found = function(noise(1, least + extra))
    assert found.shape == (1, 36, 1 + (least + extra) // 80) and np.isfinite(found).all()


def test_cqt_of_short_clips_and_silence():
    function = Cqt(**SMALL).prepare(8000)
    with pytest.raises(ClipError, match="too short for the filter at 110 Hz: expected at least 1261 .*found 1260; .* raise fmin"):
        function(noise(1, 1260))
    assert not function(np.zeros((2, 1300), np.float32)).any()


@pytest.mark.parametrize("change", [{"hop": 0.02}, {"fmin": 120.0}, {"bins": 30}, {"per_octave": 24}, {"gamma": 30.0}], ids=str)
def test_every_parameter_of_cqt_changes_the_result(change):
    x = noise(1, 16000)
    plain, changed = (Cqt(**SMALL | options).prepare(16000)(x) for options in ({}, change))
    assert plain.shape != changed.shape or not np.allclose(plain, changed, rtol=1e-2)


@pytest.mark.parametrize("e, rate, message", [
    (Cqt(), 8000, "every filter below 4000 Hz, half the rate; found the last of 84 bins at 3951.07 Hz, .* fewer bins"),
    (Cqt(hop=1e-5), 8000, "a hop of at least one sample at 8000 Hz, found 1e-05 s"),
    (Cqt(), None, "expected sound with a sampling rate")])
def test_wrong_parameters_of_cqt(e, rate, message):
    with pytest.raises(ParameterError, match=message):
        e.prepare(rate)


# Chroma ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", (8000, 16000, 44100))
@pytest.mark.parametrize("options", [{}, {"bins": 24, "tuning": 0.25}, {"frame": 0.2, "hop": 0.05}], ids=str)
def test_chroma_equals_librosa(rate, options):
    x, e = noise(2, rate, seed=rate), Chroma(**options)
    x[:, rate // 2:] = 0
    frame, hop, fft = e.lengths(rate)
    expected = librosa.feature.chroma_stft(y=x, sr=rate, n_fft=fft, win_length=frame, hop_length=hop, n_chroma=e.bins,
                                           tuning=e.tuning)
    assert off(e.prepare(rate)(x), expected) <= 1e-4


def test_chroma_knows_the_note_in_every_octave():
    function = Chroma().prepare(16000)
    for midi in (48, 57, 64, 83):
        found = function(tone(librosa.midi_to_hz(midi), 16000))[0, :, 10:90]
        assert (found.argmax(axis=0) == midi % 12).all() and np.allclose(found.max(axis=0), 1)
    assert not function(np.zeros((1, 16000), np.float32)).any()


# Gammatone ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate, lowest", [(8000, 150), (16000, 400), (48000, 1800)])
def test_responses_equal_scipy_where_its_coefficients_have_digits(rate, lowest):
    middles, hertz = centres(24, lowest, rate / 2), np.linspace(0, rate / 2, 257)
    for middle, found in zip(middles, responses(middles, hertz, rate)):
        expected = np.abs(scipy.signal.freqz(*scipy.signal.gammatone(middle, "iir", fs=rate), worN=hertz, fs=rate)[1]) ** 2
        assert np.abs(found - expected).max() <= 1e-4 * expected.max()


@pytest.mark.parametrize("middle", (50.0, 100.0, 400.0))
def test_low_filters_at_a_high_rate_are_gammatones(middle):
    rate, t = 48000, np.arange(24000) / 48000  # t^3 exp(-2 pi b t) cos(2 pi f t) is what the name stands for
    impulse = t ** 3 * np.exp(-2 * np.pi * 1.019 * (middle / 9.26449 + 24.7) * t) * np.cos(2 * np.pi * middle * t)
    hertz = np.linspace(1, 4 * middle, 60)
    expected = np.abs(np.exp(-2j * np.pi * hertz[:, None] * t) @ impulse) ** 2
    found = responses(np.array([middle]), hertz, rate)[0]
    assert np.abs(found / found.max() - expected / expected.max()).max() <= 0.03


def test_centres_are_evenly_spaced_in_bandwidths():
    found = centres(5, 100, 4000)
    steps = np.diff(np.log([*found, 4000] + 9.26449 * np.float64(24.7)))
    assert found[0] == pytest.approx(100) and np.allclose(steps, steps[0])


def test_power_is_that_of_the_filtered_sound():
    rate, e = 16000, Gammatone(filters=12, fmin=300.0)
    x = noise(1, 4 * rate)
    frame, hop, fft = e.lengths(rate)
    window = np.hanning(frame + 1)[:-1]
    found = e.prepare(rate)(x)[0].mean(axis=-1) * 2 / fft / (window ** 2).sum()  # Parseval: one side of the spectrum
    filters = [scipy.signal.gammatone(middle, "iir", fs=rate) for middle in centres(12, 300, rate / 2)]
    filtered = [scipy.signal.lfilter(*one, x[0]) for one in filters]
    assert np.allclose(found, np.mean(np.square(filtered), axis=-1), rtol=0.1)


def test_gammatone_is_strongest_at_the_tone():
    e = Gammatone(filters=24)
    for position in (4, 12, 20):
        middle = centres(24, 50, 8000)[position]
        assert (e.prepare(16000)(tone(middle, 16000))[0, :, 5:90].argmax(axis=0) == position).all()


# Levels ---------------------------------------------------------------------------------------------------------------

AXIS = Axis(0.01, 0.0)


def apply(step, x, axis=AXIS):
    x = x.copy()
    x.flags.writeable = False
    prepared = step.prepare(Context((*x.shape[:-1], None), axis=axis))
    assert prepared.axis == axis and prepared.shape == (*x.shape[:-1], None)
    return prepared.apply(x, {}, None)


@pytest.mark.parametrize("top_db, limit", [(80.0, 80.0), (20.0, 20.0), (0.0, None)])
def test_decibels_equal_librosa(top_db, limit):
    x = np.abs(noise(2, 10, 30)) ** 3
    x[:, :, 3:5] = 0
    assert off(apply(Decibels(top_db=top_db), x), librosa.power_to_db(S=x, top_db=limit)) <= 1e-4
    assert off(apply(Decibels(of="magnitude", top_db=top_db), x), librosa.amplitude_to_db(S=x, top_db=limit)) <= 1e-4
    assert np.allclose(apply(Decibels(), 0 * x), -100)


PCEN = [{}, {"scale": 1.0}, {"gain": 0.5}, {"bias": 10.0}, {"bias": 0.0}, {"power": 0.25}, {"power": 0.0},
        {"time_constant": 0.06}, {"eps": 1e3}]


def powers():
    """Mel powers of 0.7 s of noise with a stretch of silence."""
    x = noise(2, 11025)
    x[:, 4000:8000] = 0
    return Mel(filters=20).prepare(16000)(x)


@pytest.mark.parametrize("options", PCEN, ids=str)
def test_pcen_equals_librosa(options):
    x, step = powers(), Pcen(**options)
    with np.errstate(divide="ignore"):
        expected = librosa.pcen(S=x.astype(np.float64) * step.scale, sr=16000, hop_length=160, gain=step.gain, bias=step.bias,
                                power=step.power, time_constant=step.time_constant, eps=step.eps)
    assert off(apply(step, x), expected) <= 1e-4


def test_pcen_is_its_formula():
    x, b = powers().astype(np.float64), (np.sqrt(1 + 4 * 40 ** 2) - 1) / (2 * 40 ** 2)  # 0.4 s are 40 frames
    scaled = x * 2.0 ** 31
    smooth = np.empty_like(x)
    smooth[..., 0] = b * scaled[..., 0] + (1 - b)  # the past is taken as 1
    for frame in range(1, x.shape[-1]):
        smooth[..., frame] = b * scaled[..., frame] + (1 - b) * smooth[..., frame - 1]
    assert off(apply(Pcen(), x.astype(np.float32)), (scaled / (1e-6 + smooth) ** 0.98 + 2) ** 0.5 - 2 ** 0.5) <= 1e-4


def test_every_parameter_of_pcen_changes_the_result():
    plain, *changed = (apply(Pcen(**options), powers()) for options in PCEN)
    assert all(np.isfinite(y).all() and not np.allclose(plain, y, rtol=1e-3) for y in changed)
    assert not apply(Pcen(), 0 * powers()).any()


@pytest.mark.parametrize("step", [Pcen(), Decibels()])
def test_what_is_negative_is_no_power(step):
    with pytest.raises(ParameterError, match="never negative, found -20; put the step right behind .* mel, gammatone or cqt"):
        apply(step, np.full((1, 4, 5), -20, np.float32))


@pytest.mark.parametrize("step, axis, message", [
    (Pcen(), None, r"features with a time axis to normalise, found shape \(1, 8, None\) without one"),
    (Pcen(eps=0.0), AXIS, "expected eps above 0, found 0"), (Pcen(scale=0.0), AXIS, "expected scale above 0"),
    (Pcen(time_constant=-1.0), AXIS, "expected time_constant above 0, found -1")])
def test_wrong_parameters_of_pcen(step, axis, message):
    with pytest.raises(ParameterError, match=message):
        step.prepare(Context((1, 8, None), axis=axis))


# A whole experiment ---------------------------------------------------------------------------------------------------


def test_they_go_through_an_experiment_together(tmp_path):
    experiment = mtcore.Experiment({
        "name": "scales", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 24}, "root": "."}},
        "inputs": {"mel": {"extractor": {"use": "mel", "filters": 16}, "steps": ["pcen", "summary", "standardize"]},
                   "ear": {"extractor": {"use": "gammatone", "filters": 16}, "steps": ["decibels", "summary", "standardize"]},
                   "notes": {"extractor": {"use": "cqt", "fmin": 220.0, "bins": 24},
                             "steps": [{"use": "decibels", "of": "magnitude"}, "summary", "standardize"]},
                   "classes": {"extractor": "chroma", "steps": ["summary"]}},
        "split": {"folds": 1}, "model": {"trunk": {"use": "mlp", "hidden": [16]}}, "train": {"epochs": 2, "batch_size": 8},
    }, runs_folder=tmp_path / "runs", cache=tmp_path / "cache")
    run, = experiment.run()
    inputs = run.data().rows("train").batch(range(4)).inputs
    assert {name: tuple(x.shape[1:]) for name, x in inputs.items()} == {"mel": (1, 112), "ear": (1, 112), "notes": (1, 168),
                                                                        "classes": (1, 84)}
    assert all(x.isfinite().all() for x in inputs.values())
    assert run.done
