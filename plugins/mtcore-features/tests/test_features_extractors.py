"""Extractors against librosa, python_speech_features and numpy on generated sound."""

import dataclasses

import librosa
import numpy as np
import pytest
import python_speech_features as psf
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_features.gammatone import Gammatone
from mtcore_features.logbank import Logbank, LogbankSummary
from mtcore_features.music import Chroma
from mtcore_features.spectral import LogMel, Mel, Mfcc, Stft

from mtcore.plugin import Axis, ClipError, ParameterError

RATES = (8000, 16000, 44100, 48000)
ALL = (Stft, Mel, LogMel, Mfcc, Gammatone, Chroma, Logbank, LogbankSummary)


def sound(rate, seconds=1.5, channels=2):
    """A rising tone, noise, a stretch of silence, in float32 [channels, n]."""
    n = int(rate * seconds)
    t = np.arange(n) / rate
    x = 0.3 * np.sin(2 * np.pi * (150 + 400 * t) * t) + 0.01 * np.random.default_rng(rate).standard_normal((channels, n))
    x[:, n // 2:n // 2 + rate // 5] = 0
    return x.astype(np.float32)


def off(a, b):
    assert a.dtype == np.float32 and a.flags.c_contiguous and a.shape == b.shape
    return np.abs(a - b).max() / np.abs(b).max()


def librosa_mel(x, rate, e):
    frame, hop, fft = e.lengths(rate)
    return librosa.feature.melspectrogram(y=x, sr=rate, n_fft=fft, win_length=frame, hop_length=hop, n_mels=e.filters,
                                          fmin=e.fmin, fmax=e.fmax)


def psf_logbank(x, rate, e):
    options = (rate, e.frame, e.hop, e.filters, e.lengths(rate).fft, e.fmin, e.fmax, e.preemphasis)
    return np.stack([psf.logfbank(channel, *options).T for channel in x])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("options", [{}, {"fft": 4096}, {"fft": 2049, "frame": 0.0417}, {"frame": 0.064, "hop": 0.025}], ids=str)
def test_stft_equals_librosa(rate, options):
    e, x = Stft(**options), sound(rate)
    frame, hop, fft = e.lengths(rate)
    assert off(e.prepare(rate)(x), np.abs(librosa.stft(y=x, n_fft=fft, win_length=frame, hop_length=hop))) <= 1e-5


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("options", [{}, {"filters": 40, "fmin": 50, "fmax": 3800}, {"frame": 0.025, "fft": 2048}], ids=str)
def test_mel_and_logmel_equal_librosa(rate, options):
    x, e = sound(rate), LogMel(**options)
    expected = librosa_mel(x, rate, e)
    assert off(Mel(**options).prepare(rate)(x), expected) <= 1e-5
    assert off(e.prepare(rate)(x), librosa.power_to_db(S=expected)) <= 1e-4
    assert off(LogMel(**options, top_db=0).prepare(rate)(x), librosa.power_to_db(S=expected, top_db=None)) <= 1e-4
    assert off(LogMel(**options, top_db=30).prepare(rate)(x), librosa.power_to_db(S=expected, top_db=30)) <= 1e-4


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("deltas, width", [(0, 9), (1, 9), (2, 9), (2, 5)])
def test_mfcc_equals_librosa(rate, deltas, width):
    x, e = sound(rate), Mfcc(coefficients=13, deltas=deltas, width=width)
    cepstra = librosa.feature.mfcc(S=librosa.power_to_db(S=librosa_mel(x, rate, e)), n_mfcc=13)
    expected = [cepstra] + [librosa.feature.delta(data=cepstra, order=order, width=width) for order in range(1, deltas + 1)]
    found = e.prepare(rate)(x)
    assert off(found, np.concatenate(expected, axis=1)) <= 1e-4
    for order, part in enumerate(expected):
        assert off(np.ascontiguousarray(found[:, 13 * order:13 * (order + 1)]), part) <= 1e-4


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("options", [{}, {"filters": 26, "frame": 0.025, "preemphasis": 0.0},
                                     {"fft": 4096, "fmin": 100, "fmax": 3500}, {"filters": 40, "hop": 0.0125}], ids=str)
def test_logbank_and_its_summary_equal_python_speech_features(rate, options):
    x, e = sound(rate), Logbank(**options)
    expected = psf_logbank(x, rate, e)
    assert off(e.prepare(rate)(x), expected) <= 1e-4
    rows = [expected.min(-1), expected.max(-1), expected.std(-1), expected.mean(-1), np.median(expected, -1),
            *np.percentile(expected, [25, 75], axis=-1)]
    found = LogbankSummary(**options).prepare(rate)(x)
    assert off(found, np.concatenate(rows, axis=-1)) <= 1e-4
    assert found.shape == (2, 7 * e.filters)


def test_the_thesis_input_is_the_default_at_8_khz():
    e = LogbankSummary()
    assert e.parameters() == LogbankSummary(filters=24, frame=0.03, hop=0.01).parameters()
    assert e.lengths(8000) == (240, 80, 256)
    assert np.array_equal(e.prepare(8000)(sound(8000)), LogbankSummary(fft=256).prepare(8000)(sound(8000)))


@settings(max_examples=40, deadline=None)
@given(extra=st.integers(0, 400), rate=st.sampled_from((8000, 16000)), kind=st.sampled_from(ALL[:-1]))
def test_frames_are_those_of_the_reference_at_every_length(extra, rate, kind):
    e = kind()
    frame, hop, fft = e.lengths(rate)
    x = sound(rate)[:1, :frame + extra]
    expected = (psf_logbank(x, rate, e) if kind is Logbank else librosa.util.frame(
        np.pad(x, ((0, 0), (fft // 2, fft // 2))), frame_length=fft, hop_length=hop)).shape[-1]
    assert e.prepare(rate)(x).shape[-1] == expected


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", (Stft, Mel, Gammatone, Logbank))
@pytest.mark.parametrize("seconds", (0.2, 0.317, 0.733))
def test_a_click_appears_where_the_axis_says(kind, rate, seconds):
    e = kind()
    x = np.zeros((1, rate), np.float32)
    x[0, round(seconds * rate)] = 1
    energy = e.prepare(rate)(x)[0]
    energy = (np.exp(energy) if kind is Logbank else energy).sum(axis=0, dtype=np.float64)
    hop, first = e.axis(rate)
    frame = (seconds - first) / hop
    assert energy[round(frame)] >= energy.max() * (1 - 1e-3)
    assert abs((energy * np.arange(len(energy))).sum() / energy.sum() - frame) <= 0.51


def test_the_axis_of_every_extractor():
    assert LogMel().axis(16000) == Axis(0.01, 0.0) and Mfcc(hop=0.02).axis(8000) == Axis(0.02, 0.0)
    assert Stft().axis(22050).hop == 221 / 22050
    assert LogbankSummary().axis(8000) is None


CHANGES = {"frame": 0.05, "hop": 0.02, "fft": 4096, "filters": 30, "fmin": 200.0, "fmax": 3000.0, "preemphasis": 0.5,
           "top_db": 20.0, "coefficients": 12, "deltas": 1, "width": 7, "bins": 24,
           "tuning": 0.3}


@pytest.mark.parametrize("kind", ALL)
def test_every_parameter_changes_the_result(kind):
    x, start = sound(16000), {"deltas": 2} if kind is Mfcc else {}
    plain = kind(**start).prepare(16000)(x)
    for name in (f.name for f in dataclasses.fields(kind)):
        changed = kind(**start | {name: CHANGES[name]}).prepare(16000)(x)
        assert changed.shape != plain.shape or not np.allclose(changed, plain, rtol=1e-3, atol=1e-3), name


@pytest.mark.parametrize("kind", ALL)
def test_extractors_are_pure_and_channels_stand_alone(kind):
    x = sound(16000)
    x.flags.writeable = False
    function = kind(top_db=0.0).prepare(16000) if issubclass(kind, LogMel) else kind().prepare(16000)
    both = function(x)
    assert np.array_equal(both, function(x)) and np.array_equal(both, kind(**_same(kind)).prepare(16000)(x))
    for channel in range(2):
        assert np.array_equal(both[channel:channel + 1], function(x[channel:channel + 1]))
    strided = np.repeat(x, 2, axis=1)[:, ::2]
    assert np.array_equal(function(strided), both)


def _same(kind):
    return {"top_db": 0.0} if issubclass(kind, LogMel) else {}


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("amplitude", (0.0, 1e-30, 1e4))
def test_silence_and_extremes_are_finite(kind, amplitude):
    assert np.isfinite(kind().prepare(16000)(amplitude * sound(16000))).all()


def test_silence_has_the_value_of_the_reference():
    x = np.zeros((1, 8000), np.float32)
    assert np.allclose(LogMel().prepare(8000)(x), -100)
    assert np.allclose(Logbank().prepare(8000)(x), psf_logbank(x, 8000, Logbank()))


@pytest.mark.parametrize("kind", ALL)
def test_an_fft_shorter_than_the_frame_is_an_error(kind):
    with pytest.raises(ParameterError, match=r"a frame of 1440 samples \(0.03 s at 48000 Hz\), found fft = 512; leave fft out"):
        kind(fft=512, frame=0.03).prepare(48000)


@pytest.mark.parametrize("kind", ALL)
def test_a_clip_shorter_than_a_frame_is_an_error(kind):
    e = kind(frame=0.03)
    e.prepare(8000)(np.ones((1, 240), np.float32))
    with pytest.raises(ClipError, match=r"too short for one frame: .* at least 240 samples \(0.03 s at 8000 Hz\), found 239"):
        e.prepare(8000)(np.ones((1, 239), np.float32))


def test_a_clip_too_short_for_deltas_is_an_error():
    function = Mfcc(deltas=1).prepare(8000)
    assert function(sound(8000)[:, :640]).shape == (2, 40, 9)
    with pytest.raises(ClipError, match="too short for deltas over 9 frames: expected at least 640 samples .* found 639"):
        function(sound(8000)[:, :639])


@pytest.mark.parametrize("wrong, message", [
    (lambda: LogMel().prepare(None), "expected sound with a sampling rate"),
    (lambda: LogMel().axis(None), "expected sound with a sampling rate"),
    (lambda: LogMel(hop=0.0).prepare(8000), "a hop of at least 1; found .* hop = 0 s, which is 0, at 8000 Hz"),
    (lambda: LogMel(frame=1e-4).prepare(8000), "a frame of at least 2 samples .* found frame = 0.0001 s, which is 1"),
    (lambda: Logbank(fmax=5000.0).prepare(8000), "fmin < fmax <= 4000 Hz, half the rate; found fmin = 0, fmax = 5000"),
    (lambda: LogMel(fmin=300.0, fmax=200.0).prepare(8000), "found fmin = 300, fmax = 200"),
    (lambda: LogMel(filters=256).prepare(8000), "every filter to hold a bin of the FFT, found .* of 256 empty .* or fft = 512"),
    (lambda: Logbank(filters=256).prepare(8000), "every filter to hold a bin of the FFT, found .* of 256 empty .* or fft = 512"),
    (lambda: Mfcc(filters=12).prepare(8000), r"at most as many coefficients as filters \(12\), found 20"),
    (lambda: Mfcc(deltas=1, width=8).prepare(8000), "odd width of at least 3 frames, found 8")])
def test_wrong_parameters_are_errors(wrong, message):
    with pytest.raises(ParameterError, match=message):
        wrong()
