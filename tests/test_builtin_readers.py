"""Own recordings: core.csv, core.folders; and the generated sound. Through the readers' public methods and the dataset index."""

import csv
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcore.builtin.readers import SOUND, Csv, Folders
from mtcore.builtin.sound import MIDDLE_C, NOTES, TAKES, TIMBRES, Chords, Tones
from mtcore.plugin import DataError, Named, ParameterError
from mtcore.reading.dataset import read


def write(root: Path, text: str, name: str = "index.csv") -> Path:
    (root / name).write_text(text, encoding="utf-8")
    return root


def by_id(reader, root):
    return {clip.id: clip for clip in reader.clips(root)}


# core.csv -------------------------------------------------------------------------------------------------------------


def test_columns_become_tasks_groups_and_parts(tmp_path):
    write(tmp_path, "path,start,stop,group,group:place,part,part:fold1,mood,tags,Speaker ID\n"
                    "a b.wav,0.5,1.5,g1,site:7,test,train,sad,x; y,Åsa\n"
                    "sub/ü.flac,,,,,,,,;,\n")
    tasks = {task.name: task for task in Csv().tasks(tmp_path)}
    assert [(task.name, task.kind, task.labels) for task in tasks.values()] == [
        ("mood", "multiclass", ("sad",)), ("tags", "multilabel", ("x", "y")), ("speaker_id", "multiclass", ("Åsa",))]
    full, bare = Csv().clips(tmp_path)
    assert (full.id, full.audio.path, full.audio.start, full.audio.stop) == ("a b.wav", tmp_path / "a b.wav", 0.5, 1.5)
    assert full.targets == {"mood": "sad", "tags": {"x", "y"}, "speaker_id": "Åsa"}
    assert full.groups == {"group": "group:g1", "place": "site:7", "mood": "mood:sad", "tags": "tags:x; y", "Speaker ID": "Speaker ID:Åsa"}
    assert full.parts == {"given": "test", "fold1": "train"}
    assert (bare.id, bare.audio.path, bare.audio.start, bare.audio.stop) == ("sub/ü.flac", tmp_path / "sub" / "ü.flac", 0, None)
    assert bare.targets == {"tags": frozenset()} and bare.groups == {"tags": "tags:;"} and bare.parts == {}


def test_a_group_column_keeps_its_name(tmp_path):
    write(tmp_path, "path,speaker,group:speaker\na.wav,Ann,Ann (2019)\nb.wav,Bob,\n")
    a, b = Csv().clips(tmp_path)
    assert a.groups == {"speaker": "speaker:Ann (2019)"} and a.targets == {"speaker": "Ann"}
    assert b.groups == {} and b.targets == {"speaker": "Bob"}
    assert Csv().default_group == "group"


@pytest.mark.parametrize("count, kind", [(20, "multiclass"), (21, "regression")])
def test_more_than_20_numbers_are_a_regression(tmp_path, count, kind):
    write(tmp_path, "path,value\n" + "".join(f"{i}.wav,{i % count}\n" for i in range(60)))
    (task,) = Csv().tasks(tmp_path)
    assert task.kind == kind
    if kind == "multiclass":
        assert task.labels == tuple(map(str, range(20)))  # by value: 2 before 10
    else:
        assert [clip.targets["value"] for clip in Csv().clips(tmp_path)] == [float(i % count) for i in range(60)]


def test_one_word_among_numbers_makes_labels(tmp_path):
    write(tmp_path, "path,value\n" + "".join(f"{i}.wav,{i}\n" for i in range(40)) + "x.wav,none\ny.wav,1_0\n")
    (task,) = Csv().tasks(tmp_path)
    assert task.kind == "multiclass" and task.labels[-2:] == ("1_0", "none")


def test_kinds_override(tmp_path):
    write(tmp_path, "path,loud,note,level,tags\na.wav,no,first,1,x\nb.wav,yes,second,2,y\n")
    reader = Csv(kinds={"loud": "binary", "note": "none", "level": "regression", "tags": "multilabel"})
    assert [(task.name, task.kind, task.labels) for task in reader.tasks(tmp_path)] == [
        ("loud", "binary", ("no", "yes")), ("level", "regression", ()), ("tags", "multilabel", ("x", "y"))]
    first = next(iter(reader.clips(tmp_path)))
    assert first.targets == {"loud": "no", "level": 1.0, "tags": {"x"}}
    assert first.groups["note"] == "note:first"  # no task, but a group where wanted


