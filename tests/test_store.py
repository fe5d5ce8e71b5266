"""Feature stores: what is written is read to the bit, whoever writes, and whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from mtcore.cli import main
from mtcore.errors import DataError, ExperimentError
from mtcore.extracting.chain import Array
from mtcore.extracting.store import HEADER, Store, row_key, write_shard
from mtcore.plugin import Axis

ROOT = Path(__file__).parents[1]

FILLING = """
import sys
from pathlib import Path

import mtcore.extracting.fill as filling
from mtcore.builtin.sound import tone
from mtcore.clip import Lazy
from mtcore.extracting.chain import Chain
from mtcore.extracting.store import Store
from mtcore.plugin.registry import get_registry


def wanted(folder, count=160):
    registry = get_registry()
    chain = Chain((registry.make_step("core.mono"), registry.make_step("core.spectrogram", kinds=("extractor",))))
    clips = {f"{i:032x}:0:": (f"clip {i}", Lazy(tone, (0, i), str(i))) for i in range(count)}
    return filling.Wanted(chain, Store(Path(folder), chain.prefix), clips)


if __name__ == "__main__":
    filling.CHUNK = 8
    try:
        assert not filling.fill([wanted(sys.argv[1])], jobs=2)
    except filling.DataError as error:
        sys.exit(f"error: {error}")
