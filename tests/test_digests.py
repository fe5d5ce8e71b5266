"""Digests: of content, remembered, and never a reason to fail."""

import os
import sqlite3
import subprocess
import sys
from hashlib import blake2b

import numpy as np
import pytest

from mtcore.clip import File, Lazy
from mtcore.progress import Progress
from mtcore.reading import digests as module
from mtcore.reading.digests import Digests


class Lines(Progress):
    def __init__(self):
        self.lines, self.tracked = [], 0

    def say(self, line):
        self.lines.append(line)

    def track(self, items, total, label):
        for item in items:
            self.tracked += 1
            yield item
        assert total is None or self.tracked <= total


def of(cache, audios, **how):
    """Digests, how many were taken anew, and the lines said."""
    progress = Lines()
    found, errors = Digests(cache).of(audios, progress=progress, **how)
    assert [position for position, digest in enumerate(found) if digest is None] == sorted(errors)
    return found, progress.tracked, progress.lines, errors


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_digest_is_of_the_bytes_and_taken_once(tmp_path, jobs):
    paths = [write(tmp_path / f"{number}.wav", b"%d" % (number % 150)) for number in range(300)]
    audios = [File(path, start) for path in paths for start in (0, 1, 2)]
    found, taken, lines, errors = of(tmp_path / "cache", audios, jobs=jobs)
    assert found == [blake2b(b"%d" % (number % 150), digest_size=16).hexdigest() for number in range(300) for _ in range(3)]
    assert (taken, lines, errors) == (300, [], {})
    assert of(tmp_path / "cache", audios, jobs=jobs) == (found, 0, [], {})


def test_what_changed_is_read_again_and_nothing_else(tmp_path):
    paths = [write(tmp_path / name, name.encode()) for name in ("a", "b", "c")]
    before, *_ = of(tmp_path / "cache", [File(path) for path in paths])
    paths[1].write_bytes(b"B")
    os.utime(paths[1], ns=(0, 1))
    after, taken, *_ = of(tmp_path / "cache", [File(path) for path in paths])
    assert taken == 1
    assert [old == new for old, new in zip(before, after)] == [True, False, True]


def test_a_link_to_the_folder_is_the_same_folder(tmp_path):
    path = write(tmp_path / "real" / "a", b"a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    first, *_ = of(tmp_path / "cache", [File(path)])
    assert of(tmp_path / "cache", [File(tmp_path / "link" / "a")])[:2] == (first, 0)


def test_names_that_are_no_text(tmp_path):
    path = write(tmp_path / "b\udcff ä 鶫", b"a")
    assert of(tmp_path / "cache", [File(path)])[1] == 1
    assert of(tmp_path / "cache", [File(path)])[1] == 0


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path):
    good, empty = write(tmp_path / "good", b"a"), write(tmp_path / "empty", b"")
    (tmp_path / "folder").mkdir()
    audios = [File(tmp_path / "missing"), File(good), File(tmp_path / "folder"), File(empty), File(tmp_path / "missing", 1)]
    found, _, _, errors = of(tmp_path / "cache", audios)
    assert [digest is None for digest in found] == [True, False, True, True, True]
    assert str(errors[0]) == f"{tmp_path}/missing: expected a file that can be read, but: No such file or directory"
    assert "folder: expected a file that can be read" in str(errors[2])
    assert "empty one (0 bytes)" in str(errors[3])
    assert str(errors[4]) == str(errors[0])


def tone(pitch, length=100):
    if pitch < 0:
        raise OSError("the archive is gone")
    return np.full(length, pitch, np.float32), 8000.0


def other(pitch):
    return tone(pitch)


