"""Published tables as arrays, read block by block: an array is never in memory as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from devices.untrusted import Header, arrays_from, npy_header, open_zip
from latency_db.published.readers import UNITS, Batch, Published, latency_column
from latency_db.published.screening import Cells
from latency_db.store.published import BATCH

_MOST_COLUMNS = 1_000
"""A row is in memory as a whole, and each column of an array in Fortran order takes a stream of its own."""
_MOST_BYTES_BY_COLUMNS = 4 << 30
"""All of such an array is unpacked once for each column."""


def read_arrays(path: Path, device: str | None, unit: str | None) -> Published:
    """Open a ``.npz`` file; a ``Reader``."""
    with open_zip(path) as archive:
        names = {Path(name).stem for name in archive.namelist()}
    column, unit = latency_column(names, unit)
    devices = _devices(path, names, device)
    scale = UNITS[unit]
    count = max(1, BATCH // len(devices))

    def batches() -> Iterator[Batch]:
        with _Rows(path, column) as latencies, ExitStack() as stack:
            if latencies.width != len(devices):
                raise ValueError(f"{column} has {latencies.width} columns for {len(devices)} devices")
            choices: Iterator[NDArray[Any]] = repeat(np.zeros((count, 1), np.int64))
            if "arch_ops" in names:
                ops = stack.enter_context(_Rows(path, "arch_ops"))
                if ops.rows != latencies.rows or ops.dtype.kind not in "iu":
                    raise ValueError(f"arch_ops must have a row of whole numbers for each row of {column}")
                choices = ops.blocks(count)
            start = 0
            for block, chosen in zip(latencies.blocks(count), choices, strict=False):
                rows = range(start, start + len(block))
                start = rows.stop
                names_of_rows = _workloads(rows, chosen if "arch_ops" in names else None)
                latency_ns = block.astype(np.float64) * scale
                cells = [
                    Cells(name, rows, names_of_rows, latency_ns[:, which], choices=chosen[: len(rows)])
                    for which, name in enumerate(devices)
                ]
                yield Batch(cells, size_bytes * start // latencies.rows)

    size_bytes = path.stat().st_size
    return Published("arrays", unit, batches)


def _devices(path: Path, names: set[str], device: str | None) -> list[str]:
    if "device" not in names:
        if device is None:
            raise ValueError("it has no array device, and no device was given")
        return [device]
    found = np.atleast_1d(arrays_from(path, only=("device",))["device"])
    if found.ndim != 1 or not 1 <= len(found) <= _MOST_COLUMNS:
        raise ValueError(f"the array device is not a list of at most {_MOST_COLUMNS} names")
    devices = [str(name) for name in found]
    if len(set(devices)) < len(devices) or not all(devices):
        raise ValueError(f"the names in the array device are not distinct: {', '.join(devices)[:200]}")
    return devices


def _workloads(rows: range, choices: NDArray[Any] | None) -> list[str]:
    if choices is None:
        return [f"architecture {row}" for row in rows]
    return [
        f"architecture {row} {'-'.join(map(str, chosen))}"
        for row, chosen in zip(rows, choices.tolist(), strict=True)
    ]


class _Rows:
    """An array of one or two dimensions inside a ``.npz`` file, of which some rows are read at a time.

    Raises:
        ValueError: it is another kind of array, or ends too early.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        with ExitStack() as opened:
            self._archive = opened.enter_context(open_zip(path))
            stream, header = self._open(opened)
            shape, by_columns, self.dtype = header.shape, header.by_columns, header.dtype
            if self.dtype.kind not in "iuf" or not 1 <= len(shape) <= 2 or 0 in shape:
                raise ValueError(f"{name} is not an array of numbers of one or two dimensions")
            self.rows, self.width = shape[0], math.prod(shape[1:])
            if self.width > _MOST_COLUMNS:
                raise ValueError(f"{name} has {self.width} columns, more than {_MOST_COLUMNS}")
            if by_columns and header.size_bytes * self.width > _MOST_BYTES_BY_COLUMNS:
                raise ValueError(f"{name} is large and stored by columns; save numpy.ascontiguousarray of it")
            self._streams = [stream]
            for column in range(1, self.width if by_columns else 1):
                stream, _ = self._open(opened)
                stream.seek(column * self.rows * self.dtype.itemsize, 1)
                self._streams.append(stream)
            self._opened = opened.pop_all()

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _open(self, opened: ExitStack) -> tuple[IO[bytes], Header]:
        member = self._archive.getinfo(f"{self._name}.npy")
        stream = opened.enter_context(self._archive.open(member))
        return stream, npy_header(stream, member.file_size)

    def blocks(self, count: int) -> Iterator[NDArray[Any]]:
        """All rows in their order, ``count`` of them at a time and fewer at the end."""
        for start in range(0, self.rows, count):
            rows = min(count, self.rows - start)
            parts = [self._read(stream, rows * self.width // len(self._streams)) for stream in self._streams]
            yield parts[0].reshape(rows, -1) if len(parts) == 1 else np.stack(parts, axis=1)

    def _read(self, stream: IO[bytes], numbers: int) -> NDArray[Any]:
        content = stream.read(numbers * self.dtype.itemsize)
        if len(content) != numbers * self.dtype.itemsize:
            raise ValueError(f"{self._name} ends too early")
        return np.frombuffer(content, self.dtype)