"""


@pytest.fixture(scope="module")
def filling(tmp_path_factory):
    """A script that fills a store, as a module, with the bits of each row of an undisturbed run."""
    path = tmp_path_factory.mktemp("filling") / "filling_a_store.py"
    path.write_text(FILLING)
    sys.path.insert(0, str(path.parent))
    import filling_a_store

    want = filling_a_store.wanted(path.parent / "undisturbed")
    assert not filling_a_store.filling.fill([want])
    filling_a_store.rows, filling_a_store.count = bits(want.store), 160 // 8
    yield filling_a_store
    sys.path.remove(str(path.parent))


def bits(store):
    return {key: (store.shape(key), store.read(key).data.tobytes()) for key in store.rows}


def start(filling, folder, **options):
    return subprocess.Popen([sys.executable, filling.__file__, str(folder)], stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, **options)


def write(folder, arrays, axis=Axis(0.01, 0.005)):
    keys = [row_key(f"{i:032x}") for i in range(len(arrays))]
    write_shard(folder, {"steps": []}, [(key, Array(array, None, axis)) for key, array in zip(keys, arrays)])
    return keys


def kinds(folder):
    return {np.load(path, mmap_mode="r").dtype.name for path in folder.glob("*.npy")}


# What is stored ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(shapes=st.lists(st.lists(st.integers(1, 5), max_size=3), min_size=1, max_size=4), seed=st.integers(0, 99),
       kind=st.sampled_from(["pcm", "noise", "any bits", "half"]))
def test_rows_are_read_to_the_bit(tmp_path_factory, shapes, seed, kind):
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("store")
    make = {"pcm": lambda shape: (rng.integers(-32768, 32768, shape) / 32768).astype(np.float32),
            "noise": lambda shape: np.asarray(rng.standard_normal(shape), np.float32),
            "any bits": lambda shape: np.asarray(rng.integers(0, 2**32, shape), np.uint32).view(np.float32),
            "half": lambda shape: np.asarray(rng.standard_normal(shape), np.float16)}[kind]
    arrays = [make(tuple(shape)) for shape in shapes]
    with np.errstate(all="ignore"):
        keys = write(folder, arrays, axis=None)
    assert kinds(folder) == {{"pcm": "int16", "half": "float16"}.get(kind, "float32")}
    store = Store(folder, {})
    for key, array in zip(keys, arrays):
        found = store.read(key).data
        assert found.dtype == np.float32 and found.shape == array.shape == store.shape(key)
        assert found.tobytes() == array.astype(np.float32).tobytes()


@pytest.mark.parametrize("array", [[1.0], [-0.0], [np.nan], [np.inf], [0.5, 1 / 65536]], ids=str)
def test_what_int16_cannot_hold_stays_float32(tmp_path, array):
    array = np.array([[0.25, -1.0, 32767 / 32768, *array]], np.float32)
    [key] = write(tmp_path, [array], axis=None)
    assert kinds(tmp_path) == {"float32"} and Store(tmp_path, {}).read(key).data.tobytes() == array.tobytes()


@pytest.mark.parametrize("kind", [np.float32, np.float16, "pcm"], ids=str)
@settings(max_examples=30, deadline=None)
@given(lead=st.sampled_from([(), (1,), (3,), (2, 2)]), length=st.integers(1, 9), first=st.integers(0, 12), wanted=st.integers(0, 12))
def test_frames_are_read_into_a_part_of_a_batch(tmp_path_factory, kind, lead, length, first, wanted):
    folder, rng = tmp_path_factory.mktemp("store"), np.random.default_rng(length)
    arrays = [(rng.integers(-99, 99, (*lead, length)) / (32768 if kind == "pcm" else 7)).astype(np.float32 if kind == "pcm" else kind)
              for _ in range(3)]
    keys, batch = write(folder, arrays), np.full((3, *lead, wanted + 2), 7, np.float32)
    for key, array, into in zip(keys, arrays, batch):
        expected = array.astype(np.float32)[..., first:first + wanted]
        assert Store(folder, {}).read_into(into[..., 1:-1], key, first) == expected.shape[-1]
        assert (into[..., 1:1 + expected.shape[-1]] == expected).all() and not into[..., 1 + expected.shape[-1]:-1].any()
        assert (into[..., [0, -1]] == 7).all()
        assert (Store(folder, {}).read(key, (first, wanted)).data == expected).all()


def test_memory_of_another_shape_is_refused(tmp_path):
    [key] = write(tmp_path, [np.zeros((3, 5), np.float32)])
    with pytest.raises(ValueError, match=r"expected memory of the shape \[3, 'n'\], found \[2, 5\]"):
        Store(tmp_path, {}).read_into(np.empty((2, 5), np.float32), key)


@pytest.mark.parametrize("kind", ["<f4", "<f2"])
def test_sums_are_those_of_the_values_as_stored(tmp_path, kind):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((2, 3, n)).astype(kind) for n in rng.integers(1, 30, 40)]
    keys = write(tmp_path, arrays[:25]) + [row_key("ff", i) for i in range(15)]
    write_shard(tmp_path, {}, [(key, Array(array, None, Axis(1, 0))) for key, array in zip(keys[25:], arrays[25:])])
    chosen = rng.permutation(40)[:30]
    sums = Store(tmp_path, {}).sums([keys[i] for i in chosen])
    exact = [arrays[i].astype(np.float64) for i in chosen]
    assert sums.count.tolist() == [array.shape[-1] for array in exact]
    for found, of in ((sums.sum, lambda a: a.sum(-1)), (sums.squares, lambda a: (a**2).sum(-1)), (sums.minimum, lambda a: a.min(-1)),
                      (sums.maximum, lambda a: a.max(-1))):
        np.testing.assert_array_equal(found, [of(array) for array in exact])


def test_no_sums_without_a_time_axis_or_of_different_shapes(tmp_path):
    flat = write(tmp_path / "flat", [np.ones((3, 4), np.float32)], axis=None)
    mixed = write(tmp_path / "mixed", [np.ones((3, 4), np.float32), np.ones((2, 4), np.float32)])
    assert Store(tmp_path / "flat", {}).sums(flat) is None and Store(tmp_path / "mixed", {}).sums(mixed) is None


def test_more_shards_than_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr("mtcore.extracting.store.MAPS", 8)
    arrays = [np.full((1, 3), i + 0.1, np.float32) for i in range(30)]
    for i, array in enumerate(arrays):
        write_shard(tmp_path, {}, [(row_key(f"{i:032x}"), Array(array))])
    store = Store(tmp_path, {})
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert all((store.read(row_key(f"{i:032x}")).data == array).all() for i, array in enumerate(arrays))
    assert len(os.listdir("/proc/self/fd")) - before <= 8
    del store
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_page_shows_how_files_are_opened(tmp_path):
    rng = np.random.default_rng(0)
    text = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
    plain, ours, *_ = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    for kind in ("<f4", "<f2", "pcm"):
        arrays = [rng.integers(-9, 9, (4, n)).astype(np.float32) / (2**15 if kind == "pcm" else 7) for n in (30, 60)]
        arrays = arrays if kind == "pcm" else [array.astype(kind) for array in arrays]
        folder = tmp_path / kind
        write(folder, arrays)
        found = {"store": folder, "shard": next(folder.glob("*.npy")).stem}
        exec(plain, found)
        np.testing.assert_array_equal(found["array"], arrays[0])
        np.testing.assert_allclose(found["mean"], arrays[0].astype(float).mean(-1), rtol=1e-12)
        assert found["seconds"] == pytest.approx(0.3) and found["row"]["audio"] == f"{0:032x}"
        exec(ours, found)
        assert found["lengths"] == [30, 50]
        np.testing.assert_array_equal(found["batch"][1], arrays[1][:, :50].astype(np.float32))
        metadata = found["table"].schema.metadata
        assert metadata[b"digest"].decode() == hashlib.blake2b(next(folder.glob("*.npy")).read_bytes(), digest_size=16).hexdigest()
    named = re.findall(r"`([a-z]+)`", "".join(line.split("|")[1] for line in text.split("| column | |\n|---|---|\n")[1].splitlines()
                                              if line.startswith("|")))
    assert {*named, "start", "stop"} == set(found["table"].column_names)


def test_float16_has_stores_of_its_own(make):
    exact, rounded = make(split={"folds": 1}), make(split={"folds": 1}, extract={"dtype": "float16"})
    assert exact.runs()[0].identity != rounded.runs()[0].identity
    stores = []
    for experiment in (exact, rounded):
        experiment.extract()
        [want] = experiment.wanted(experiment.runs())
        stores.append(want.store)
    assert stores[0].folder != stores[1].folder and kinds(stores[1].folder) == {"float16"}
    for key in stores[0].rows:
        np.testing.assert_array_equal(stores[1].read(key).data, stores[0].read(key).data.astype(np.float16).astype(np.float32))
    make(split={"folds": 1}, extract={"dtype": "float16"}, train={"epochs": 1}).run()


def test_float16_that_overflows_names_the_clip(make, tmp_path):
    (tmp_path / "loud.py").write_text("import numpy as np\nfrom mtcore.plugin import Extractor\nfrom dataclasses import dataclass\n"
                                      "@dataclass(frozen=True, kw_only=True)\nclass Loud(Extractor):\n    def prepare(self, rate):\n"
                                      "        return lambda x: np.float32(1e5) * np.ones((1, 3), np.float32)\n"
                                      "    def axis(self, rate):\n        return None\n")
    loud = make(inputs={"main": {"extractor": "loud:Loud"}}, extract={"dtype": "float16"})
    with pytest.raises(ExperimentError, match=r"clip a/c\d+: extract.dtype: float16 ends at 65504, found 100000"):
        loud.extract()


def test_long_recordings_make_several_shards(filling, tmp_path, monkeypatch):
    monkeypatch.setattr(filling.filling, "HELD", 100_000)
    want = filling.wanted(tmp_path)
    filling.filling.fill([want])
    assert bits(want.store) == filling.rows and len(list(tmp_path.glob("*.npy"))) > 2 * filling.count


# Who writes, and what happens meanwhile ---------------------------------------------------------------------------------


def test_stores_and_what_is_wanted_can_be_sent_to_processes(filling, tmp_path):
    want = filling.wanted(tmp_path, 8)
    filling.filling.fill([want])
    again = pickle.loads(pickle.dumps(want))
    assert bits(again.store) == bits(want.store) and again.chain.key == want.chain.key and not again.missing()


def test_processes_of_joblib_fill_the_same_store(filling, tmp_path):
    want = filling.wanted(tmp_path)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        filling.filling.fill([want])
    assert bits(want.store) == filling.rows


def test_two_commands_at_once_share_the_work(filling, tmp_path):
    both = [start(filling, tmp_path), start(filling, tmp_path)]
    assert [process.communicate(timeout=120)[1] for process in both] == ["", ""] and [process.returncode for process in both] == [0, 0]
    assert bits(Store(tmp_path, {})) == filling.rows
    assert not list(tmp_path.glob(".*")) and len(list(tmp_path.glob("*.npy"))) < 2 * filling.count


def test_killed_at_any_moment_nothing_half_written_is_read(filling, tmp_path):
    seen, moments = set(), random.Random(0)
    for _ in range(4):
        process = start(filling, tmp_path)
        before = len(list(tmp_path.glob("*.parquet")))
        while process.poll() is None and len(list(tmp_path.iterdir())) <= 2 * before + 1:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = bits(Store(tmp_path, {}))
        assert found.items() <= filling.rows.items() and seen <= found.keys()
        seen = found.keys()
    last = start(filling, tmp_path)
    assert last.communicate(timeout=120)[1] == "" and bits(Store(tmp_path, {})) == filling.rows


def test_a_full_disk_says_so_and_the_next_run_continues(filling, tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    full = start(filling, tmp_path / "store", preexec_fn=limit)
    message = full.communicate(timeout=120)[1]
    assert full.returncode == 1 and len(message.splitlines()) == 1
    assert f"error: {tmp_path / 'store'}: cannot write features: File too large; free space" in message
    # what another thread was about to write when the process ended lies aside
    assert [path.name for path in (tmp_path / "store").iterdir() if path.suffix != ".aside"] == ["prefix.json"]
    want = filling.wanted(tmp_path / "store")
    filling.filling.fill([want])
    assert bits(want.store) == filling.rows


def test_a_folder_that_cannot_be_written_says_so(filling, tmp_path):
    want = filling.wanted(tmp_path / "features" / "store", 8)
    (tmp_path / "features").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write features: .*; free space or choose another folder with --cache"):
        filling.filling.fill([want])


def test_a_shard_that_has_gone_or_shrunk_is_an_error_not_a_result(tmp_path):
    [key] = write(tmp_path, [np.arange(64, dtype=np.float32).reshape(1, 64)])
    data = next(tmp_path.glob("*.npy"))
    store, short = Store(tmp_path, {}), Store(tmp_path, {})
    os.truncate(data, HEADER + 100)
    with pytest.raises(DataError, match="mmap length is greater than file size; run again"):
        short.read(key)
    with pytest.raises(DataError, match=f"{data.stem}.parquet: expected a shard .* found 228 bytes"):
        Store(tmp_path, {})
    data.unlink()
    with pytest.raises(DataError, match="No such file or directory.*; run again"):
        store.read(key)


# mtcore cache -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path):
    """Two stores of an experiment and one of nobody; `cache(*arguments)` gives exit code and output."""
    (tmp_path / "first.toml").write_text('name = "first"\n[datasets.tones]\nreader = {use = "core.tones", count = 70}\n'
                                         '[inputs.main]\nextractor = "core.spectrogram"\n[inputs.wave]\nextractor = "core.waveform"\n'
                                         '[model]\ntrunk = "core.mlp"\n')

    def run(*arguments):
        done = CliRunner().invoke(main, [*arguments, "--cache", str(tmp_path / "cache")])
        return done.exit_code, done.output

    assert run("extract", str(tmp_path / "first.toml"))[0] == 0
    write(tmp_path / "cache" / "features" / "0123456789", [np.ones((2, 3), np.float32)])
    os.utime(tmp_path / "cache" / "features" / "0123456789" / "prefix.json", (time.time() - 86400 * 9,) * 2)
    return run


def keys(cache):
    return [one["key"] for one in json.loads(cache("cache", "list", "--json")[1])]


def test_cache_lists_and_shows(cache, tmp_path):
    found = json.loads(cache("cache", "list", "--json")[1])
    assert [one["rows"] for one in found] == [70, 70, 1] and found[2]["key"] == "0123456789"
    assert all(one["bytes"] == sum(p.stat().st_size for p in Path(one["folder"]).iterdir()) for one in found)
    text = cache("cache", "list")[1]
    assert re.search(r"^0123456789 +1 +0 +float32 +9", text, re.M) and re.search(r" 70 .*core\.spectrogram.* hop=0\.01", text)
    [one] = json.loads(cache("cache", "show", "0123")[1])
    assert one["prefix"] == {"steps": []} and [shard["rows"] for shard in one["shards"]] == [1]
    code, text = cache("cache", "show", "nothing")
    assert code == 2 and "no store's key begins with 'nothing'" in text


def test_cache_looks_without_using_and_experiments_use(cache, tmp_path):
    for folder in (tmp_path / "cache" / "features").iterdir():
        os.utime(folder / "prefix.json", (1e9, 1e9))
    cache("cache", "list")
    cache("cache", "verify")
    assert {one["used"] for one in json.loads(cache("cache", "list", "--json")[1])} == {10**9}
    cache("extract", str(tmp_path / "first.toml"))
    assert sorted(one["used"] == 10**9 for one in json.loads(cache("cache", "list", "--json")[1])) == [False, False, True]


def test_cache_verify_names_bad_shards(cache, tmp_path):
    assert cache("cache", "verify") == (0, "5 of 5 shards are as written\n")
    [first, second, *_] = sorted((tmp_path / "cache").rglob("shard-*.npy"))
    for path, place in ((first, HEADER + 5), (second.with_suffix(".parquet"), 200)):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
    code, text = cache("cache", "verify")
    assert code == 1 and first.stem in text and second.stem in text and "3 of 5 shards are as written" in text
    code, text = cache("cache", "verify", "--json")
    assert code == 1 and set(json.loads(text[:text.rindex("}") + 1])["bad"]) == {str(path.with_suffix(".parquet")) for path in (first, second)}


def test_cache_prunes_by_key_age_size_and_experiment(cache, tmp_path):
    first, everything = str(tmp_path / "first.toml"), keys(cache)
    assert cache("cache", "prune")[0] == 2 and "nothing is deleted without --yes" in cache("cache", "prune", "0123")[1]
    assert keys(cache) == everything
    assert everything[0] not in cache("cache", "prune", "--max-size", "0.000001", "--older-than", "8")[1]
    for condition in (["--older-than", "8"], ["--not-used-by", first], ["0123"], ["--max-size", str(_size(tmp_path) / 1e9 - 1e-9)]):
        assert cache("cache", "prune", *condition, "--yes")[0] == 0
        assert sorted(keys(cache)) == sorted(everything[:2]) and not (tmp_path / "cache" / "features" / "0123456789").exists()
        write(tmp_path / "cache" / "features" / "0123456789", [np.ones((2, 3), np.float32)])
        os.utime(tmp_path / "cache" / "features" / "0123456789" / "prefix.json", (time.time() - 86400 * 9,) * 2)
    assert cache("cache", "prune", "--max-size", "0", "--yes")[0] == 0 and keys(cache) == []
    assert cache("extract", first)[0] == 0 and len(keys(cache)) == 2


def _size(tmp_path):
    return sum(path.stat().st_size for path in (tmp_path / "cache" / "features").rglob("*") if path.is_file())


def test_cache_prune_takes_what_killed_processes_left(cache, tmp_path):
    store = tmp_path / "cache" / "features" / "0123456789"
    left, fresh = [store / ".shard-0.npy.1a2b3c4d.aside", store / "shard-0.npy"], store / "shard-1.npy"
    for path in (*left, fresh):
        path.write_bytes(b"half")
        if path is not fresh:
            os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert "0 stores and 2 files" in cache("cache", "prune", "--older-than", "100", "--yes")[1]
    assert not any(path.exists() for path in left) and fresh.exists() and pq.read_metadata(next(store.glob("*.parquet"))).num_rows == 1
