"""The reader on its miniature, and the script that indexes the fetched recordings."""

import importlib.util
import shutil
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mtcore_voiceprompts.example import PHRASES, VOICES, make
from mtcore_voiceprompts.reader import Prompts

from mtcore.plugin import DataError

SCRIPT = Path(__file__).parents[1] / "scripts" / "fetch_voiceprompts.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prompts")
    make(folder)
    return folder


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("fetch_voiceprompts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_found_through_its_entry_point():
    (entry,) = metadata.distribution("mtcore-voiceprompts").entry_points.select(group="mtcore")
    assert (entry.name, [spec.name for spec in entry.load().mtcore_register_readers()]) == ("voiceprompts", ["prompts"])


def test_every_recording_is_a_clip_with_all_labels(root):
    clips = list(Prompts().clips(root))
    assert len(clips) == len(VOICES) * len(PHRASES)
    files = {path for path in root.rglob("*") if path.is_file()
             and not any(fnmatch(path.relative_to(root).as_posix(), pattern) for pattern in Prompts.ignored)}
    assert {clip.audio.path for clip in clips} == files
    for clip in clips:
        for task in Prompts().tasks(root):
            task.check(clip.targets[task.name])
        assert clip.targets["duration"] == pytest.approx(soundfile.info(clip.audio.path).duration, abs=6e-4)


def test_groups(root):
    clips = {clip.id: clip for clip in Prompts().clips(root)}
    english, spanish = clips["audio/en_US_f_Allison/digits/1.wav"], clips["audio/es_MX_f_Allison/digits/1.wav"]
    assert english.groups == spanish.groups == {"phrase": "voiceprompts:digits/1", "speaker": "voiceprompts:Allison"}
    assert english.targets["language"] == "en" and english.targets["kind"] == "digits"
    assert len({clip.groups[Prompts.default_group] for clip in clips.values()}) == len(PHRASES)


def test_without_index(tmp_path):
    with pytest.raises(DataError, match="index.csv: expected a table"):
        list(Prompts().clips(tmp_path))


def test_the_script_indexes_what_the_example_holds(root, script, tmp_path):
    shutil.copytree(root / "audio", tmp_path / "audio")
    script.index(tmp_path)
    assert sorted((tmp_path / "index.csv").read_text().split()) == sorted((root / "index.csv").read_text().split())


def test_equal_recordings_under_several_names(script, tmp_path):
    def sound(name, seed, seconds=0.2):
        path = tmp_path / "audio" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, round(8000 * seconds)), 8000)

    for name, seed in (("en_US_f_A/bye.wav", 1), ("en_US_f_A/goodbye.wav", 1), ("fr_CA_f_B/goodbye.wav", 2), ("en_US_f_A/other.wav", 3),
                       ("en_US_f_A/ok.wav", 4), ("es_MX_f_A/ok.wav", 4), ("en_US_f_A/digits/12.wav", 5), ("en_US_f_A/digits/7.wav", 6)):
        sound(name, seed)
    sound("en_US_f_A/short.wav", 7, seconds=0.01)
    rows = {row["path"].removeprefix("audio/"): row for row in script.index(tmp_path)}
    assert sorted(rows) == ["en_US_f_A/bye.wav", "en_US_f_A/digits/12.wav", "en_US_f_A/digits/7.wav", "en_US_f_A/other.wav", "fr_CA_f_B/goodbye.wav"]
    assert rows["en_US_f_A/bye.wav"]["group"] == rows["fr_CA_f_B/goodbye.wav"]["group"] != rows["en_US_f_A/other.wav"]["group"]
    assert [rows[f"en_US_f_A/digits/{name}.wav"]["digit"] for name in (12, 7)] == ["", "7"]


def test_collecting_unpacked_packages(script, tmp_path):
    sounds, audio = tmp_path / "sounds", tmp_path / "audio"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3200)
    for name in ("en_US_f_Allison/a.wav", "en_US_f_Allison/silence/1.wav", "fr/digits/1.gsm"):
        (sounds / name).parent.mkdir(parents=True, exist_ok=True)
        gsm = {"format": "RAW", "subtype": "GSM610"} if name.endswith("gsm") else {}
        soundfile.write(sounds / name, noise, 8000, **gsm)
    (sounds / "en_US_f_Allison" / "empty.wav").write_bytes(b"RIFF")
    (sounds / "en_US_f_Allison" / "link.wav").symlink_to("a.wav")
    (sounds / "en").symlink_to("en_US_f_Allison")
    script.collect(sounds, audio)
    assert sorted(path.relative_to(audio).as_posix() for path in audio.rglob("*.wav")) == ["en_US_f_Allison/a.wav", "fr_FR_f_Armelle/digits/1.wav"]
    assert soundfile.info(audio / "fr_FR_f_Armelle" / "digits" / "1.wav").samplerate == 8000
