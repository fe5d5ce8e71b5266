"""The feature store: arrays of many clips one after the other in flat files, described by Parquet files.

A store lies in `<cache>/features/<key>/`. A shard is `shard-X.npy` plus `shard-X.parquet`, which is renamed into place last: a shard
without Parquet does not exist. X follows from the content, so that processes which fill a store at once do not disturb each other;
shards are only ever added. The numbers are float32, as int16 where nothing is lost, or float16 where the experiment says so.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..plugin import Axis, Sums
from ..runfolder import atomic, atomic_write
from .chain import Array

__all__ = ["Shelf", "Store", "open_shard", "row_key", "write_shard"]

HEADER = 128
"""Bytes before the data: what an npy header of one dimension is padded to."""
MAPS = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
"""Files that a store keeps mapped, of those that `ulimit -n` allows the process: each further one is mapped again when it is read."""
MEMORY = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
"""Bytes that this machine has: a store of more than half of it is not held by the system between two reads of a row."""
KEPT = 1 << 26
"""Bytes of sums that a store keeps once they are read: one with more reads them each time."""
STEP = np.float32(2.0**-15)
"""What one step of an int16 is worth: the samples of 16-bit recordings lie in [-1, 1)."""
PLACE = ("key", "offset", "shape", "rate", "hop", "first", "by", "speed")
SUMS = ("sum", "squares", "minimum", "maximum")


def row_key(digest: str, start: float = 0.0, stop: float | None = None) -> str:
    """Key of a row: digest of the audio's bytes with start and stop in seconds."""
    return f"{digest}:{start:.9g}:{'' if stop is None else format(stop, '.9g')}"


