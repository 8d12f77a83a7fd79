"""Measurements as Parquet, CSV and JSON files, and back, in bounded memory.

A file has one row for each stored outcome. Units are in the names of its columns. The columns of ``SUMMARY``
are there to be read by people and tools; all others together are the row as it is stored, so that an imported
row is the exported one, and is known again by its digest. A row that was changed on its way is refused.
Published latencies are written to files of their own, for other tools; ``merge`` takes them elsewhere.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devices.digests import canonical_json
from devices.measurement import Verdict
from devices.untrusted import json_from
from devices.words import cause_of
from latency_db.errors import StoreError
from latency_db.store.published import published_rows
from latency_db.store.reading import BATCH, Filter, Record, records
from latency_db.store.row_files import Columns, read_rows, write_rows
from latency_db.store.rows import FAILED, damage_of_part, packed, unpacked
from latency_db.store.schema import PARTS
from latency_db.store.store import Store

SUMMARY = ("latency_ns", "latency_low_ns", "latency_high_ns", "workload_description", "emulated")
"""Columns that repeat what the others hold; no value where nothing was timed."""

_NUMBERS = ("latency_ns", "latency_low_ns", "latency_high_ns")
_TEXTS = ("digest", *PARTS, "instance", "target", "artifact_digest", "verdict", "started_at")
_JSON = ("reasons", "provenance")

COLUMNS: Columns = {
    "target": "text",
    "workload_description": "text",
    "verdict": "text",
    **dict.fromkeys(_NUMBERS, "number"),
    "emulated": "truth",
    "started_at": "text",
    "instance": "text",
    "artifact_digest": "text",
    "digest": "text",
    **dict.fromkeys(PARTS, "text"),
    "workload_digest": "text",
    **{f"{name}_json": "text" for name in (*PARTS, *_JSON)},
    "launches_json": "text",
}
"""All columns of a file, in their order. Times inside ``launches_json`` are named and in nanoseconds, too."""

PUBLISHED_COLUMNS: Columns = {
    "source": "text",
    "source_digest": "text",
    "device": "text",
    "row": "count",
    "workload": "text",
    "latency_ns": "number",
    "count": "count",
    "variance_ns2": "number",
    "flag": "text",
}
"""Columns of a file of published latencies; ``row`` is that of the file that was published, from 0."""

_SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Imported:
    """What an import did: rows in the file, and how many of them the database did not have."""

    rows: int
    added: int


@dataclass(frozen=True)
class Exported:
    """What an export did: rows in the file, and how many were left out because they are damaged."""

    rows: int
    damaged: int


def export_file(store: Store, path: Path, wanted: Filter | None = None) -> Exported:
    """Write outcomes to a file whose suffix says the format, ``.parquet``, ``.csv`` or ``.json``.

    The file appears when it is complete. Damaged rows are left out and counted.

    Raises:
        StoreError: the database cannot be read, the file cannot be written, or the format is unknown.
    """
    damaged = 0

    def batches() -> Iterator[list[dict[str, Any]]]:
        nonlocal damaged
        for batch in records(store, wanted or Filter()):
            sound = [_flat(record) for record in batch if record.damage is None]
            damaged += len(batch) - len(sound)
            yield sound

    return Exported(write_rows(path, COLUMNS, batches()), damaged)


def export_published(
    store: Store, path: Path, *, device: str | None = None, workload: str | None = None
) -> int:
    """Write published latencies to a file, which other tools may read; see ``export_file``.

    Args:
        store: where to read.
        path: the file.
        device: only this one.
        workload: only workloads whose description has this text.
    """
    return write_rows(path, PUBLISHED_COLUMNS, published_rows(store, device=device, workload=workload))


def import_file(store: Store, path: Path) -> Imported:
    """Add the outcomes of an exported file; those that the database has already are left out.

    The whole file is checked first, so that a file with anything wrong in it adds nothing.

    Raises:
        StoreError: the file cannot be read, is no such file, or holds rows that are damaged or changed.
    """
    with _explained(path):
        problems, bad, rows = _problems(read_rows(path, COLUMNS))
        if bad:
            raise StoreError(
                f"{path} was not imported: {bad} of its {rows} rows are not as they were exported",
                why="; ".join(problems),
                fix="export it again; tables of other origin are imported with --published",
            )
        added = sum(
            store.put(
                {key: content for record in batch for key, content in record.keyed_parts().items()},
                [record.columns for record in batch],
            )
            for batch in _batches(_record(row) for _, row in read_rows(path, COLUMNS))
        )
    return Imported(rows, added)


def _problems(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[list[str], int, int]:
    """What is wrong with the first bad rows, the number of bad rows, and of all."""
    problems: list[str] = []
    bad = count = 0
    seen = set()
    for number, row in rows:
        count += 1
        digest = str(row["digest"])
        problem = "it is there twice" if digest in seen else _problem(row)
        seen.add(digest)
        if problem is not None:
            bad += 1
            if len(problems) < _SHOWN_PROBLEMS:
                problems.append(f"row {number}: {problem}")
    return problems, bad, count


def _problem(row: Mapping[str, Any]) -> str | None:
    try:
        record = _record(row)
        for part in PARTS:
            digest = record.columns[part]
            if damage_of_part(part, digest, record.parts[part], record.workload_digest) is not None:
                return f"its {part} does not fit its digest"
        if record.damage is not None:
            return f"it was changed: {record.damage}"
        return _misleading(row, record)
    except (StoreError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        return " ".join(str(error).split())[:200] or type(error).__name__


def _misleading(row: Mapping[str, Any], record: Record) -> str | None:
    """Which column of the summary says other than the rest."""
    if row["workload_description"] != record.parts["workload"]["description"]:
        return "workload_description says other than workload_json"
    if str(row["emulated"]).lower() != str(record.emulated).lower():
        return "emulated says other than device_json"
    found = record.latency_ns
    for name, value in zip(
        ("latency_low_ns", "latency_ns", "latency_high_ns"), found or (None,) * 3, strict=True
    ):
        told = row[name]
        if row["verdict"] != Verdict.VALID and name != "latency_ns" and told is not None:
            continue  # Intervals of what was disturbed were narrower in earlier versions.
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
        "workload_digest": record.workload_digest,
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
            **{name: json_from(row[f"{name}_json"]) for name in _JSON},
            "launches": None if launches is None else packed(launches.encode()),
        },
        {part: json_from(row[f"{part}_json"]) for part in PARTS},
        row["workload_digest"],
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


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist", why=cause_of(error), fix="check the path") from error
    except (OSError, ValueError, LookupError, NotImplementedError, MemoryError, csv.Error) as error:
        raise StoreError(
            f"{path} cannot be read", why=cause_of(error), fix="export it again, or copy it once more"
        ) from error
