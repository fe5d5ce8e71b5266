"""TUT Acoustic Scenes 2017 on miniature trees with true file names and everything that is odd about the published one."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import soundfile
from mtcore_dcase.example import TWICE, make
from mtcore_dcase.reader import SCENES, Scenes2017

from mtcore.plugin import DataError

DEVELOPMENT, EVALUATION = "TUT-acoustic-scenes-2017-development", "TUT-acoustic-scenes-2017-evaluation"


@pytest.fixture
def root(tmp_path):
    make(tmp_path, seconds=0.01)
    return tmp_path


def assert_every_file_reached(root, reader):
    found = {clip.audio.path for clip in reader.clips(root)}
    assert all(path.is_file() for path in found)
    lost = [path for path in root.rglob("*") if path.is_file() and path not in found
            and not any(fnmatch(path.relative_to(root).as_posix(), pattern) for pattern in reader.ignored)]
    assert not lost


@pytest.mark.parametrize("subset, count", [("both", 45), ("development", 36), ("evaluation", 9)])
def test_every_file_is_reached_or_ignored(root, subset, count):
    reader = Scenes2017(subset=subset)
    assert_every_file_reached(root, reader)
    clips = list(reader.clips(root))
    assert len({clip.id for clip in clips}) == len(clips) == count
    (task,) = reader.tasks(root)
    for clip in clips:
        task.check(clip.targets["scene"])
        assert clip.groups["recording"].startswith("tut2017:")


def test_labels_are_all_15_in_sorted_order(root):
    (task,) = Scenes2017().tasks(root)
    assert task.labels == SCENES == tuple(sorted(SCENES)) and len(SCENES) == 15 and "cafe/restaurant" in SCENES


def test_a_development_clip(root):
    clip = next(clip for clip in Scenes2017().clips(root) if clip.id == "development/b020_90_100")
    assert clip.audio.path == root / DEVELOPMENT / "audio" / "b020_90_100.wav"
    assert clip.targets == {"scene": "beach"} and clip.groups == {"recording": "tut2017:b020"}
    assert clip.parts == {"fold1": "train", "fold2": "test", "fold3": "train", "fold4": "train"}


def test_evaluation_clips_are_tested_in_every_fold_and_know_their_recording(root):
    clips = list(Scenes2017(subset="evaluation").clips(root))
    assert all(clip.parts == {"given": "test"} for clip in clips)
    assert [(clip.id, clip.groups["recording"]) for clip in clips[:4]] == [
        ("evaluation/1", "tut2017:b200"), ("evaluation/2", "tut2017:b200"), ("evaluation/3", "tut2017:b200"), ("evaluation/4", "tut2017:b201")]


def test_folds_need_not_partition(root):
    clips = [clip for clip in Scenes2017(subset="development").clips(root)]
    tested = {clip.audio.path.name: [scheme for scheme, part in clip.parts.items() if part == "test"] for clip in clips}
    assert tested.pop(Path(TWICE).name) == ["fold1", "fold2"]
    assert all(len(schemes) == 1 for schemes in tested.values())
    assert all(sorted(clip.parts) == ["fold1", "fold2", "fold3", "fold4"] for clip in clips)


def test_a_clip_absent_from_a_fold_is_absent_from_its_scheme(root):
    path = root / DEVELOPMENT / "evaluation_setup" / "fold3_train.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "b020_90_100" not in line))
    clip = next(clip for clip in Scenes2017().clips(root) if clip.id == "development/b020_90_100")
    assert sorted(clip.parts) == ["fold1", "fold2", "fold4"]


def test_recordings_with_errors_are_kept_or_skipped(root):
    kept, skipped = ({clip.id for clip in Scenes2017(errors=errors).clips(root)} for errors in ("keep", "skip"))
    assert kept - skipped == {"development/b079_180_190", "development/b020_90_100"} and skipped < kept
    (root / DEVELOPMENT / "error.txt").write_text("1.5\t2.5\taudio/b079_180_190.wav\terror\n")  # the order of its columns is not documented
    assert kept - {clip.id for clip in Scenes2017(errors="skip").clips(root)} == {"development/b079_180_190"}
    (root / DEVELOPMENT / "error.txt").unlink()
    assert {clip.id for clip in Scenes2017().clips(root)} == kept
    with pytest.raises(DataError, match="error.txt"):
        list(Scenes2017(errors="skip").clips(root))


def test_meta_without_its_third_column(root):
    expected = list(Scenes2017().clips(root))
    path = root / DEVELOPMENT / "meta.txt"
    path.write_text("".join(line.rpartition("\t")[0] + "\n" for line in path.read_text().splitlines()))
    train = root / DEVELOPMENT / "evaluation_setup" / "fold1_train.txt"
    train.write_text("".join(f"{line}\tb000\n" for line in train.read_text().splitlines()))  # and where others have one
    assert list(Scenes2017().clips(root)) == expected


def test_map_in_either_order_or_incomplete(root):
    expected = list(Scenes2017().clips(root))
    path = root / EVALUATION / "evaluation_setup" / "map.txt"
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    path.write_text("".join(f"{number}\t{original}\n" for original, number in rows))
    assert list(Scenes2017().clips(root)) == expected
    path.write_text("".join(f"{Path(original).name}\t{Path(number).name}\n" for original, number in rows[1:]))
    clips = list(Scenes2017(subset="evaluation").clips(root))
    assert clips[0].groups == {} and [clip.groups for clip in clips[1:]] == [clip.groups for clip in expected[-8:]]


@pytest.mark.parametrize("name, subset", [(DEVELOPMENT, "development"), (EVALUATION, "evaluation")])
def test_one_folder_as_root(root, tmp_path_factory, name, subset):
    expected = [clip.id for clip in Scenes2017(subset=subset).clips(root)]
    alone = tmp_path_factory.mktemp("alone") / "renamed"
    shutil.copytree(root / name, alone)
    for reader in (Scenes2017(), Scenes2017(subset=subset)):
        assert [clip.id for clip in reader.clips(alone)] == expected
        assert_every_file_reached(alone, reader)
    other = "evaluation" if subset == "development" else "development"
    with pytest.raises(DataError, match=f"expected the folder TUT-acoustic-scenes-2017-{other}.*choose the other `subset`"):
        list(Scenes2017(subset=other).clips(alone))


def test_missing_folders_are_named(root, tmp_path_factory):
    with pytest.raises(DataError, match="expected the folder TUT-acoustic-scenes-2017-development"):
        list(Scenes2017().clips(tmp_path_factory.mktemp("empty")))
    shutil.rmtree(root / EVALUATION)
    with pytest.raises(DataError, match="expected the folder TUT-acoustic-scenes-2017-evaluation"):
        list(Scenes2017().clips(root))  # half of what was asked for is not given silently
    assert len(list(Scenes2017(subset="development").clips(root))) == 36


def test_the_miniature_is_24_bit_stereo(root):
    info = soundfile.info(root / DEVELOPMENT / "audio" / "b020_90_100.wav")
    assert (info.samplerate, info.channels, info.subtype) == (44100, 2, "PCM_24")


def test_downloads_are_complete():
    development = [download for download in Scenes2017.info.downloads if "400515" in download.url]
    assert sum(download.size for download in development) == 10_700_420_548  # as published
    assert len(Scenes2017.info.downloads) == 19
