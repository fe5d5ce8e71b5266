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
from contextlib import suppress
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

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
STEP = np.float32(2.0**-15)
"""What one step of an int16 is worth: the samples of 16-bit recordings lie in [-1, 1)."""
PLACE = ("key", "offset", "shape", "rate", "hop", "first", "by", "speed")
SUMS = ("sum", "squares", "minimum", "maximum")


def row_key(digest: str, start: float = 0.0, stop: float | None = None) -> str:
    """Key of a row: digest of the audio's bytes with start and stop in seconds."""
    return f"{digest}:{start:.9g}:{'' if stop is None else format(stop, '.9g')}"


class Store:
    """Rows of one prefix. `rows` maps row keys to row numbers; `read` gives arrays by row key. Pickled without its rows' places, which
    are looked up anew."""

    def __init__(self, folder: Path, prefix: Mapping[str, Any]):
        self.folder = Path(folder)
        self.prefix = prefix
        self.rows: dict[str, int] = {}
        self._tables: dict[str, Any] = {}
        self._order: list[str] = []
        self._maps: dict[int, tuple[mmap.mmap, np.ndarray]] = {}
        self._bytes = 0
        self.refresh()
        with suppress(OSError):
            os.utime(self.folder / "prefix.json")  # its time is that of the last use

    def __reduce__(self):
        return Store, (self.folder, self.prefix)

    def refresh(self) -> None:
        """Find shards that have been added since."""
        for path in sorted(self.folder.glob("shard-*.parquet")):
            if path.stem in self._tables:
                continue
            try:
                table, dtype = open_shard(path)
            except DataError:
                if path.exists():
                    raise
                continue  # pruned just now
            columns = {name: table[name].to_numpy() for name in PLACE if name not in ("key", "shape")}
            shapes = table["shape"].combine_chunks()
            columns |= {"ends": shapes.offsets.to_numpy(), "sizes": shapes.values.to_numpy(), "dtype": dtype,
                        "bytes": HEADER + int(table.schema.metadata[b"elements"]) * dtype.itemsize, "seen": np.zeros(len(table), bool)}
            self._bytes += columns["bytes"]
            number = len(self._order)
            self._tables[path.stem] = columns
            self._order.append(path.stem)
            for row, key in enumerate(table["key"].to_pylist()):
                self.rows.setdefault(key, number << 32 | row)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def _columns(self, key: str) -> tuple[int, int, dict]:
        number = self.rows[key]
        shard, row = number >> 32, number & 0xFFFFFFFF
        return shard, row, self._tables[self._order[shard]]

    def shape(self, key: str) -> tuple[int, ...]:
        _, row, columns = self._columns(key)
        return tuple(columns["sizes"][columns["ends"][row]:columns["ends"][row + 1]].tolist())

    def read(self, key: str, frames: tuple[int, int] | None = None) -> Array:
        """The array of a row as float32, or those of its frames (first, number) of the last dimension that there are."""
        shape = self.shape(key)
        if frames is not None:
            shape = (*shape[:-1], max(min(frames[1], shape[-1] - frames[0]), 0))
        data = np.empty(shape, np.float32)
        self.read_into(data, key, frames[0] if frames else 0)
        _, row, columns = self._columns(key)
        rate, hop, first, by, speed = (float(columns[name][row]) for name in ("rate", "hop", "first", "by", "speed"))
        return Array(data, None if math.isnan(rate) else rate, None if math.isnan(hop) else Axis(hop, first), by, speed, frames)

    def read_into(self, out: np.ndarray, key: str, first: int = 0) -> int:
        """Fill `out`, float32 [..., n], with the n frames of a row from `first` on, zeros behind its end. Gives the number of frames.
        `out` has the row's shape but for the last dimension, and may be a part of a batch: numbers are copied once, from the file's pages."""
        shard, row, columns = self._columns(key)
        shape, offset = self.shape(key), int(columns["offset"][row])
        if not shape:
            shape, out = (1,), out.reshape(1)
        if out.shape[:-1] != shape[:-1]:
            raise ValueError(f"{key}: expected memory of the shape {[*shape[:-1], 'n']}, found {list(out.shape)}")
        mapped, flat = self._mapped(shard, columns)
        found = flat[offset:offset + math.prod(shape)].reshape(shape)[..., first:first + out.shape[-1]]
        if frames := found.shape[-1]:
            if not columns["seen"][row] or self._bytes > MEMORY // 2:  # from disk in one go: ten times as fast as page by page
                begin, end = (HEADER + at * flat.itemsize for at in (offset + first, offset + math.prod(shape) - shape[-1] + first + frames))
                page = begin % mmap.PAGESIZE
                mapped.madvise(mmap.MADV_WILLNEED, begin - page, end - begin + page)
                columns["seen"][row] = True
            _convert(found, out[..., :frames])
        if frames < out.shape[-1]:
            out[..., frames:] = 0
        return frames

    def _mapped(self, shard: int, columns: Mapping[str, Any]) -> tuple[mmap.mmap, np.ndarray]:
        """A shard's file and its numbers, mapped: the system's memory, not ours. A map that is dropped goes with its last reader."""
        known = self._maps.get(shard)
        if known is None:
            while len(self._maps) >= MAPS:
                self._maps.pop(next(iter(self._maps)), None)
            path = self.folder / f"{self._order[shard]}.npy"
            try:
                with open(path, "rb") as file:
                    mapped = mmap.mmap(file.fileno(), columns["bytes"], access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: expected a shard of a feature store: {error}; run again to have what is missing made") from error
            known = self._maps[shard] = mapped, np.frombuffer(mapped, columns["dtype"], offset=HEADER)
        return known

    def sums(self, keys: Sequence[str]) -> Sums | None:
        """Sums of these rows as stored, in this order; None where some have none (arrays without a time axis)."""
        import pyarrow.parquet as pq

        shapes = [self.shape(key) for key in keys]
        if len({shape[:-1] for shape in shapes}) != 1:
            return None
        places, width = np.array([self.rows[key] for key in keys]), math.prod(shapes[0][:-1])
        out = np.empty((len(SUMS), len(keys), width))
        for shard in np.unique(places >> 32).tolist():
            with pq.ParquetFile(self.folder / f"{self._order[shard]}.parquet", memory_map=False) as file:
                table = file.read(columns=list(SUMS), use_threads=False)
            at = np.flatnonzero(places >> 32 == shard)
            rows = places[at] & 0xFFFFFFFF
            for values, name in zip(out, SUMS):
                column = table[name].combine_chunks()
                ends = column.offsets.to_numpy()
                if (ends[rows + 1] - ends[rows] != width).any():
                    return None
                values[at] = column.values.to_numpy()[ends[rows][:, None] + np.arange(width)]
        return Sums(np.array([shape[-1] for shape in shapes]), *out.reshape(len(SUMS), len(keys), *shapes[0][:-1]))


def _convert(found: np.ndarray, into: np.ndarray) -> None:
    if found.dtype == np.int16:
        np.multiply(found, STEP, out=into)
    elif found.dtype == np.float16:
        import torch  # four times as fast as numpy here

        torch.from_numpy(into).copy_(torch.from_numpy(found.copy()))  # torch takes no memory that cannot be written
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
        pq.write_table(pa.Table.from_pylist(described, schema=schema), path, write_page_checksum=True)


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
        row |= {"sum": exact.sum(-1).ravel(), "squares": np.square(exact).sum(-1).ravel(),
                "minimum": exact.min(-1).ravel(), "maximum": exact.max(-1).ravel()}
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
