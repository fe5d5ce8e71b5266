"""Steps on sound: what they promise for any sound and any stream, and other libraries as oracles."""

import librosa
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from mtcore_augment.examples import Recordings
from mtcore_augment.level import Clipping, Filter, Gain, Polarity
from mtcore_augment.mixing import MixNoise, Noise, Reverb, coloured
from mtcore_augment.time import Pitch, RandomCrop, Shift, Stretch

from mtcore.plugin import Axis, Context, Moved, ParameterError

RATE = 16000
few = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32)


def sound(n=RATE, channels=1, seed=0):
    time = np.arange(n) / RATE
    noise = np.random.default_rng(seed).standard_normal((channels, n))
    return (0.3 * np.sin(2 * np.pi * 440 * time) + 0.03 * noise).astype(np.float32)


def applied(step, x, seed=0, materials=(), rate=RATE):
    """The result as `Moved`."""
    prepared = step.prepare(Context((len(x), None), rate, materials=dict(materials)))
    found = prepared.apply(x, {}, np.random.default_rng(seed))
    return found if isinstance(found, Moved) else Moved(found)


def level(x):
    return 10 * np.log10(np.square(x, dtype=np.float64).mean())


noises = {"noise": Recordings(sound(3000, 1, 7) + 0.1, sound(40000, 2, 8))}
decay = np.exp(-np.arange(900, dtype=np.float32) / 90)
rooms = {"rooms": Recordings(decay * np.random.default_rng(0).standard_normal((1, 900), np.float32))}
STEPS = [(Gain(), {}), (Polarity(), {}), (Clipping(), {}), (Filter(), {}), (Noise(colours=("white", "pink", "brown")), {}),
         (MixNoise(material="noise"), noises), (Reverb(material="rooms"), rooms), (Shift(), {}), (Shift(fill="wrap"), {}),
         (Stretch(), {}), (Pitch(), {}), (RandomCrop(length="0.2s"), {})]


@pytest.mark.parametrize("step, materials", STEPS, ids=lambda value: getattr(type(value), "__name__", "") if value else "")
@given(seed=seeds, n=st.sampled_from((1, 2, 7, 100, 1023, 5000, 16001)), channels=st.integers(1, 3), silent=st.booleans())
@settings(max_examples=12, deadline=None)
def test_any_length_gives_finite_float32_of_the_same_channels(step, materials, seed, n, channels, silent):
    x = np.zeros((channels, n), np.float32) if silent else sound(n, channels)
    before = x.copy()
    found = applied(step, x, seed, materials).array
    assert found.dtype == np.float32 and len(found) == channels and np.isfinite(found).all() and np.array_equal(x, before)
    assert found.shape[-1] == n or isinstance(step, (Stretch, RandomCrop))
    assert not (silent and found.any())
    assert applied(step, x, seed, materials).array.tobytes() == found.tobytes()


@pytest.mark.parametrize("step, materials", STEPS, ids=lambda value: getattr(type(value), "__name__", "") if value else "")
def test_equal_channels_stay_equal(step, materials):
    if isinstance(step, Noise):  # that of the channels is independent
        assert not np.array_equal(*(applied(step, np.repeat(sound(), 2, 0)).array))
        return
    one = {name: Recordings(*(array[:1] for array in recordings.arrays)) for name, recordings in materials.items()}
    a, b = applied(step, np.repeat(sound(), 2, 0), 3, one).array
    assert np.allclose(a, b, atol=1e-6)
    assert np.allclose(applied(step, sound(), 3, one).array[0], a, atol=1e-5)


@given(seed=seeds, low=st.floats(-60, 60), width=st.floats(0, 40))
@few
def test_gain_is_within_its_range(seed, low, width):
    x = sound()
    change = level(applied(Gain(gain=(low, low + width)), x, seed).array) - level(x)
    assert low - 1e-4 <= change <= low + width + 1e-4


