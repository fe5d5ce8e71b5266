"""Many rows at once: the same bits as one by one, looked up and read once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtcore.builtin.preparers import Standardize
from mtcore.extracting import fill
from mtcore.extracting.chain import Array
from mtcore.extracting.store import Store, row_key, write_shard
from mtcore.plugin import Axis, Context


@pytest.fixture
def store(tmp_path):
    """Three shards: float32, float16, and what fits into int16; and the arrays by key."""
    rng, arrays = np.random.default_rng(0), {}
    for number, kind in enumerate((np.float32, np.float16, np.int16)):
        rows = []
        for i, frames in enumerate(rng.integers(3, 40, 7)):
            data = rng.standard_normal((2, 3, frames)).astype(np.float32)
            data = np.float32(2.0**-15) * (data * 9000).astype(np.int16) if kind == np.int16 else data.astype(kind)
            rows.append((row_key(f"{number}{i:031x}"), Array(data, axis=Axis(0.01))))
        write_shard(tmp_path, {}, rows)
        arrays |= {key: array.data.astype(np.float32) for key, array in rows}
    assert {np.load(path).dtype.name for path in tmp_path.glob("*.npy")} == {"float32", "float16", "int16"}
    return Store(tmp_path, {}), arrays


@pytest.mark.parametrize("rest", [False, True])
def test_rows_are_gathered_to_the_bits_of_single_ones(store, rest):
    one, arrays = store
    keys = [*list(arrays)[::2], None, *list(arrays)[1::2]]
    places = one.places(keys)
    assert places[keys.index(None)] == -1 and one.places(keys) is places
    prepared = Standardize().prepare(Context((2, 3, None), axis=Axis(0.01)))
    rng = np.random.default_rng(1)
    state = {"mean": rng.standard_normal((2, 3, 1)) * (1e4 if rest else 1), "deviation": rng.random((2, 3, 1)) + 0.01}
    chosen = [i for i in rng.permutation(len(keys)) if keys[i]]
    for apply in (None, lambda x, out: prepared.apply(x, state, None, out=out)):
        batch = np.full((len(chosen), 2, 3, 25), np.nan, np.float32)
        one.gather(batch, places[chosen], apply)
        for row, i in zip(batch, chosen):
            cut = arrays[keys[i]][..., :25]
            expected = cut if apply is None else prepared.apply(cut, state, None)
            assert row[..., :cut.shape[-1]].tobytes() == expected.tobytes() and not row[..., cut.shape[-1]:].any()
    assert all(np.array_equal(one.read(key).data, arrays[key]) for key in arrays)  # nothing was written into what is mapped


def test_places_are_looked_up_anew_when_shards_are_added(store):
    one, arrays = store
    keys = list(arrays)
    before = one.places(keys)
    write_shard(one.folder, {}, [(row_key("ff"), Array(np.ones((2, 3, 4), np.float32), axis=Axis(0.01)))])
    one.refresh()
    keys.append(row_key("ff"))
    assert one.places(keys).tolist() == [*before, 21] and one.shapes(one.places(keys))[-1].tolist() == [2, 3, 4]


def test_sums_are_read_once_unless_they_are_large(store, monkeypatch):
    one, arrays = store
    keys = list(arrays)
    first, other = one.sums(keys[3:]), Store(one.folder, {})
    monkeypatch.setattr("mtcore.extracting.store.KEPT", 100)
    assert all(np.array_equal(a, b) for a, b in zip(first, other.sums(keys[3:])))
    monkeypatch.undo()
    for path in one.folder.glob("*.parquet"):
        path.unlink()
    assert all(np.array_equal(a[1:], b) for a, b in zip(first, one.sums(keys[4:])))
    with pytest.raises(OSError):
        other.sums(keys)


def test_a_batch_has_the_bits_of_its_rows(make, generated):
    datasets = {name: {"reader": generated(seconds=seconds, offset=offset)} for name, seconds, offset in (("a", 2.0, 0), ("b", 3.5, 100))}
    experiment = make(datasets=datasets, split={"folds": 1}, model={"trunk": {"use": "core.cnn", "channels": [4]}})
    experiment.extract()
    rows = experiment.runs()[0].data().rows("train")
    chosen = [0, len(rows) - 1, 3, len(rows) - 2]
    batch = rows.batch(chosen)
    for row, length, values in zip(chosen, batch.lengths["main"].tolist(), batch.inputs["main"]):
        d, c, _ = rows.index[row]
        one, state = rows.data.input(d, "main"), rows.data.state(d, "main")
        alone = one.chain.run(one.store.read(one.keys[c]), one.chain.cut, len(one.chain.steps), state, part="train").data
        assert alone.shape[-1] == length and torch.equal(values[..., :length], torch.from_numpy(alone)) and not values[..., length:].any()


def test_another_run_decodes_no_clip_and_computes_no_feature(make, monkeypatch):
    calls = []
    for name in ("decode", "write_shard"):
        real = getattr(fill, name)
        monkeypatch.setattr(fill, name, lambda *given, real=real, name=name: (calls.append(name), real(*given))[1])
    make(split={"folds": 1}).run()
    assert calls.count("decode") > 1 and "write_shard" in calls
    calls.clear()
    [run] = make(split={"folds": 1}, train={"epochs": 1, "batch_size": 4}).run()
    assert run.folder.info["status"] == "done" and not calls


def test_batches_read_at_a_time_are_no_more_than_memory_for_them(make, generated, monkeypatch):
    """A short one says nothing of those behind it."""
    run = make(datasets={"short": {"reader": generated()}, "long": {"reader": generated(seconds=5.0, offset=100)}}).runs()[0]
    rows, made = run.data().rows("train"), []
    size = max(rows.batch([row]).inputs["main"].nbytes for row in (0, len(rows) - 1))
    monkeypatch.setattr("mtcore.preparing.data.AHEAD", 3 * size)
    monkeypatch.setattr(rows, "batch", lambda some: made.append(some) or type(rows).batch(rows, some))
    drawn = [[0], *([row] for row in range(len(rows) - 8, len(rows)))]
    ahead = [len(made) - number for number, _ in enumerate(rows.batches(drawn))]
    assert made == drawn and max(ahead) == 3