def test_lazy_by_key_or_by_samples(tmp_path):
    lazies = [Lazy(tone, (1,), "one"), Lazy(tone, (2,), "one"), Lazy(tone, (1,), "two"), Lazy(other, (1,), "one"),
              Lazy(tone, (1,)), Lazy(other, (1,)), Lazy(tone, (2,)), Lazy(tone, (1, 99)), Lazy(tone, (-1,)),
              Lazy(tone, (-1,), "three")]
    found, _, _, errors = of(tmp_path, lazies, jobs=2)
    same = [(i, j) for i in range(10) for j in range(i) if i != 8 and j != 8 and found[i] == found[j]]
    assert same == [(1, 0), (5, 4)]
    assert list(errors) == [8] and "the archive is gone" in str(errors[8])
    assert of(tmp_path, lazies)[0] == found


@pytest.mark.parametrize("damage", [lambda content: b"no database" * 100,
                                    lambda content: content[:5000] + bytes(len(content) - 5000)])
def test_a_damaged_memory_is_put_aside(tmp_path, damage):
    audios = [File(write(tmp_path / f"{number}" / "sound", b"%d" % number)) for number in range(300)]
    before, *_ = of(tmp_path / "cache", audios)
    memory = tmp_path / "cache" / "digests.sqlite"
    broken = damage(memory.read_bytes())
    memory.write_bytes(broken)
    found, taken, lines, _ = of(tmp_path / "cache", audios)
    assert (found, taken) == (before, 300)
    assert len(lines) == 1 and "put aside as digests.sqlite.broken" in lines[0]
    assert (tmp_path / "cache" / "digests.sqlite.broken").read_bytes() == broken
    assert of(tmp_path / "cache", audios) == (before, 0, [], {})


def test_without_a_folder_for_the_memory(tmp_path):
    blocker = write(tmp_path / "file", b"")
    audios = [File(write(tmp_path / "sound", b"a")), File(write(tmp_path / "noise", b"b"))]
    found, taken, lines, _ = of(blocker / "cache", audios)
    assert (len(set(found)), taken, len(lines)) == (2, 2, 1)
    assert "digests are not remembered" in lines[0]


def test_a_memory_that_is_read_only_is_still_read(tmp_path, monkeypatch):
    known, new = File(write(tmp_path / "known", b"a")), File(write(tmp_path / "new", b"b"))
    of(tmp_path / "cache", [known])
    connect = sqlite3.connect  # root may write anywhere, so the mode of the file would prove nothing
    monkeypatch.setattr(module.sqlite3, "connect", lambda path, **how: connect(f"file:{path}?mode=ro", uri=True, **how))
    found, taken, lines, _ = of(tmp_path / "cache", [known, new])
    assert (taken, len(lines), None in found) == (1, 1, False)
    assert "readonly" in lines[0]


def test_an_interrupt_keeps_what_was_read(tmp_path):
    audios = [File(write(tmp_path / f"{number}", b"%d" % number)) for number in range(200)]

    class Interrupted(Lines):
        def track(self, items, total, label):
            for item in super().track(items, total, label):
                yield item
                if self.tracked == 100:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Digests(tmp_path / "cache").of(audios, progress=Interrupted())
    assert of(tmp_path / "cache", audios)[1] == 100


def test_several_processes_at_once(tmp_path):
    for number in range(200):
        write(tmp_path / "sounds" / f"{number}", b"%d" % number)
    code = ("import sys; from pathlib import Path; from mtcore.clip import File; from mtcore.reading.digests import Digests\n"
            "found, errors = Digests(sys.argv[1]).of([File(path) for path in sorted(Path(sys.argv[2]).iterdir())])\n"
            "assert not errors; print(*found)")
    command = [sys.executable, "-c", code, tmp_path / "cache", tmp_path / "sounds"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = {run.communicate()[0] for run in runs}
    assert [run.returncode for run in runs] == [0] * 4
    audios = [File(path) for path in sorted((tmp_path / "sounds").iterdir())]
    found, taken, lines, _ = of(tmp_path / "cache", audios)
    assert (outputs, taken, lines) == ({" ".join(found) + "\n"}, 0, [])