def test_draws_cover_the_range_evenly():
    x = sound(100)
    changes = [level(applied(Gain(gain=(-6, 6)), x, seed).array) - level(x) for seed in range(400)]
    assert np.histogram(changes, 4, (-6, 6))[0].min() > 70
    turned = sum(applied(Polarity(), x, seed).array[0, 1] * x[0, 1] < 0 for seed in range(400))
    assert 160 < turned < 240


@given(seed=seeds, snr=st.floats(-20, 60), channels=st.integers(1, 3), n=st.sampled_from((500, RATE, 50000)))
@few
@pytest.mark.parametrize("colour", ("white", "pink", "brown", "material"))
def test_ratio_is_the_one_asked_for(colour, seed, snr, channels, n):
    x = sound(n, channels)
    step = MixNoise(material="noise", snr=(snr, snr)) if colour == "material" else Noise(snr=(snr, snr), colours=(colour,))
    added = applied(step, x, seed, noises).array.astype(np.float64) - x
    assert level(x) - level(added) == pytest.approx(snr, abs=0.1)


@pytest.mark.parametrize("exponent", (0, 1, 2))
@pytest.mark.parametrize("rate", (16000, 44100))
def test_colours_fall_by_3_dB_per_octave_and_power(exponent, rate):
    noise = coloured(np.random.default_rng(0), 1, 30 * rate, rate, exponent)[0]
    frequencies, density = scipy.signal.welch(noise, rate, nperseg=4096)
    inside = (frequencies > 100) & (frequencies < 6000)
    slope = np.polyfit(np.log2(frequencies[inside]), 10 * np.log10(density[inside]), 1)[0]
    assert slope == pytest.approx(-10 * np.log10(2) * exponent, abs=0.1)


def test_coloured_noise_has_nothing_below_20_Hz_and_works_at_any_rate():
    x = coloured(np.random.default_rng(0), 1, 4 * RATE, RATE, 2)
    spectrum = np.square(np.abs(np.fft.rfft(x * np.hanning(x.shape[-1]))))[0]
    assert spectrum[:4 * 18].sum() < 1e-3 * spectrum.sum()
    assert coloured(np.random.default_rng(0), 2, 50, 10.0, 1).std() > 0


