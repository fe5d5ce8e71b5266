"""RAVDESS readers on miniature trees with true file names and every defect that the published files and their copies have."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import soundfile
from mtcore_ravdess.example import STEREO, make
from mtcore_ravdess.reader import LABELS, Speech, Stress

from mtcore.plugin import DataError, ParameterError

SPEECH, SONG = "Audio_Speech_Actors_01-24", "Audio_Song_Actors_01-24"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("ravdess")
    make(root, actors=(1, 2, 18, 24), rate=8000)
    return root


def names(root: Path, reader) -> list[str]:
    return [Path(clip.audio.path).name for clip in reader.clips(root)]


def assert_every_file_reached(root: Path, reader) -> None:
    """By a clip, or one of the same name; or declared as ignored."""
    found = set(names(root, reader))
    lost = [path for path in root.rglob("*") if path.is_file() and path.name not in found
            and not any(fnmatch(path.relative_to(root).as_posix(), pattern) for pattern in reader.ignored)]
    assert not lost


@pytest.mark.parametrize("reader", [Speech(), Speech(channel="song"), Speech(channel="both"), Stress(), Stress(channel="speech"),
                                    Stress(positive=["angry", "fearful"], negative=["neutral", "calm"])])
def test_every_file_is_reached_or_ignored(pristine, reader):
    assert_every_file_reached(pristine, reader)
    clips = list(reader.clips(pristine))
    assert len({clip.id for clip in clips}) == len(clips) > 0
    tasks = reader.tasks(pristine)
    for clip in clips:
        assert clip.targets and set(clip.groups) == {"actor", "statement"}
        for task in tasks:
            task.check(clip.targets[task.name])


def test_codes_become_names(tmp_path):
    place = tmp_path / "Actor_12"
    place.mkdir()
    soundfile.write(place / "03-01-06-01-02-01-12.wav", [0.0] * 100, 8000)
    (clip,) = Speech().clips(tmp_path)
    assert clip.targets == {"emotion": "fearful", "intensity": "normal", "statement": "dogs", "gender": "female", "actor": "actor12"}
    assert clip.groups == {"actor": "ravdess:actor12", "statement": "ravdess:dogs"}
    assert clip.audio.path == place / "03-01-06-01-02-01-12.wav"


def test_labels_stand_in_the_order_of_the_codes():
    assert LABELS["emotion"] == ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    assert (LABELS["actor"][0], LABELS["actor"][-1]) == ("actor01", "actor24")
    assert [task.name for task in Speech().tasks(Path())] == ["emotion", "intensity", "statement", "gender", "actor"]


def test_channels(pristine):
    speech, song, both = (names(pristine, Speech(channel=channel)) for channel in ("speech", "song", "both"))
    assert len(speech) == 4 * 15 and len(song) == 3 * 11  # nobody recorded actor 18 singing
    assert sorted(both) == sorted(speech + song)
    assert {clip.targets["emotion"] for clip in Speech(channel="song").clips(pristine)} == set(LABELS["emotion"]) - {"disgust", "surprised"}


def test_layouts_give_the_same_clips(pristine, tmp_path):
    expected = names(pristine, Speech(channel="both"))
    merged, lower = tmp_path / "merged", tmp_path / "lower"
    for folder in (SPEECH, SONG):
        shutil.copytree(pristine / folder, merged, dirs_exist_ok=True)  # both archives unpacked into one folder
        shutil.copytree(pristine / folder, lower / folder.replace("Actors", "actors"))
    assert names(merged, Speech(channel="both")) == expected
    assert names(lower, Speech(channel="both")) == expected
    assert names(pristine / SPEECH, Speech()) == names(pristine, Speech())
    assert names(pristine / SONG, Speech(channel="both")) == names(pristine, Speech(channel="song"))


def test_a_tree_held_twice_gives_each_clip_once(pristine, tmp_path):
    shutil.copytree(pristine / SPEECH, tmp_path, dirs_exist_ok=True)
    shutil.copytree(pristine / SPEECH, tmp_path / "audio_speech_actors_01-24")
    assert names(tmp_path, Speech()) == names(pristine, Speech())
    assert all(clip.audio.path.parent.parent == tmp_path for clip in Speech().clips(tmp_path))
    assert_every_file_reached(tmp_path, Speech())


def test_sound_of_the_videos_is_not_read_again(pristine, tmp_path):
    shutil.copytree(pristine / SPEECH, tmp_path, dirs_exist_ok=True)
    place = tmp_path / "Actor_01"
    for path in sorted(place.glob("03-*.wav")):
        shutil.copy(path, place / path.name.replace("03-", "01-", 1))
        (place / path.name.replace("03-", "02-", 1)).with_suffix(".mp4").write_bytes(b"")
    assert names(tmp_path, Speech()) == names(pristine, Speech())
    assert_every_file_reached(tmp_path, Speech())


def test_stereo_and_equal_recordings_are_clips_like_others(pristine, tmp_path):
    assert {Path(name).stem for name in names(pristine, Speech(channel="both"))} > set(STEREO)
    assert all(soundfile.info(next(pristine.rglob(f"{name}.wav"))).channels == 2 for name in STEREO)
    make(tmp_path, actors=(7,), rate=8000)
    first = next(tmp_path.rglob("03-01-03-01-*-07.wav"))
    twin = first.with_name("03-01-03-01-02-01-07.wav")
    shutil.copy(first, twin)  # two takes with the same samples were published
    assert {first.name, twin.name} <= set(names(tmp_path, Speech()))


def test_stress_is_fearful_against_neutral_in_the_first_seconds(pristine):
    clips = list(Stress().clips(pristine))
    emotions = {clip.id: clip.targets["emotion"] for clip in Speech(channel="both").clips(pristine)}
    assert {clip.id for clip in clips} == {key for key, emotion in emotions.items() if emotion in ("fearful", "neutral")}
    assert all((clip.targets["stress"] == "yes") == (emotions[clip.id] == "fearful") for clip in clips)
    assert all((clip.audio.start, clip.audio.stop) == (0, 1.28) for clip in clips)


def test_stress_choices(pristine):
    assert all(clip.audio.stop is None for clip in Stress(seconds=0).clips(pristine))
    clips = list(Stress(channel="speech", positive=["angry"], negative=["calm", "neutral"], seconds=0.5).clips(pristine))
    assert len(clips) == 4 * (2 + 3) and sum(clip.targets["stress"] == "yes" for clip in clips) == 8
    assert all(clip.audio.stop == 0.5 for clip in clips)


@pytest.mark.parametrize("positive, negative", [(["calm"], ["calm", "sad"]), ([], ["calm"]), (["calm"], [])])
def test_stress_refuses_overlapping_or_empty_sides(positive, negative):
    with pytest.raises(ParameterError, match="positive and negative need at least one"):
        Stress(positive=positive, negative=negative)


def test_errors_say_what_is_missing(pristine, tmp_path):
    with pytest.raises(DataError, match="expected a folder"):
        list(Speech().clips(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="expected files matching"):
        list(Speech().clips(tmp_path))
    with pytest.raises(DataError, match="expected song recordings .* unpack the archive"):
        list(Speech(channel="song").clips(pristine / SPEECH))
    (tmp_path / "Actor_01").mkdir()
    (tmp_path / "Actor_01" / "03-01-09-01-02-01-12.wav").touch()
    with pytest.raises(DataError, match="expected a name of seven codes"):
        list(Speech().clips(tmp_path))