def test_stretches_of_one_recording_have_ids_of_their_own(tmp_path):
    write(tmp_path, "path,start,stop,label\nlong.wav,0,1,a\nlong.wav,1,2.5,b\nlong.wav,2.5,,a\nshort.wav,,,b\n")
    clips = by_id(Csv(), tmp_path)
    assert list(clips) == ["long.wav 0.0-1.0", "long.wav 1.0-2.5", "long.wav 2.5-end", "short.wav"]
    assert {clip.audio.path.name for clip in clips.values()} == {"long.wav", "short.wav"}


def test_root_is_the_folder_or_the_table(tmp_path):
    write(tmp_path, "path,label\na.wav,x\n", "other.csv")
    (by_file,), (by_folder,) = Csv().clips(tmp_path / "other.csv"), Csv(file="other.csv").clips(tmp_path)
    assert by_file == by_folder and by_file.audio.path == tmp_path / "a.wav"
    (tmp_path / "meta").mkdir()
    write(tmp_path / "meta", "filename\tlabel\na.wav\tx\n", "all.tsv")
    (clip,) = Csv(file="meta/all.tsv", path="filename").clips(tmp_path)
    assert clip.audio.path == tmp_path / "a.wav"  # a table deeper inside still names what lies below the root


def test_absolute_paths_stay(tmp_path):
    write(tmp_path, f"path,label\n{tmp_path}/elsewhere/a.wav,x\n")
    assert next(iter(Csv().clips(tmp_path))).audio.path == tmp_path / "elsewhere" / "a.wav"


@pytest.mark.parametrize("text, message", [
    ("path,a\n", "expected a row per clip below the header"),
    ("file,a\nx.wav,1\n", r"line 1: expected a column 'path' .*parameter `path`.*found file, a"),
    ("path,a\nx.wav\n", "line 2: expected 2 cells"),
    ("path,a\n,1\n", "line 2: column 'path': expected a path"),
    ("path,start,a\nx.wav,soon,1\n", "line 2: column 'start': expected a finite number.*found 'soon'"),
    ("path,start,stop,a\nx.wav,,,1\ny.wav,2,1,1\n", "line 3: .*expected 0 <= start < stop"),
    ("path,stop,a\nx.wav,inf,1\n", "line 2: column 'stop': expected a finite number"),
    ("path,a\nx.wav,1\ny.wav,2\nx.wav,1\n", "line 4: the same recording and stretch stand in line 2"),
    ("path,part,a\nx.wav,train,1\ny.wav,training,1\n", "line 3: .*one of train, validation, test; found 'training'"),
    ("path,part:first,a\nx.wav,train,1\n", "line 1: column 'part:first': expected part"),
    ("path,part,part:given,a\nx.wav,test,test,1\n", "'part' and 'part:given' would both be called 'given'"),
    ("path,group:,a\nx.wav,1,1\n", "column 'group:' has no name"),
    (",path,a\n0,x.wav,1\n", r"column '' has no name.*index=False"),
    ("path,Mood,mood\nx.wav,a,b\n", "'Mood' and 'mood' would both be called 'mood'"),
    ("path,Start\nx.wav,1\n", "column 'Start': write 'start' if it is that"),
    ("path,empty\nx.wav,\n", "column 'empty' has no value in any row"),
])
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(DataError, match=f"(?s){re.escape(str(tmp_path / 'index.csv'))}.*{message}"):
        Csv().tasks(tmp_path)
        list(Csv().clips(tmp_path))


@pytest.mark.parametrize("cell", ["loud", "nan", "-inf", "1,5"])
def test_a_regression_cell_that_is_no_number(tmp_path, cell):
    write(tmp_path, "path,level\n" + "".join(f"{i}.wav,{i}\n" for i in range(30)) + f'x.wav,"{cell}"\n')
    with pytest.raises(DataError, match=f"index.csv, line 32: column 'level': expected a finite number such as 1.5, found '{cell}'"):
        list(Csv(kinds={"level": "regression"}).clips(tmp_path))


def test_wrong_kinds(tmp_path):
    write(tmp_path, "path,mood\na.wav,x\nb.wav,y\nc.wav,z\n")
    with pytest.raises(ParameterError, match="no column 'mod'; found path, mood"):
        Csv(kinds={"mod": "binary"}).tasks(tmp_path)
    with pytest.raises(DataError, match="task mood: binary needs two labels"):
        Csv(kinds={"mood": "binary"}).tasks(tmp_path)