@given(seed=seeds, n=st.integers(1, 3000))
@few
def test_material_is_cut_or_repeated_from_a_random_place(seed, n):
    turns = np.exp(2j * np.pi * np.arange(1000) / 1000)
    ramp = np.stack([turns.real, turns.imag]).astype(np.float32) + 2
    x = np.full((2, n), 1e-3, np.float32)
    added = applied(MixNoise(material="noise", snr=(-60, -60)), x, seed, {"noise": Recordings(ramp)}).array - x
    scale = np.sqrt(np.square(added, dtype=np.float64).mean())  # of the noise, whose own level is that of what was taken of it
    matches = [np.allclose(added / scale, part / np.sqrt(np.square(part).mean()), atol=1e-3)
               for part in (np.tile(ramp, 1 + -(-n // 1000))[:, first:first + n] for first in range(1000))]
    assert sum(matches) >= 1 and (n > 1000 or matches.index(True) <= 1000 - n)


def test_a_material_of_another_number_of_channels_lends_its_first():
    noise, x = sound(RATE, 2, 5), sound(channels=3)
    added = applied(MixNoise(material="noise", snr=(0, 0)), x, 1, {"noise": Recordings(noise)}).array - x
    assert np.allclose(added / added.std(), noise[:1] / noise[0].std(), atol=1e-3)


@pytest.mark.parametrize("step", (MixNoise(material="rain"), Reverb(material="rain")))
def test_a_missing_material_is_named(step):
    with pytest.raises(ParameterError, match=r"'rain', found noise; .*\[materials\.rain\]"):
        applied(step, sound(), materials=noises)


@pytest.mark.parametrize("direct, channels", ((0, 1), (300, 1), (5, 2)))
def test_reverb_is_the_convolution_from_the_direct_path_with_the_energy_of_the_clip(direct, channels):
    room = 0.02 * np.random.default_rng(1).standard_normal((channels, 4000), np.float32)
    room[:, direct] = 1
    x = sound(9000, channels)
    found = applied(Reverb(material="rooms"), x, materials={"rooms": Recordings(room)}).array
    whole = np.stack([np.convolve(one, response) for one, response in zip(x.astype(np.float64), room)])
    expected = whole[:, direct:direct + 9000]
    assert np.allclose(found, expected * np.sqrt(np.square(x).sum() / np.square(expected).sum()), atol=1e-5)
    assert level(found) == pytest.approx(level(x), abs=1e-4)


def test_a_silent_room_changes_nothing():
    silence = {"rooms": Recordings(np.zeros((1, 100), np.float32)), "noise": Recordings(np.zeros((1, 100), np.float32))}
    for step in (Reverb(material="rooms"), MixNoise(material="noise")):
        assert np.array_equal(applied(step, sound(), materials=silence).array, sound())


@given(seed=seeds, fill=st.sampled_from(("zero", "wrap")), n=st.integers(1, 3000))
@few
def test_shift_says_where_everything_went(seed, fill, n):
    x = 1 + np.arange(n, dtype=np.float32)[None]
    found = applied(Shift(seconds=(-0.1, 0.1), fill=fill), x, seed)
    by = round(found.by * RATE)
    assert abs(by) <= min(0.1 * RATE, n // 2)
    places = np.arange(n) + by
    expected = x[0, places % n] * (fill == "wrap" or (0 <= places) & (places < n))
    assert np.array_equal(found.array[0], expected)


@given(seed=seeds, n=st.sampled_from((1024, 5000, RATE, 44100)), channels=st.integers(1, 2))
@few
def test_stretch_equals_librosa(seed, n, channels):
    x = sound(n, channels, 1)
    found = applied(Stretch(speed=(0.5, 2.0)), x, seed)
    speed = 1 / found.speed
    assert 0.5 <= speed <= 2
    expected = librosa.effects.time_stretch(y=x.astype(np.float64), rate=speed, n_fft=1024, hop_length=256)
    assert found.array.shape == (channels, round(n / speed)) and np.allclose(found.array, expected, atol=2e-4)


@given(seed=seeds, n=st.sampled_from((1024, 5000, RATE, 44100)), channels=st.integers(1, 2))
@few
def test_pitch_equals_librosa(seed, n, channels):
    x, drawn = sound(n, channels, 1), np.random.default_rng(seed).uniform(-5, 5)
    found = applied(Pitch(semitones=(-5, 5)), x, seed)
    expected = librosa.effects.pitch_shift(y=x.astype(np.float64), sr=RATE, n_steps=drawn, n_fft=1024, hop_length=256)
    assert found.by == 0 and found.speed == 1 and np.allclose(found.array, expected, atol=2e-4)


@pytest.mark.parametrize("step, factor", ((Stretch(speed=(1.3, 1.3)), 1), (Pitch(semitones=(12, 12)), 2),
                                          (Pitch(semitones=(-5, -5)), 2 ** (-5 / 12))))
def test_a_tone_has_the_pitch_asked_for(step, factor):
    x = np.sin(2 * np.pi * 440 * np.arange(2 * RATE, dtype=np.float32) / RATE)[None]
    found = applied(step, x).array[0]
    peak = np.abs(np.fft.rfft(found * np.hanning(len(found)))).argmax() * RATE / len(found)
    assert peak == pytest.approx(440 * factor, abs=2)


@pytest.mark.parametrize("kind, kept, lost", (("low", 100, 6000), ("high", 6000, 100), ("band", 1000, 50)))
def test_filters_pass_and_stop_without_delay(kind, kept, lost):
    tone = lambda frequency: np.sin(2 * np.pi * frequency * np.arange(RATE, dtype=np.float32) / RATE)[None]
    inner = lambda x: x[0, 2000:-2000]
    step = Filter(kinds=(kind,), cutoff=(400, 2000) if kind == "band" else (1000, 1000))
    for seed in range(5):
        x, y = tone(kept), applied(step, tone(kept), seed).array
        lag = np.correlate(inner(y), inner(x), "same").argmax() - len(inner(x)) // 2
        assert lag == 0 and level(inner(applied(step, tone(lost), seed).array)) < level(inner(y)) - 20
    if kind != "band":
        cut = applied(step, tone(1000)).array
        assert level(inner(cut)) - level(inner(tone(1000))) == pytest.approx(-6, abs=0.1)


@given(seed=seeds, low=st.floats(20, 3000), octaves=st.floats(1, 1.4))
@few
def test_bands_are_an_octave_wide_at_least_and_inside(seed, low, octaves):
    x = np.zeros((1, RATE), np.float32)
    x[0, RATE // 2] = 1
    response = np.abs(np.fft.rfft(applied(Filter(kinds=("band",), cutoff=(low, low * 2**octaves)), x, seed).array[0]))
    passed = np.flatnonzero(response > 0.45)
    assert 0.9 * low - 2 < passed[0] and passed[-1] < 1.1 * low * 2**octaves + 2 and passed[-1] > 1.9 * passed[0] - 4


@given(seed=seeds)
@few
def test_clipping_is_at_a_level_below_the_peak(seed):
    x = sound(channels=2)
    found = applied(Clipping(level=(-12, -6)), x, seed).array
    most = np.abs(found).max()
    assert -12.001 <= 20 * np.log10(most / np.abs(x).max()) <= -5.999
    assert np.array_equal(found, np.clip(x, -most, most))


@given(seed=seeds, n=st.integers(1, 400), feature=st.booleans())
@few
def test_random_crop_says_where_it_was(seed, n, feature):
    x = np.arange(1, n + 1, dtype=np.float32)[None]
    context = Context((1, None), axis=Axis(0.01)) if feature else Context((1, None), rate=100.0)
    prepared = RandomCrop(length="1s").prepare(context)
    for result, middle in ((prepared.apply(x, {}, np.random.default_rng(seed)), False), (prepared.off(x, {}), True)):
        moved = result if isinstance(result, Moved) else Moved(result)
        first = round(moved.by * 100)
        assert moved.array.shape == (1, 100) == prepared.shape and moved.array.flags.owndata
        assert np.array_equal(moved.array[0], np.pad(x[0, first:first + 100], (0, max(0, 100 - n))))
        assert not middle or first == max(0, (n - 100) // 2)


def test_random_crops_reach_both_ends():
    x = np.arange(12, dtype=np.float32)[None]
    prepared = RandomCrop(length=10).prepare(Context((1, None), rate=100.0))
    firsts = [prepared.apply(x, {}, np.random.default_rng(seed)).array[0, 0] for seed in range(60)]
    assert set(firsts) == {0, 1, 2}


@pytest.mark.parametrize("make", (lambda: Gain(gain=(3, -3)), lambda: Noise(snr=(0, float("inf"))),
                                  lambda: Stretch(speed=(1.1, 0.9)),
                                  lambda: applied(Filter(cutoff=(100, 8000)), sound()),
                                  lambda: applied(Filter(cutoff=(500, 900)), sound()),
                                  lambda: applied(RandomCrop(length="3 m"), sound()),
                                  lambda: applied(RandomCrop(length="0.00001s"), sound()),
                                  lambda: applied(Filter(kinds=()), sound()), lambda: applied(Noise(colours=()), sound())))
def test_wrong_parameters(make):
    with pytest.raises(ParameterError, match=r"expected .*; found|expected .*, found"):
        make()


@pytest.mark.parametrize("step", [step for step, _ in STEPS if not isinstance(step, RandomCrop)])
def test_features_are_no_sound(step):
    with pytest.raises(ParameterError, match="in front of the extractor"):
        step.prepare(Context((1, 64, None), axis=Axis(0.01)))
