"""Copies of a recording are found whatever was done to them; others of the same kind of sound are not."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
import soundfile
import soxr
from mtcore_features.fingerprint import Fingerprint
from scipy.signal import lfilter

import mtcore
from mtcore.errors import LeakError
from mtcore.plugin import ClipError, ParameterError

RATE, THRESHOLD = 22050, 0.85


def voice(seed, seconds):
    """Harmonics whose pitch, formants and level wander."""
    rng, time = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    path = lambda low, high, turns=8: np.interp(time, np.linspace(0, seconds, turns), rng.uniform(low, high, turns))
    pitch, formants = rng.uniform(100, 250) * path(0.8, 1.2), [path(300, 800), path(900, 2200), path(2300, 3200)]
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = sum(sum(1 / (1 + ((k * pitch - formant) / 100) ** 2) for formant in formants) * np.sin(k * phase) for k in range(1, 16))
    return 0.1 * sound * path(0, 1, 12) + 0.002 * rng.standard_normal(len(time))


def noise(seed, seconds):
    return 0.1 * lfilter([1], [1, -0.9], np.random.default_rng(seed).standard_normal(int(seconds * RATE)))


def hits(seed, seconds):
    """Four bursts a second, nearly at the same times in all recordings."""
    rng, size = np.random.default_rng(seed), int(seconds * RATE)
    sound = 0.001 * rng.standard_normal(size)
    for k in range(int(seconds * 4)):
        start = int((k / 4 + 0.02 * rng.uniform()) * RATE)
        burst = rng.uniform(0.1, 0.2) * rng.standard_normal(RATE // 4) * np.exp(-np.arange(RATE // 4) / (0.05 * RATE))
        sound[start:start + len(burst)] += burst[:size - start]
    return sound


def coded(sound, rate, kind):
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=kind)
    file.seek(0)
    return soundfile.read(file)


COPIES = {
    "gain": lambda x: (0.02 * x, RATE),
    "mp3": lambda x: coded(0.3 * x, RATE, "MP3"),
    "ogg": lambda x: coded(x, RATE, "OGG"),
    "mp3 then ogg": lambda x: coded(*coded(x, RATE, "MP3"), "OGG"),
    "8 kHz": lambda x: (soxr.resample(x, RATE, 8000), 8000),
    "48 kHz": lambda x: (soxr.resample(x, RATE, 48000), 48000),
    "later": lambda x: (np.r_[np.zeros(RATE // 200), x], RATE),
    "cut": lambda x: (x[RATE // 200:-RATE // 200], RATE),
    "all": lambda x: coded(soxr.resample(0.2 * x, RATE, 16000)[80:], 16000, "MP3"),
}


def fingerprint(sound, rate=RATE):
    return Fingerprint().prepare(rate)(np.atleast_2d(sound).astype(np.float32))[0]


@pytest.mark.parametrize("seconds", [0.5, 2])
@pytest.mark.parametrize("kind", [voice, noise, hits])
def test_copies_are_alike_and_others_of_the_kind_are_not(kind, seconds):
    sounds = [kind(seed, seconds) for seed in range(6)]
    found = np.stack([fingerprint(sound) for sound in sounds])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert max(one @ other for one, other in combinations(found, 2)) < THRESHOLD - 0.15
    for name, copy in COPIES.items():
        cosines = [one @ fingerprint(*copy(sound)) for one, sound in zip(found, sounds[:2])]
        assert min(cosines) > THRESHOLD, (name, cosines)


def test_what_leaves_nothing_to_compare_is_like_nothing():
    assert not fingerprint(np.zeros(RATE)).any()
    assert np.isfinite(fingerprint(np.r_[np.zeros(RATE), 1e-20 * np.ones(RATE)])).all()
    one = voice(1, 1)
    stereo = Fingerprint().prepare(RATE)(np.stack([one, 0.5 * one, voice(2, 1)]).astype(np.float32))
    assert (stereo @ fingerprint(one))[:2] == pytest.approx(1, abs=1e-5) and stereo[2] @ fingerprint(one) < 0.5
    with pytest.raises(ClipError, match="too short"):
        fingerprint(np.ones(100))
    with pytest.raises(ParameterError, match="half the rate"):
        Fingerprint().prepare(4000)
    with pytest.raises(ParameterError, match="fewer bands"):
        Fingerprint(bands=90).prepare(RATE)


def test_a_copy_in_another_dataset_is_split_with_its_original(tmp_path):
    for name, ending, numbers, part in (("studio", "wav", range(8), "train"), ("web", "ogg", range(6, 14), "test")):
        (tmp_path / name).mkdir()
        for number in numbers:
            soundfile.write(tmp_path / name / f"{number}.{ending}", np.outer(voice(number, 1), [0.5, 0.3] if ending == "ogg" else [1]), RATE)
        (tmp_path / name / "index.csv").write_text("\n".join(["path,word,part", *(f"{n}.{ending},{'ab'[n % 2]},{part}" for n in numbers)]))

    def build(**split):
        return mtcore.Experiment({
            "name": "copies", "datasets": {name: {"reader": "core.csv", "root": name, "tasks": ["word"]} for name in ("studio", "web")},
            "inputs": {"main": {"extractor": "core.spectrogram"}}, "split": {"folds": 1, "validation": 0.0, **split},
            "model": {"trunk": "core.mlp"}}, tmp_path, tmp_path / "runs", tmp_path / "cache")

    build().corpus
    similar = {"use": "fingerprint", "threshold": THRESHOLD}
    with pytest.raises(LeakError, match="found 2 in two or more .dataset studio, web"):
        build(similar=similar).corpus
    names = [f"audio {digest[:8]}" for name in ("studio", "web") for digest in build().corpus.digests[name][slice(6,
        8) if name == "studio" else slice(2)]]
    notes = build(similar=similar, accept_leaks=names).corpus.notes
    line, = (line for line in notes if "alike" in line)
    assert "2 pairs" in line and "studio/6 and web/6" in line.replace(".wav", "").replace(".ogg", "")