class Store:
    """Rows of one prefix. `rows` maps row keys to row numbers; `read` gives an array by row key, `gather` many by row number. Pickled
    without its rows' places, which are looked up anew: row numbers are those of this object only."""

    def __init__(self, folder: Path, prefix: Mapping[str, Any]):
        self.folder = Path(folder)
        self.prefix = prefix
        self.rows: dict[str, int] = {}
        self._shards: dict[str, tuple[int, np.dtype, int]] = {}
        self._order: list[str] = []
        self._found: list[dict[str, np.ndarray]] = []
        self._maps: dict[int, tuple[mmap.mmap, np.ndarray]] = {}
        self._known: dict[int, tuple[Sequence[str | None], np.ndarray]] = {}
        self._sums: tuple[np.ndarray, np.ndarray] | None = None
        self._count = self._bytes = 0
        self.refresh()
        with suppress(OSError):
            os.utime(self.folder / "prefix.json")  # its time is that of the last use

    def __reduce__(self):
        return Store, (self.folder, self.prefix)

    def refresh(self) -> None:
        """Find shards that have been added since."""
        for path in sorted(self.folder.glob("shard-*.parquet")):
            if path.stem in self._shards:
                continue
            try:
                table, dtype = open_shard(path)
            except DataError:
                if path.exists():
                    raise
                continue  # pruned just now
            columns = {name: table[name].to_numpy() for name in PLACE if name not in ("key", "shape")}
            shapes = table["shape"].combine_chunks()
            ends = shapes.offsets.to_numpy()
            self._found.append(columns | {"dims": np.diff(ends), "sizes": shapes.values.to_numpy()[ends[0]:ends[-1]],
                                          "shard": np.full(len(table), len(self._order)), "seen": np.zeros(len(table), bool)})
            size = HEADER + int(table.schema.metadata[b"elements"]) * dtype.itemsize
            self._bytes += size
            self._shards[path.stem] = self._count, dtype, size
            self._order.append(path.stem)
            for row, key in enumerate(table["key"].to_pylist(), self._count):
                self.rows.setdefault(key, row)
            self._count += len(table)
            self._known, self._sums = {}, None

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    @property
    def _columns(self) -> dict[str, np.ndarray]:
        """Of all rows; `ends` says where a row's shape ends in `sizes`."""
        if len(self._found) > 1 or self._found and "ends" not in self._found[0]:
            joined = {name: np.concatenate([one[name] for one in self._found]) for name in self._found[0] if name != "ends"}
            self._found = [joined | {"ends": np.cumsum(joined["dims"])}]
        return self._found[0]

    def shape(self, key: str) -> tuple[int, ...]:
        return self._shape(self.rows[key])

    def _shape(self, row: int) -> tuple[int, ...]:
        end = self._columns["ends"][row]
        return tuple(self._columns["sizes"][end - self._columns["dims"][row]:end].tolist())

    def places(self, keys: Sequence[str | None]) -> np.ndarray:
        """Row numbers of these keys, -1 for None. Looked up once for a list that stays as it is."""
        known = self._known.get(id(keys))
        if known is None or known[0] is not keys:
            known = self._known[id(keys)] = keys, np.array([-1 if key is None else self.rows[key] for key in keys], np.int64)
        return known[1]

    def shapes(self, rows: np.ndarray) -> np.ndarray | None:
        """Shapes of rows by number, [rows, dimensions]; None where they differ in the number of dimensions."""
        columns = self._columns
        dims = columns["dims"][rows]
        if not len(dims) or (dims != dims[0]).any():
            return None
        return columns["sizes"][columns["ends"][rows][:, None] + np.arange(-dims[0], 0)]

    def read(self, key: str, frames: tuple[int, int] | None = None) -> Array:
        """The array of a row as float32, or those of its frames (first, number) of the last dimension that there are."""
        row, shape = self.rows[key], self.shape(key)
        if frames is not None:
            shape = (*shape[:-1], max(min(frames[1], shape[-1] - frames[0]), 0))
        data = np.empty(shape, np.float32)
        self.read_into(data, key, frames[0] if frames else 0)
        rate, hop, first, by, speed = (float(self._columns[name][row]) for name in ("rate", "hop", "first", "by", "speed"))
        return Array(data, None if math.isnan(rate) else rate, None if math.isnan(hop) else Axis(hop, first), by, speed, frames)

    def read_into(self, out: np.ndarray, key: str, first: int = 0) -> int:
        """Fill `out`, float32 [..., n], with the n frames of a row from `first` on, zeros behind its end. Gives the number of frames.
        `out` has the row's shape but for the last dimension, and may be a part of a batch: numbers are copied once, from the file's pages."""
        row = self.rows[key]
        shape = self._shape(row)
        if not shape:
            shape, out = (1,), out.reshape(1)
        if out.shape[:-1] != shape[:-1]:
            raise ValueError(f"{key}: expected memory of the shape {[*shape[:-1], 'n']}, found {list(out.shape)}")
        self._fill([out], [row], [shape], first)
        return max(min(out.shape[-1], shape[-1] - first), 0)

    def gather(self, out: Sequence[np.ndarray], rows: np.ndarray, apply: Callable[[np.ndarray, np.ndarray], None] | None = None,
               shapes: np.ndarray | None = None) -> None:
        """Fill each of `out`, as `read_into` does, with the row of this number. `apply(x, out)` puts what shall be made of a row's
        array x into memory of the same shape, which may be that of x. `shapes` as `shapes(rows)` gives them."""
        self._fill(out, rows.tolist(), (self.shapes(rows) if shapes is None else shapes).tolist(), 0, apply)

    def _fill(self, outs: Iterable[np.ndarray], rows: list[int], shapes: Iterable[Sequence[int]], first: int, apply: Any = None) -> None:
        columns = self._columns
        fresh = [True] * len(rows) if self._bytes > MEMORY // 2 else (~columns["seen"][rows]).tolist()
        for out, row, shape, offset, shard, announced in zip(outs, rows, shapes, columns["offset"][rows].tolist(),
                                                             columns["shard"][rows].tolist(), fresh):
            mapped, flat = self._maps.get(shard) or self._mapped(shard)
            end, frames = offset + math.prod(shape), max(min(out.shape[-1], shape[-1] - first), 0)
            if frames and announced:  # from disk in one go: ten times as fast as page by page
                begin, stop = (HEADER + at * flat.itemsize for at in (offset + first, end - shape[-1] + first + frames))
                page = begin % mmap.PAGESIZE
                mapped.madvise(mmap.MADV_WILLNEED, begin - page, stop - begin + page)
                columns["seen"][row] = True
            if frames:
                found, into = flat[offset:end].reshape(shape)[..., first:first + frames], out[..., :frames]
                if apply is None or flat.dtype != np.float32:
                    _convert(found, into)
                    found = into
                if apply is not None:
                    apply(found, into)
            if frames < out.shape[-1]:
                out[..., frames:] = 0

    def _mapped(self, shard: int) -> tuple[mmap.mmap, np.ndarray]:
        """A shard's file and its numbers, mapped: the system's memory, not ours. A map that is dropped goes with its last reader."""
        while len(self._maps) >= MAPS:
            self._maps.pop(next(iter(self._maps)), None)
        path, (_, dtype, size) = self.folder / f"{self._order[shard]}.npy", self._shards[self._order[shard]]
        try:
            with open(path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)  # nobody writes; torch takes no other
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: expected a shard of a feature store: {error}; run again to have what is missing made") from error
        self._maps[shard] = known = mapped, np.frombuffer(mapped, dtype, offset=HEADER)
        return known

    def sums(self, keys: Sequence[str]) -> Sums | None:
        """Sums of these rows as stored, in this order; None where some have none (arrays without a time axis)."""
        rows = np.fromiter(map(self.rows.__getitem__, keys), np.int64, len(keys))
        shapes = self.shapes(rows)
        if shapes is None or not shapes.shape[1] or (shapes[:, :-1] != shapes[0, :-1]).any():
            return None
        width = math.prod(shapes[0, :-1].tolist())
        if self._count * len(SUMS) * width * 8 > KEPT:
            found, having = self._read_sums(rows, width)
        else:
            if self._sums is None or self._sums[0].shape[-1] != width:
                self._sums = self._read_sums(np.arange(self._count), width)
            found, having = np.take(self._sums[0], rows, axis=1), self._sums[1][rows]
        return Sums(shapes[:, -1], *found.reshape(len(SUMS), len(rows), *shapes[0, :-1])) if having.all() else None

    def _read_sums(self, rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Of rows by number: [sums, rows, width], and which rows have them, of this width."""
        import pyarrow.parquet as pq

        out, having = np.empty((len(SUMS), len(rows), width)), np.ones(len(rows), bool)
        shards = self._columns["shard"][rows]

        def read(shard: int) -> None:
            with pq.ParquetFile(self.folder / f"{self._order[shard]}.parquet", memory_map=False) as file:
                table = file.read(columns=list(SUMS), use_threads=False)
            at = np.flatnonzero(shards == shard)
            local = rows[at] - self._shards[self._order[shard]][0]
            for values, name in zip(out, SUMS):
                column = table[name].combine_chunks()
                ends = column.offsets.to_numpy()
                having[at] &= (whole := ends[local + 1] - ends[local] == width)
                values[at[whole]] = column.values.to_numpy()[ends[local[whole]][:, None] + np.arange(width)]

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(read, np.unique(shards).tolist()))
        return out, having


def _convert(found: np.ndarray, into: np.ndarray) -> None:
    if found.dtype == np.int16:
        np.multiply(found, STEP, out=into)
    elif found.dtype == np.float16:
        import torch  # four times as fast as numpy here

        torch.from_numpy(into).copy_(torch.from_numpy(found))
    else:
        into[...] = found


def open_shard(path: Path, checked: bool = False) -> tuple[Any, np.dtype]:
    """A shard's table (without the sums) and the type of its numbers. `checked`: all bytes are read and compared with their checksums.

    Raises `DataError` that names what is wrong.
    """
    import pyarrow.parquet as pq  # 0.2 s, and needed only where features are

    data = path.with_suffix(".npy")
    try:
        with pq.ParquetFile(path, memory_map=False, page_checksum_verification=checked) as file:
            table = file.read(columns=None if checked else list(PLACE), use_threads=False)
        about = {name: table.schema.metadata[name].decode() for name in (b"dtype", b"elements", b"digest")}
        dtype = np.dtype(about[b"dtype"])
        size, expected = data.stat().st_size, HEADER + int(about[b"elements"]) * dtype.itemsize
        if size != expected:
            raise ValueError(f"{size} bytes in {data.name}, {expected} expected")
        if checked:
            with open(data, "rb") as file:
                if file_digest(file, _blake2b).hexdigest() != about[b"digest"]:
                    raise ValueError(f"other bytes in {data.name} than were written")
    except PermissionError as error:
        raise DataError(f"{path}: expected a shard of a feature store that may be read: {error.strerror}") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: expected a shard of a feature store, found {error}; delete the file to have it made again") from error
    return table, dtype


def _blake2b() -> Any:
    return blake2b(digest_size=16)


def write_shard(folder: Path, prefix: Mapping[str, Any], rows: Iterable[tuple[str, Array]]) -> None:
    """Add a shard of these rows, (row key, array), to the store of a prefix. Arrays are float32, or all float16."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(rows)
    if not rows:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "prefix.json").exists():
        atomic_write(folder / "prefix.json", json.dumps(prefix, indent=1, sort_keys=True, default=list))
    values = _packed([array.data for _, array in rows])
    total, dtype = sum(one.size for one in values), values[0].dtype
    header, digest = io.BytesIO(), _blake2b()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": (total,)})
    for part in (header.getvalue(), *values):
        digest.update(part)
    name = blake2b("\n".join((*(key for key, _ in rows), digest.hexdigest())).encode(), digest_size=8).hexdigest()
    described = [_describe(key, array, offset) for (key, array), offset in zip(rows, np.cumsum([0, *(one.size for one in values)]).tolist())]
    schema = pa.schema([("key", pa.string()), ("audio", pa.string()), ("start", pa.float64()), ("stop", pa.float64()),
                        ("offset", pa.int64()), ("shape", pa.list_(pa.int64())), ("rate", pa.float64()), ("hop", pa.float64()),
                        ("first", pa.float64()), ("by", pa.float64()), ("speed", pa.float64()),
                        *((column, pa.list_(pa.float64())) for column in SUMS)],
                       metadata={"elements": str(total), "dtype": dtype.str, "digest": digest.hexdigest()})
    with atomic(folder / f"shard-{name}.npy") as path, open(path, "wb") as handle:
        handle.write(header.getvalue())
        for one in values:
            handle.write(one.data)
    with atomic(folder / f"shard-{name}.parquet") as path:
        pq.write_table(pa.Table.from_pylist(described, schema=schema), path, use_dictionary=False, write_page_checksum=True)


