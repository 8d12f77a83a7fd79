"""Measurements as Parquet, CSV and JSON files, and back, in bounded memory.

A file has one row for each stored outcome. Units are in the names of its columns. The columns of ``SUMMARY``
are there to be read by people and tools; all others together are the row as it is stored, so that an imported
row is the exported one, and is known again by its digest. A row that was changed on its way is refused.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from devices.digests import canonical_json, value_digest
from latency_db.errors import StoreError
from latency_db.records import BATCH, Filter, Record, records
from latency_db.rows import FAILED, packed, unpacked
from latency_db.schema import PARTS
from latency_db.store import Store

SUMMARY = ("latency_ns", "latency_low_ns", "latency_high_ns", "workload_description", "emulated")
"""Columns that repeat what the others hold; no value where nothing was timed."""

_NUMBERS = ("latency_ns", "latency_low_ns", "latency_high_ns")
_TEXTS = ("digest", *PARTS, "instance", "target", "artifact_digest", "verdict", "started_at")
_JSON = ("reasons", "provenance")

COLUMNS = (
    "target",
    "workload_description",
    "verdict",
    *_NUMBERS,
    "emulated",
    "started_at",
    "instance",
    "artifact_digest",
    "digest",
    *PARTS,
    *(f"{part}_json" for part in PARTS),
    *(f"{name}_json" for name in _JSON),
    "launches_json",
)
"""All columns of a file, in their order. Times inside ``launches_json`` are named and in nanoseconds, too."""

_SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Imported:
    """What an import did: rows in the file, and how many of them the database did not have."""

    rows: int
    added: int


def export_file(store: Store, path: Path, wanted: Filter | None = None) -> int:
    """Write outcomes to a file whose suffix says the format, ``.parquet``, ``.csv`` or ``.json``.

    The file appears when it is complete. Returns the number of its rows.

    Raises:
        StoreError: the database cannot be read, the file cannot be written, or the format is unknown.
    """
    write = _format(path, _WRITERS)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        count: int = write(
            unfinished, ([_flat(each) for each in batch] for batch in records(store, wanted or Filter()))
        )
        unfinished.replace(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written", why=str(error), fix="free some disk space, or choose another folder"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def import_file(store: Store, path: Path) -> Imported:
    """Add the outcomes of an exported file; those that the database has already are left out.

    The whole file is checked first, so that a file with anything wrong in it adds nothing.

    Raises:
        StoreError: the file cannot be read, is no such file, or holds rows that are damaged or changed.
    """
    read = _format(path, _READERS)
    with _explained(path):
        problems, bad, rows = _problems(read(path))
        if bad:
            raise StoreError(
                f"{path} was not imported: {bad} of its {rows} rows are not as they were exported",
                why="; ".join(problems),
                fix="export it again; tables of other origin are imported with --evidence",
            )
        added = sum(
            store.put(
                {key: content for record in batch for key, content in record.keyed_parts().items()},
                [record.columns for record in batch],
            )
            for batch in _batches(_record(row) for _, row in read(path))
        )
    return Imported(rows, added)


def _problems(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[list[str], int, int]:
    """What is wrong with the first bad rows, the number of bad rows, and of all."""
    problems: list[str] = []
    bad = count = 0
    seen = set()
    for number, row in rows:
        count += 1
        problem = "it is there twice" if row["digest"] in seen else _problem(row)
        seen.add(row["digest"])
        if problem is not None:
            bad += 1
            if len(problems) < _SHOWN_PROBLEMS:
                problems.append(f"row {number}: {problem}")
    return problems, bad, count


def _problem(row: Mapping[str, Any]) -> str | None:
    try:
        record = _record(row)
        for part in PARTS:
            # A workload's identity is a digest of its content, of which only the description is kept.
            if part != "workload" and value_digest(record.parts[part]) != record.columns[part]:
                return f"its {part} does not fit its digest"
        if not record.digest_fits():
            return "it was changed: its digest does not fit"
        found = record.latency_ns
    except (StoreError, ValueError, TypeError, KeyError) as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    for name, value in zip(
        ("latency_low_ns", "latency_ns", "latency_high_ns"), found or (None,) * 3, strict=True
    ):
        told = row[name]
        if (told is None) != (value is None) or (
            value is not None and not math.isclose(told, value, rel_tol=1e-6, abs_tol=0.5)
        ):
            return f"{name} says {told}, its launches say {value}"
    return None


def _flat(record: Record) -> dict[str, Any]:
    """A record as columns of a file.

    Raises:
        StoreError: it is damaged.
    """
    low, value, high = record.latency_ns or (None, None, None)
    columns, launches = record.columns, record.columns["launches"]
    return {
        **{name: columns[name] for name in _TEXTS},
        "workload_description": record.parts["workload"].get("description", ""),
        "latency_low_ns": low,
        "latency_ns": value,
        "latency_high_ns": high,
        "emulated": record.emulated,
        **{f"{part}_json": canonical_json(content) for part, content in record.parts.items()},
        **{f"{name}_json": canonical_json(columns[name]) for name in _JSON},
        "launches_json": None if launches is None else unpacked(launches).decode(),
    }


def _record(row: Mapping[str, Any]) -> Record:
    """A row of a file as it is stored.

    Raises:
        ValueError: a value is missing, or JSON is damaged.
    """
    for name in (*_TEXTS, *(f"{name}_json" for name in (*PARTS, *_JSON))):
        if not isinstance(row[name], str):
            raise ValueError(f"{name} has no value")
    launches = row["launches_json"]
    if (launches is None) != (row["verdict"] == FAILED):
        raise ValueError("launches_json has no value" if launches is None else "a failure has no launches")
    return Record(
        0,
        {
            **{name: row[name] for name in _TEXTS},
            **{name: json.loads(row[f"{name}_json"]) for name in _JSON},
            "launches": None if launches is None else packed(launches.encode()),
        },
        {part: json.loads(row[f"{part}_json"]) for part in PARTS},
    )


def _batches(items: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _check_columns(path: Path, names: Iterable[str]) -> None:
    given = set(names)
    missing, unknown = [n for n in COLUMNS if n not in given], sorted(given - set(COLUMNS))
    if missing or unknown:
        said = [f"missing: {', '.join(missing)}"] if missing else []
        said += [f"unknown: {', '.join(unknown)}"] if unknown else []
        raise StoreError(
            f"{path} is not an export of measurements",
            why="its columns are others; " + "; ".join(said),
            fix="give a file of `lathe db export`; tables of other origin are imported with --evidence",
        )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist", why=str(error), fix="check the path") from error
    except (OSError, ValueError, csv.Error) as error:
        raise StoreError(
            f"{path} cannot be read", why=str(error), fix="export it again, or copy it once more"
        ) from error


def _format(path: Path, ways: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    way = ways.get(path.suffix.lower())
    if way is None:
        raise StoreError(
            f"the format of {path.name} is unknown",
            why=f"its suffix is {path.suffix or 'missing'}",
            fix=f"name it {' or '.join(ways)}",
        )
    return way


def _write_csv(path: Path, batches: Iterable[list[dict[str, Any]]]) -> int:
    count = 0
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writeheader()
        for batch in batches:
            writer.writerows({**row, "emulated": str(row["emulated"]).lower()} for row in batch)
            count += len(batch)
    return count


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for number, row in enumerate(reader, 1):
                for name in _NUMBERS:
                    row[name] = float(row[name]) if row[name] else None
                yield number, {**row, "launches_json": row["launches_json"] or None}
    finally:
        csv.field_size_limit(limit)


def _write_json(path: Path, batches: Iterable[list[dict[str, Any]]]) -> int:
    """A JSON array with one object in each line, which a reader can take line by line."""
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for batch in batches:
            for row in batch:
                stream.write("\n" if count == 0 else ",\n")
                stream.write(json.dumps({name: row[name] for name in COLUMNS}, allow_nan=False))
                count += 1
        stream.write("\n]\n")
    return count


def _read_json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as stream:
        if stream.readline().strip() != "[":
            raise ValueError("it is not an array with one object in each line")
        for number, line in enumerate(_objects(stream), 1):
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number + 1} is not an object")
            _check_columns(path, row)
            yield number, row


def _objects(stream: TextIO) -> Iterator[str]:
    for line in stream:
        if line.strip() == "]":
            return
        yield line.rstrip().removesuffix(",")
    raise ValueError("its end is missing")


def _write_parquet(path: Path, batches: Iterable[list[dict[str, Any]]]) -> int:
    pyarrow, parquet = _pyarrow()
    schema = pyarrow.schema(
        [
            (
                name,
                pyarrow.float64()
                if name in _NUMBERS
                else pyarrow.bool_()
                if name == "emulated"
                else pyarrow.string(),
            )
            for name in COLUMNS
        ]
    )
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    _, parquet = _pyarrow()
    number = 0
    with path.open("rb") as stream:
        table = parquet.ParquetFile(stream)
        _check_columns(path, table.schema_arrow.names)
        for batch in table.iter_batches(BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise StoreError(
            "Parquet files cannot be read or written",
            why=str(error),
            fix="pip install 'lathe-deploy[exchange]', or use .csv or .json",
        ) from error
    return pyarrow, pyarrow.parquet


_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".json": _write_json}
_READERS = {".parquet": _read_parquet, ".csv": _read_csv, ".json": _read_json}
