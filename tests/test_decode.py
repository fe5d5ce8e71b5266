"""Decoding: every format goes in as it is, what cannot be used is an error that names the file and what is wrong with it."""

import struct

import numpy as np
import pytest
import soundfile

from mtcore.clip import File, Lazy
from mtcore.errors import ClipError, DataError
from mtcore.reading.decode import decode, probe

RATE = 16000


def sound(seconds=1.0, channels=1, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    tones = [0.4 * np.sin(2 * np.pi * (220 * (1 + c) + 150 * time) * time) for c in range(channels)]
    return np.array(tones, dtype=np.float32)


def write(path, samples, rate=RATE, **how):
    soundfile.write(path, samples.T, rate, **how)
    return path


@pytest.mark.parametrize("name, how, tolerance", [
    ("8.wav", {"subtype": "PCM_U8"}, 2**-7), ("16.wav", {"subtype": "PCM_16"}, 2**-15), ("24.wav", {"subtype": "PCM_24"}, 2**-22),
    ("float.wav", {"subtype": "FLOAT"}, 0), ("double.wav", {"subtype": "DOUBLE"}, 0), ("a.flac", {"subtype": "PCM_24"}, 2**-22),
    ("a.aiff", {"subtype": "PCM_16"}, 2**-15), ("a.au", {}, 2**-15), ("a.ogg", {}, 0.05), ("a.mp3", {}, 0.05),
    ("wave.dat", {"format": "WAV"}, 2**-15), ("wavex.wav", {"format": "WAVEX", "subtype": "PCM_16"}, 2**-15)])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format(tmp_path, name, how, tolerance, channels):
    samples = sound(channels=channels)
    file = File(write(tmp_path / name, samples, **how))
    decoded, rate = decode(file)
    assert (decoded.dtype, decoded.flags.c_contiguous, rate) == (np.float32, True, RATE)
    assert decoded.shape == samples.shape
    assert np.abs(decoded - samples).max() <= tolerance
    assert probe(file) == (1.0, RATE, channels)


@pytest.mark.parametrize("name", ["two words.wav", "Vögel (дрозд) 鶫.flac", "b\udcff.wav"])
def test_any_name(tmp_path, name):
    write(tmp_path / "plain", sound(), format=name[-4:].lstrip(".").upper()).rename(tmp_path / name)
    assert decode(File(tmp_path / name))[0].shape == (1, RATE)


@pytest.mark.parametrize("rate", [4000, 44100, 96000])
def test_ten_milliseconds_at_any_rate(tmp_path, rate):
    file = File(write(tmp_path / "a.wav", sound(0.01, rate=rate), rate))
    assert decode(file)[0].shape == (1, rate // 100)
    assert decode(file)[1] == rate


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_stretch_is_what_the_whole_file_has_there(tmp_path, name):
    path = write(tmp_path / name, sound(6, channels=2))
    whole, _ = decode(File(path))
    for start, stop in [(0, 0.5), (0.10003, 0.3), (4.2, 5.9), (5, None), (0, 6.01)]:
        part, _ = decode(File(path, start, stop))
        expected = whole[:, round(start * RATE):None if stop is None else round(stop * RATE)]
        assert part.shape == expected.shape
        assert np.abs(part - expected).max() < 1e-6
        assert probe(File(path, start, stop)).seconds == pytest.approx(expected.shape[1] / RATE)


@pytest.mark.parametrize("start, stop, says", [(1.0, None, "ends at 1.000 s"), (0.5, 1.03, "ends at 1.000 s"),
                                               (3, 4, "ends at 1.000 s"), (0.5, 0.50001, "holds no sample at 16000 Hz")])
def test_a_stretch_outside_the_file(tmp_path, start, stop, says):
    file = File(write(tmp_path / "a.wav", sound()), start, stop)
    for look in (decode, probe):
        with pytest.raises(ClipError, match=says) as error:
            look(file)
        assert str(file) in str(error.value)


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[:round(path.stat().st_size * share)])
    return path


@pytest.mark.parametrize("name, how", [
    ("a.wav", {}), ("f.wav", {"subtype": "FLOAT"}), ("x.wav", {"format": "WAVEX"}), ("a.aiff", {}), ("a.w64", {}), ("a.rf64", {}),
    ("a.au", {}), ("a.flac", {}), ("a.ogg", {}), ("a.mp3", {})])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_a_file_that_was_cut_off(tmp_path, name, how, share):
    with pytest.raises(ClipError, match="cut off") as error:
        decode(File(cut(write(tmp_path / name, sound(20, channels=2), **how), share)))
    assert name in str(error.value)


@pytest.mark.parametrize("name", ["a.ogg", "a.wav", "a.mp3"])
def test_a_tag_behind_the_end_does_no_harm(tmp_path, name):
    path = write(tmp_path / name, sound())
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert decode(File(path))[0].shape == (1, RATE)


@pytest.mark.parametrize("missing", [1, 30, 300])
def test_the_last_page_of_ogg_is_incomplete(tmp_path, missing):
    path = write(tmp_path / "a.ogg", sound(20))
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ClipError, match="cut off"):
        decode(File(path))