def _packed(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Of one type: float16 as they are, int16 if that gives the same bits for all, else float32."""
    if arrays[0].dtype == np.float16:
        return [np.ascontiguousarray(data) for data in arrays]
    whole = []
    for data in arrays:
        steps = data / STEP
        with np.errstate(invalid="ignore"):
            whole.append(np.ascontiguousarray(steps.astype("<i2")))
        if not np.array_equal((whole[-1] * STEP).view(np.int32), np.ascontiguousarray(data, "<f4").view(np.int32)):  # also -0.0 and NaN
            return [np.ascontiguousarray(data, "<f4") for data in arrays]
    return whole


def _describe(key: str, array: Array, offset: int) -> dict[str, Any]:
    digest, start, stop = key.split(":")
    data, axis = array.data, array.axis
    row = {"key": key, "audio": digest, "start": float(start), "stop": float(stop) if stop else None, "offset": offset, "shape": data.shape,
           "rate": array.rate, "hop": axis.hop if axis else None, "first": axis.first if axis else None,
           "by": array.by, "speed": array.speed}
    if axis is not None:
        exact = data.astype(np.float64)
        single = data.astype(np.float32, copy=False)
        row |= {"minimum": single.min(-1).ravel(), "maximum": single.max(-1).ravel(), "sum": exact.sum(-1).ravel(),
                "squares": np.square(exact, out=exact).sum(-1).ravel()}
    return row


class Shelf:
    """A store as it lies on disk, looked at without using it: `prefix`, `used` (when last, in seconds since 1970), `size` in bytes."""

    def __init__(self, folder: Path):
        self.folder, self.key, about = folder, folder.name, folder / "prefix.json"
        try:
            self.prefix = json.loads(about.read_text(encoding="utf-8")) if about.exists() else {}
        except ValueError as error:
            raise DataError(f"{about}: expected what the store holds, as JSON, found {error}; delete the folder") from error
        self.used = (about if about.exists() else folder).stat().st_mtime
        self.size = sum(path.stat().st_size for path in folder.iterdir())

    def shards(self) -> list[Path]:
        return sorted(self.folder.glob("shard-*.parquet"))

    def leftovers(self, age: float = 86400.0) -> list[Path]:
        """What killed processes left, when it is so many seconds old: half-written files, and data without its Parquet."""
        return [path for path in self.folder.iterdir() if path.stat().st_mtime < time.time() - age and (
            path.suffix == ".aside" or (path.suffix == ".npy" and not path.with_suffix(".parquet").exists()))]

    def remove(self) -> None:
        """All of it, each shard's Parquet first: what is left by a kill, or being added, stays valid."""
        for path in self.shards():
            path.unlink(missing_ok=True)
            path.with_suffix(".npy").unlink(missing_ok=True)
        for path in self.leftovers():
            path.unlink(missing_ok=True)
        if not self.shards():
            (self.folder / "prefix.json").unlink(missing_ok=True)
            with suppress(OSError):  # somebody is writing
                self.folder.rmdir()