def test_no_table(tmp_path):
    with pytest.raises(DataError, match="index.csv: expected a table"):
        Csv().tasks(tmp_path)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters=";"), min_size=1, max_size=8)


ROWS = st.tuples(WORDS, st.just("") | WORDS, st.frozensets(WORDS, max_size=3), st.none() | st.floats(allow_nan=False, allow_infinity=False))


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, max_size=30, unique_by=lambda row: row[0]), st.sampled_from(",;\t"))
def test_whatever_is_written_comes_back(tmp_path_factory, rows, delimiter):
    root = tmp_path_factory.mktemp("csv")
    rows = [("with a space", "word", frozenset({"one", "two"}), 0.5), *rows]
    with open(root / "index.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter=delimiter)
        writer.writerow(["path", "word", "several", "number"])
        writer.writerows([(f"{name}.wav", word, ";".join(sorted(several)) or ";", "" if number is None else repr(number))
                          for name, word, several, number in rows])
    dataset = read("mine", Named("core.csv", Csv(kinds={"word": "multiclass", "number": "regression"})), root)
    assert [clip.id for clip in dataset.clips] == [f"{name}.wav" for name, *_ in rows]
    for clip, (_, word, several, number) in zip(dataset.clips, rows):
        expected = {"word": word or None, "several": several, "number": number}
        assert clip.targets == {key: value for key, value in expected.items() if value is not None}
    for task in dataset.tasks.values():
        assert list(task.labels) == sorted(set(task.labels), key=lambda label: (_value(label), label))


def _value(label):
    try:
        return math.inf if "_" in label or math.isnan(float(label)) else float(label)
    except ValueError:
        return math.inf


# core.folders ---------------------------------------------------------------------------------------------------------


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_folders_are_classes(tmp_path):
    touch(tmp_path, "dog/b.WAV", "dog/deep/er/a.wav", "кошка и кот/c d.flac", "readme.txt", "dog/notes.txt", "empty/.keep", ".cache/x/y.wav",
          "dog/._b.wav")
    (task,) = Folders().tasks(tmp_path)
    assert (task.name, task.kind, task.labels) == ("label", "multiclass", ("dog", "кошка и кот"))
    clips = list(Folders().clips(tmp_path))
    assert [(clip.id, clip.targets["label"]) for clip in clips] == [
        ("dog/b.WAV", "dog"), ("dog/deep/er/a.wav", "dog"), ("кошка и кот/c d.flac", "кошка и кот")]
    assert all(clip.audio.path == tmp_path / clip.id and clip.groups == {} for clip in clips)


def test_group_out_of_the_name(tmp_path):
    touch(tmp_path, "yes/ann_1.wav", "yes/ann_2.wav", "no/bob_1.wav")
    reader = Folders(task="word", group="^([^_]+)_")
    assert reader.default_group == "group"
    assert {clip.id: clip.groups["group"] for clip in reader.clips(tmp_path)} == {
        "no/bob_1.wav": "group:bob", "yes/ann_1.wav": "group:ann", "yes/ann_2.wav": "group:ann"}
    touch(tmp_path, "no/nobody.wav")
    with pytest.raises(DataError, match="no/nobody.wav: expected a name in which the parameter group"):
        list(reader.clips(tmp_path))


@pytest.mark.parametrize("group, message", [("(", "no regular expression"), ("ab", r"with one \(…\), found 0"), ("(a)(b)", "found 2")])
def test_wrong_group(group, message):
    with pytest.raises(ParameterError, match=message):
        Folders(group=group)


def test_class_folders_may_be_links(tmp_path):
    touch(tmp_path, "store/deep/a.wav", "data/other/b.wav")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "store")
    assert [clip.id for clip in Folders().clips(tmp_path / "data")] == ["linked/deep/a.wav", "other/b.wav"]


def test_folders_without_recordings(tmp_path):
    touch(tmp_path, "dog/readme.txt")
    with pytest.raises(DataError, match="expected recordings .*wav.* in one folder per class, found none"):
        Folders().tasks(tmp_path)
    touch(tmp_path, "loose.mp3")
    with pytest.raises(DataError, match="found loose.mp3 in none; move it"):
        Folders().tasks(tmp_path)
    with pytest.raises(DataError, match="expected a folder with one folder per class, found nothing there"):
        Folders().tasks(tmp_path / "nowhere")


