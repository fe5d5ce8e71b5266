"""The feature store: arrays of many clips one after the other in flat float32 files, described by Parquet files.

A store lies in `<cache>/features/<key>/`. A shard is `shard-X.npy` plus `shard-X.parquet`, which is renamed into place last: a shard
without Parquet does not exist. Shards are only ever added.
"""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import numpy as np

from ..errors import DataError
from ..plugin import Axis, Sums
from ..runfolder import atomic, atomic_write
from .chain import Array

__all__ = ["Store", "row_key"]


def row_key(digest: str, start: float = 0.0, stop: float | None = None) -> str:
    """Key of a row: digest of the audio's bytes with start and stop in seconds."""
    return f"{digest}:{start:.9g}:{'' if stop is None else format(stop, '.9g')}"


HEADER = 128
"""Bytes before the data: what an npy header of one dimension is padded to."""


class Store:
    """Rows of one prefix. `rows` maps row keys to row numbers; `read` gives arrays by row number."""

    def __init__(self, folder: Path, prefix: Mapping[str, Any]):
        self.folder = Path(folder)
        self.prefix = prefix
        self.rows: dict[str, int] = {}
        self._tables: dict[str, Any] = {}
        self._files: dict[int, int] = {}
        self.refresh()

    def refresh(self) -> None:
        """Find shards that have been added since."""
        import pyarrow.parquet as pq  # 0.2 s, and needed only where features are

        for path in sorted(self.folder.glob("shard-*.parquet")):
            if path.stem in self._tables:
                continue
            try:
                table = pq.read_table(path, memory_map=False)
                columns = {name: table[name].to_numpy(zero_copy_only=False) for name in ("offset", "rate", "hop", "first", "by", "speed")}
                columns["shape"] = table["shape"].to_pylist()
                elements, size = int(table.schema.metadata[b"elements"]), (self.folder / f"{path.stem}.npy").stat().st_size
                if size != HEADER + elements * 4:
                    raise ValueError(f"{size} bytes in {path.stem}.npy, {HEADER + elements * 4} expected")
            except (OSError, KeyError, ValueError) as error:
                raise DataError(f"{path}: expected a shard of a feature store, found {error}; delete the file to have it made again") from error
            number = len(self._tables)
            self._tables[path.stem] = columns
            for row, key in enumerate(table["key"].to_pylist()):
                self.rows.setdefault(key, number << 32 | row)
        self._order = list(self._tables)

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def _columns(self, key: str) -> tuple[int, int, dict]:
        number = self.rows[key]
        shard, row = number >> 32, number & 0xFFFFFFFF
        return shard, row, self._tables[self._order[shard]]

    def shape(self, key: str) -> tuple[int, ...]:
        _, row, columns = self._columns(key)
        return tuple(columns["shape"][row])

    def read(self, key: str, frames: tuple[int, int] | None = None) -> Array:
        """The array of a row, or its frames (first, number) of the last dimension."""
        shard, row, columns = self._columns(key)
        shape = tuple(columns["shape"][row])
        size = int(np.prod(shape, dtype=np.int64))
        data = np.empty(shape, np.float32)
        if shard not in self._files:
            self._files[shard] = os.open(self.folder / f"{self._order[shard]}.npy", os.O_RDONLY)
        got = os.preadv(self._files[shard], [memoryview(data).cast("B")] if size else [], HEADER + int(columns["offset"][row]) * 4)
        if got != size * 4:
            raise DataError(f"{self.folder / self._order[shard]}.npy: expected {size * 4} bytes of {key}, found {got}; delete the shard "
                            "to have it made again")
        if frames is not None:
            data = data[..., frames[0]:frames[0] + frames[1]]
        rate, hop, first = columns["rate"][row], columns["hop"][row], columns["first"][row]
        return Array(data, None if np.isnan(rate) else float(rate), None if np.isnan(hop) else Axis(float(hop), float(first)),
                     float(columns["by"][row]), float(columns["speed"][row]), frames)

    def sums(self, keys: Sequence[str]) -> Sums | None:
        """Sums of these rows, in this order; None where some have none (arrays without a time axis)."""
        import pyarrow.parquet as pq

        parts: dict[int, dict] = {}
        out: list[list] = [[], [], [], [], []]
        for key in keys:
            shard, row, columns = self._columns(key)
            if shard not in parts:
                table = pq.read_table(self.folder / f"{self._order[shard]}.parquet", columns=["sum", "squares", "minimum", "maximum"])
                parts[shard] = {name: table[name] for name in table.column_names}
            found = [parts[shard][name][row].as_py() for name in ("sum", "squares", "minimum", "maximum")]
            if found[0] is None:
                return None
            shape = columns["shape"][row]
            out[0].append(shape[-1])
            for values, into in zip(found, out[1:]):
                into.append(np.asarray(values, np.float64).reshape(shape[:-1]))
        if len({value.shape for value in out[1]}) > 1:
            return None
        return Sums(np.asarray(out[0]), *(np.stack(values) for values in out[1:]))

    def write(self, rows: Iterable[tuple[str, Array]]) -> None:
        """Add one shard. Its name follows from its keys, so two processes that write the same shard do not disturb each other."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = list(rows)
        if not rows:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "prefix.json").exists():
            atomic_write(self.folder / "prefix.json", json.dumps(self.prefix, indent=1, sort_keys=True, default=list))
        name = "shard-" + blake2b("\n".join(key for key, _ in rows).encode(), digest_size=8).hexdigest()
        sizes = [array.data.size for _, array in rows]
        described = [_describe(key, array, offset) for (key, array), offset in zip(rows, np.cumsum([0, *sizes]).tolist())]
        schema = pa.schema([("key", pa.string()), ("audio", pa.string()), ("start", pa.float64()), ("stop", pa.float64()),
                            ("offset", pa.int64()), ("shape", pa.list_(pa.int64())), ("rate", pa.float64()), ("hop", pa.float64()),
                            ("first", pa.float64()), ("by", pa.float64()), ("speed", pa.float64()),
                            *((column, pa.list_(pa.float64())) for column in ("sum", "squares", "minimum", "maximum"))],
                           metadata={"elements": str(sum(sizes))})
        with atomic(self.folder / f"{name}.npy") as path, open(path, "wb") as handle:
            np.lib.format.write_array_header_1_0(handle, {"descr": "<f4", "fortran_order": False, "shape": (sum(sizes),)})
            for _, array in rows:
                handle.write(np.ascontiguousarray(array.data, np.float32).data)
        with atomic(self.folder / f"{name}.parquet") as path:
            pq.write_table(pa.Table.from_pylist(described, schema=schema), path)

    def close(self) -> None:
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()

    __del__ = close


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
