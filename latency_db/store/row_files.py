"""Rows of named columns as Parquet, CSV and JSON files, written and read in bounded memory."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

from devices.installing import how_to_install
from devices.untrusted import json_from, regular_size
from devices.words import cause_of, listed
from latency_db.errors import StoreError

Kind = Literal["text", "number", "count", "truth"]
Columns = Mapping[str, Kind]
"""What a file has in each column, in their order; any but a truth may have no value."""

_READ_AT_ONCE = 500
_MOST_BYTES_AT_ONCE = 256 << 20


def write_rows(path: Path, columns: Columns, batches: Iterable[list[dict[str, Any]]]) -> int:
    """Write rows to a file whose suffix says the format, ``.parquet``, ``.csv`` or ``.json``.

    The file appears when it is complete. Returns the number of its rows.

    Raises:
        StoreError: the file cannot be written, or the format is unknown.
    """
    write = _format(path, _WRITERS)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        count: int = write(unfinished, columns, batches)
        unfinished.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written",
            why=cause_of(error),
            fix="free some disk space, or choose another folder",
        ) from error
    finally:
        # On a file system that is read-only there is nothing to remove, and that is an error too.
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return count


def read_rows(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of such a file with their numbers, from 1.

    Raises:
        StoreError: it has other columns, or the format is unknown.
        OSError, ValueError, csv.Error: it cannot be read, now or further on.
    """
    read = _format(path, _READERS)
    regular_size(path)
    rows: Iterator[tuple[int, dict[str, Any]]] = read(path, columns)
    return rows


def _check_columns(path: Path, names: Iterable[str], columns: Columns) -> None:
    given = set(names)
    missing, unknown = [n for n in columns if n not in given], sorted(given - set(columns))
    if missing or unknown:
        said = [f"missing: {', '.join(missing)}"] if missing else []
        said += [f"unknown: {', '.join(unknown)}"] if unknown else []
        raise StoreError(
            f"{path} is not an export of measurements",
            why="its columns are others; " + "; ".join(said),
            fix="give a file of `lathe db export`; tables of other origin are imported with --published",
        )


def _format(path: Path, ways: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    way = ways.get(path.suffix.lower())
    if way is None:
        raise StoreError(
            f"the format of {path.name} is unknown",
            why=f"its suffix is {path.suffix or 'missing'}",
            fix=f"name it {listed(ways, 'or')}",
        )
    return way


def _write_csv(path: Path, columns: Columns, batches: Iterable[list[dict[str, Any]]]) -> int:
    count = 0
    truths = [name for name, kind in columns.items() if kind == "truth"]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(columns), lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        for batch in batches:
            writer.writerows({**row, **{name: str(row[name]).lower() for name in truths}} for row in batch)
            count += len(batch)
    return count


def _read_csv(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    numbers = [name for name, kind in columns.items() if kind == "number"]
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, strict=True)
            _check_columns(path, reader.fieldnames or (), columns)
            for number, row in enumerate(reader, 1):
                for name in numbers:
                    row[name] = float(row[name]) if row[name] else None
                yield number, {**row, "launches_json": row["launches_json"] or None}
    finally:
        csv.field_size_limit(limit)


def _write_json(path: Path, columns: Columns, batches: Iterable[list[dict[str, Any]]]) -> int:
    """A JSON array with one object in each line, which a reader can take line by line."""
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for batch in batches:
            for row in batch:
                stream.write("\n" if count == 0 else ",\n")
                stream.write(json.dumps({name: row[name] for name in columns}, allow_nan=False))
                count += 1
        stream.write("\n]\n")
    return count


def _read_json(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as stream:
        if stream.readline().strip() != "[":
            raise ValueError("it is not an array with one object in each line")
        for number, line in enumerate(_objects(stream), 1):
            row = json_from(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number + 1} is not an object")
            _check_columns(path, row, columns)
            yield number, row


def _objects(stream: TextIO) -> Iterator[str]:
    for line in stream:
        if line.strip() == "]":
            return
        yield line.rstrip().removesuffix(",")
    raise ValueError("its end is missing")


def _write_parquet(path: Path, columns: Columns, batches: Iterable[list[dict[str, Any]]]) -> int:
    pyarrow, parquet = _pyarrow()
    types = {
        "text": pyarrow.string(),
        "number": pyarrow.float64(),
        "count": pyarrow.int64(),
        "truth": pyarrow.bool_(),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _read_parquet(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    _, parquet = _pyarrow()
    number = 0
    with path.open("rb") as stream:
        table = parquet.ParquetFile(stream)
        _check_columns(path, table.schema_arrow.names, columns)
        for batch in table.iter_batches(_rows_at_once(table.metadata)):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _rows_at_once(metadata: Any) -> int:
    """So many that even rows as large as all of a column's values fit into memory."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max(
        (group.column(each).total_uncompressed_size for group in groups for each in range(group.num_columns)),
        default=0,
    )
    return max(1, min(_READ_AT_ONCE, _MOST_BYTES_AT_ONCE // max(1, largest)))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise StoreError(
            "Parquet files cannot be read or written",
            why=cause_of(error),
            fix=f"{how_to_install('exchange')}; or use .csv or .json",
        ) from error
    return pyarrow, pyarrow.parquet


_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".json": _write_json}
_READERS = {".parquet": _read_parquet, ".csv": _read_csv, ".json": _read_json}