def test_every_ending_is_one_that_soundfile_reads(tmp_path):
    formats = {".ogg": "OGG", ".oga": "OGG", ".opus": "OGG", ".mp3": "MP3", ".aif": "AIFF", ".aiff": "AIFF"}
    for ending in sorted(SOUND):
        path = tmp_path / f"class/a{ending}"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.zeros(8000), 8000, format=formats.get(ending, ending[1:].upper()),
                        subtype="OPUS" if ending == ".opus" else None)
        assert soundfile.info(path).samplerate
    assert len(list(Folders().clips(tmp_path))) == len(SOUND)


# Generated sound ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [Tones(), Chords()])
def test_generated_datasets_are_valid_and_need_no_root(reader, tmp_path):
    dataset = read("demo", Named("core.demo", reader), tmp_path / "nowhere")
    assert len(dataset.clips) == 240 and len({clip.audio.key for clip in dataset.clips}) == 240
    groups = [clip.groups[reader.default_group] for clip in dataset.clips]
    assert all(groups.count(group) == TAKES for group in groups)
    assert all(clip.targets == twin.targets for clip, twin in zip(dataset.clips[::TAKES], dataset.clips[1::TAKES]))
    for clip in dataset.clips[::40]:
        sound, rate = clip.audio.load(*clip.audio.args)
        assert rate == 8000 and sound.dtype == np.float32 and sound.shape == (1, 8000)
        assert 0.09 < np.abs(sound).max() < 0.91


@pytest.mark.parametrize("cls", [Tones, Chords])
def test_equal_keys_promise_equal_sound(cls):
    a, b = list(cls(count=4, seed=1).clips(None)), list(cls(count=9, seed=1).clips(None))
    assert a == b[:4]
    assert not {clip.audio.key for clip in cls(count=4, seed=2).clips(None)} & {clip.audio.key for clip in a}
    sounds = [clip.audio.load(*clip.audio.args)[0] for clip in b]
    for clip, sound in zip(a, sounds):
        np.testing.assert_array_equal(clip.audio.load(*clip.audio.args)[0], sound)
    assert not any(np.array_equal(sounds[0], other) for other in sounds[1:])


def test_the_same_sound_in_another_process():
    code = ("from mtcore.builtin.sound import Chords, Tones, chord, tone; import hashlib; "
            "print([hashlib.md5(f(3, 5)[0].tobytes()).hexdigest() for f in (tone, chord)], [c.targets for c in Tones(count=5).clips(None)],"
            " [sorted(c.targets['notes']) for c in Chords(count=5).clips(None)])")
    outputs = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env={"PYTHONHASHSEED": seed}).stdout for seed in "12"}
    assert len(outputs) == 1 and outputs.pop()


def test_pitch_is_what_sounds():
    for clip in Tones(count=48).clips(None):
        if clip.targets["timbre"] != "noise":
            sound = clip.audio.load(*clip.audio.args)[0][0]
            loudest = np.argmax(np.abs(np.fft.rfft(sound * np.hanning(len(sound))))[100:]) + 100
            assert 12 * np.log2(loudest / MIDDLE_C) == pytest.approx(clip.targets["pitch"], abs=0.3)


def test_notes_are_what_sounds():
    for clip in Chords(count=120).clips(None):
        sound = clip.audio.load(*clip.audio.args)[0][0]
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
        power = {note: max(spectrum[round(f * 0.97):round(f * 1.03)].sum() for f in (MIDDLE_C * 2 ** (s / 12), MIDDLE_C * 2 ** (s / 12 + 1)))
                 for note, s in NOTES.items()}
        assert min(power[note] for note in clip.targets["notes"]) > 0.03 * max(power.values())


def test_labels_of_the_generated_datasets():
    timbre, pitch = Tones().tasks(None)
    assert timbre.labels == TIMBRES and (pitch.kind, pitch.unit) == ("regression", "semitones")
    assert {clip.targets["timbre"] for clip in Tones().clips(None)} == set(TIMBRES)
    (notes,) = Chords().tasks(None)
    assert notes.labels == tuple(NOTES) and {len(clip.targets["notes"]) for clip in Chords().clips(None)} == {1, 2, 3, 4}