def test_a_single_missing_sample_is_noticed(tmp_path):
    path = write(tmp_path / "a.wav", sound())
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ClipError, match="cut off"):
        decode(File(path))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0xFFFFFFFF - 36, 0x80000000])
def test_headers_of_writers_that_cannot_seek_back(tmp_path, size):
    path = write(tmp_path / "a.wav", sound())
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    assert decode(File(path))[0].shape == (1, RATE)


def test_flac_that_does_not_say_its_length(tmp_path):
    path = write(tmp_path / "a.flac", sound())
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the number of samples (RFC 9639)
    content[22:26] = bytes(4)
    path.write_bytes(content)
    for look in (decode, probe):
        with pytest.raises(ClipError, match="does not say how long it is"):
            look(File(path))


def test_files_that_are_no_sound(tmp_path):
    (tmp_path / "zero.wav").touch()
    (tmp_path / "text.wav").write_text("path,label\na.wav,dog\n")
    (tmp_path / "bytes.raw").write_bytes(bytes(1000))
    (tmp_path / "folder.wav").mkdir()
    write(tmp_path / "none.wav", np.zeros((1, 0), np.float32))
    for name, says in [("zero.wav", "0 bytes"), ("text.wav", "sound file that"), ("bytes.raw", "sound file that"),
                       ("folder.wav", "a folder"), ("none.wav", "without samples"), ("missing.wav", "nothing there")]:
        for look in (decode, probe):
            with pytest.raises(ClipError, match=says) as error:
                look(File(tmp_path / name))
            assert str(error.value).startswith(str(tmp_path / name))


def test_samples_that_are_not_finite(tmp_path):
    samples = sound()
    samples[0, [3, 4, 5]] = np.nan, np.inf, -np.inf
    with pytest.raises(ClipError, match="found 3 of 16000"):
        decode(File(write(tmp_path / "a.wav", samples, subtype="FLOAT")))


def array(shape, rate, dtype="int16"):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape), rate


@pytest.mark.parametrize("shape, rate, expected", [((8,), 100, (1, 8)), ((8,), None, (8,)), ((2, 8), 100, (2, 8)),
                                                   ((2, 3, 4), None, (2, 3, 4))])
def test_lazy_arrays(shape, rate, expected):
    decoded, found = decode(Lazy(array, (shape, rate)))
    assert (decoded.shape, decoded.dtype, found) == (expected, np.float32, rate)
    assert (decoded.ravel() == np.arange(decoded.size)).all()


def fails(kind):
    if kind == "ours":
        raise DataError("the archive misses a member")
    return {"text": ("abc", 100), "alone": np.zeros(3), "empty": (np.zeros(0), 100), "nan": (np.array([np.nan]), 1),
            "bug": None}[kind]


@pytest.mark.parametrize("kind, says", [("ours", "misses a member"), ("text", "ValueError"), ("alone", "ValueError"),
                                        ("empty", "no samples"), ("nan", "finite"), ("bug", "TypeError"), ("key", "KeyError")])
def test_lazy_that_fails(kind, says):
    with pytest.raises(ClipError, match=says) as error:
        decode(Lazy(fails, (kind,)))
    assert f"fails('{kind}',)" in str(error.value)


@pytest.mark.parametrize("name, subtype", [("a.wav", "PCM_16"), ("a.wav", "PCM_24"), ("a.wav", "PCM_32"), ("a.flac", "PCM_16"),
                                           ("a.flac", "PCM_24"), ("a.aiff", "PCM_24"), ("a.wav", "ULAW"), ("a.wav", "IMA_ADPCM")])
def test_samples_are_the_floats_of_libsndfile(tmp_path, name, subtype):
    full = np.random.default_rng(0).uniform(-1, 1, (2, 4000)).astype(np.float32)
    full[:, :4] = [[-1, 1, 0, 2**-31], [1, -1, 2**-23, -2**-23]]
    path = write(tmp_path / name, full, subtype=subtype)
    assert np.array_equal(decode(File(path))[0], soundfile.read(path, dtype="float32", always_2d=True)[0].T)
