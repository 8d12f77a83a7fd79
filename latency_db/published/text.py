"""Published tables as text: CSV with a heading, and the subset of YAML of OFA's and ProxylessNAS' tables."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from numpy.typing import NDArray

from devices.untrusted import Bounded
from latency_db.published.readers import UNITS, Batch, Published, latency_column
from latency_db.published.screening import Cells
from latency_db.store.published import BATCH

_MOST_COLUMNS = 1_000
_NO_VALUE = ("", "none", "null", "na", "n/a")


def read_csv(path: Path, device: str | None, unit: str | None) -> Published:
    """Open a ``.csv`` or ``.csv.gz`` file; a ``Reader``."""
    if path.name.lower().endswith(".gz"):
        _check_length(path)
    with _text(path) as (stream, _):
        heading = next(csv.reader(stream), [])
    if "source_digest" in heading:
        raise ValueError("it was exported from a latency database: join the two with `lathe db merge`")
    if len(heading) > _MOST_COLUMNS:
        raise ValueError(f"it has {len(heading)} columns, more than {_MOST_COLUMNS}")
    column, unit = latency_column(heading, unit)
    if device is None and "device" not in heading:
        raise ValueError("it has no column device, and no device was given")

    def batches() -> Iterator[Batch]:
        with _text(path) as (stream, raw):
            reader = csv.reader(stream, strict=True)
            next(reader)
            start = 0
            while lines := list(islice(reader, BATCH)):
                table = _Table(heading, lines, start)
                start += len(lines) - lines.count([])
                yield Batch(table.cells(column, UNITS[unit], device), raw.tell())

    return Published("csv", unit, batches)


class _Table:
    """Some lines of a CSV file, by columns; empty lines are passed over."""

    def __init__(self, heading: Sequence[str], lines: Sequence[list[str]], start: int) -> None:
        if [] in lines:
            lines = [line for line in lines if line]
        widths = list(map(len, lines))
        if set(widths) - {len(heading)}:
            bad = next(row for row, width in enumerate(widths, start + 1) if width != len(heading))
            raise ValueError(f"row {bad} has another number of columns than the heading")
        self._columns = {name: [line[index] for line in lines] for index, name in enumerate(heading)}
        self._rows = range(start, start + len(lines))

    def cells(self, column: str, scale: float, device: str | None) -> list[Cells]:
        """Device by device, in the order in which the devices come."""
        workloads = self._workloads({column, "count", "var", "device"})
        which: dict[str, list[int]] = {}
        for index, name in enumerate(self._columns.get("device", ("",) * len(self._rows))):
            which.setdefault(name or device or "", []).append(index)
        if "" in which:
            raise ValueError(f"row {self._rows[which[''][0]] + 1} names no device, and none was given")
        columns = {name: self._columns[name] for name in (column, "count", "var") if name in self._columns}
        return [
            _cells(
                name,
                [self._rows[index] for index in indices],
                [workloads[index] for index in indices],
                {key: [texts[index] for index in indices] for key, texts in columns.items()},
                column=column,
                scale=scale,
            )
            for name, indices in which.items()
        ]

    def _workloads(self, others: set[str]) -> list[str]:
        names = [name for name in self._columns if name not in others]
        if not names:
            return [""] * len(self._rows)
        described = [[f"{name}={value}" if value else "" for value in self._columns[name]] for name in names]
        return [" ".join(filter(None, values)) for values in zip(*described, strict=True)]


def read_yaml(path: Path, device: str | None, unit: str | None) -> Published:
    """Open a ``.yaml`` file of mappings of two levels, also ``{...}`` in one line; a ``Reader``."""
    if device is None:
        raise ValueError("the file does not say what it was measured on, and no device was given")
    unit = unit or "ms"

    def batches() -> Iterator[Batch]:
        with _text(path) as (stream, raw):
            entries = _entries(stream)
            start = 0
            while batch := list(islice(entries, BATCH)):
                rows = range(start, start + len(batch))
                start = rows.stop
                names = [name for name, _ in batch]
                texts = {key: [each.get(key, "") for _, each in batch] for key in ("mean", "count", "var")}
                cells = _cells(device, rows, names, texts, column="mean", scale=UNITS[unit])
                yield Batch([cells], raw.tell())

    return Published("ofa-yaml", unit, batches)


def _entries(stream: TextIO) -> Iterator[tuple[str, dict[str, str]]]:
    name, values = "", dict[str, str]()
    for number, line in enumerate(stream, 1):
        text = line.split(" #")[0].rstrip()
        if not text or text.startswith(("#", "---")):
            continue
        key, separator, rest = (
            text.strip().rpartition(": ") if not text.endswith(":") else (text[:-1], ":", "")
        )
        flow = _flow(text)
        if flow is None and not separator:
            raise ValueError(f"line {number} is neither a key nor a value: {text[:80]}")
        if flow is not None or not text[0].isspace():
            if name:
                yield _complete(name, values)
            name, values = (flow[0] if flow else key).strip("'\" "), {}
            for item in flow[1].split(",") if flow else ():
                field, _, value = item.partition(":")
                values[field.strip()] = value.strip()
            if flow is None and rest:
                raise ValueError(f"line {number}: {name} has a value where count, mean and var must be")
        elif name:
            values[key.strip()] = rest.strip()
        else:
            raise ValueError(f"line {number} belongs to no key")
    if name:
        yield _complete(name, values)


def _flow(text: str) -> tuple[str, str] | None:
    """Key and content of a line ``key: {content}``."""
    key, brace, content = text.partition("{")
    key = key.rstrip()
    if not brace or key[:1].isspace() or len(key) < 2 or not key.endswith(":") or not content.endswith("}"):
        return None
    return key[:-1], content[:-1]


def _complete(name: str, values: dict[str, str]) -> tuple[str, dict[str, str]]:
    if "mean" not in values:
        raise ValueError(f"{name} has no mean")
    return name, values


def _cells(
    device: str,
    rows: Sequence[int],
    workloads: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    *,
    column: str,
    scale: float,
) -> Cells:
    """Cells of texts by column; counts and variances that cannot be are left out."""
    numbers = {name: _numbers(each, rows, name) for name, each in texts.items()}
    counts = variances_ns2 = None
    if "count" in numbers:
        counts = [int(count) if 0 < count < 1 << 31 else None for count in numbers["count"].tolist()]
    if "var" in numbers:
        found = (numbers["var"] * scale**2).tolist()
        variances_ns2 = [value if 0 <= value < math.inf else None for value in found]
    return Cells(device, rows, workloads, numbers[column] * scale, counts, variances_ns2)


def _numbers(texts: Sequence[str], rows: Sequence[int], column: str) -> NDArray[np.float64]:
    """Numbers; ``nan`` where there is none."""
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return np.array([_number(text, row, column) for text, row in zip(texts, rows, strict=True)])


def _number(text: str, row: int, column: str) -> float:
    if text.strip().lower() in _NO_VALUE:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"row {row + 1}: {column} is {text!r}, which is no number") from None


def _check_length(path: Path) -> None:
    """Unpack a file once before any row of it is taken.

    Raises:
        ValueError: it is suspiciously small for what it unpacks to.
    """
    with path.open("rb") as packed:
        unpacked = Bounded(gzip.GzipFile(fileobj=packed), path.stat().st_size)
        while unpacked.read(1 << 16):
            pass


@contextmanager
def _text(path: Path) -> Iterator[tuple[TextIO, BinaryIO]]:
    """A file's text, and the file itself, which knows how far it was read."""
    with path.open("rb") as raw:
        content: Any = raw
        if path.name.lower().endswith(".gz"):
            content = gzip.GzipFile(fileobj=raw)
        with io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as text:
            yield text, raw
