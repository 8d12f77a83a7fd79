"""Published latencies, of which only a number is known: neither how they were measured nor their samples.

They have a type and tables of their own. No lookup of a measurement and no latency table sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from devices.digests import value_digest
from latency_db.database import fetch, transact
from latency_db.schema import evidence, evidence_sources
from latency_db.store import Store

BATCH = 5_000
"""Rows that are in memory and in a transaction at once."""

Flag = Literal["", "missing", "impossible", "failed-run"]
"""What screening found: nothing, no value, one that no run can have, a failed run that was kept as data."""


@dataclass(frozen=True)
class Evidence:
    """One published latency.

    Attributes:
        row: of the file, from 0.
        device: as the file, or who imported it, calls it.
        workload: as the file describes it.
        latency_ns: mean, or whatever the publisher took; ``None`` if the value is missing or impossible.
        count: number of runs behind it, where the file says so.
        variance_ns2: their variance, where the file says so.
    """

    row: int
    device: str
    workload: str
    latency_ns: float | None
    count: int | None = None
    variance_ns2: float | None = None
    flag: Flag = ""


@dataclass(frozen=True)
class Source:
    """Where evidence comes from.

    Attributes:
        name: for people.
        file_digest: of the imported file.
        format: of the file.
        unit: that the file's latencies are in.
        cells: how many latencies it holds, missing and impossible ones included.
        findings: what screening found, as JSON values.
    """

    name: str
    file_digest: str
    format: str
    unit: str
    cells: int
    findings: tuple[dict[str, Any], ...]

    @property
    def digest(self) -> str:
        """The same file, read in the same way, is the same source."""
        return value_digest({"file": self.file_digest, "format": self.format, "unit": self.unit})


def add_evidence(store: Store, source: Source, batches: Iterator[Sequence[Evidence]]) -> int:
    """Store the rows of a source; those already there are left out, so a killed import can be repeated.

    Returns:
        How many rows were new.

    Raises:
        StoreError: the database cannot be written.
    """
    content = {name: value for name, value in asdict(source).items() if name != "name"}
    row = {
        "digest": source.digest,
        "name": source.name,
        "content": content,
        "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return put_evidence(store, row, ([asdict(each) for each in batch] for batch in batches))


def put_evidence(store: Store, source: dict[str, Any], batches: Iterator[list[dict[str, Any]]]) -> int:
    """As ``add_evidence``, of rows as they are stored."""
    return sum(
        transact(store.engine, partial(_insert, source=source, rows=batch)) for batch in batches if batch
    )


def _insert(connection: Connection, source: dict[str, Any], rows: list[dict[str, Any]]) -> int:
    new = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(new(evidence_sources).on_conflict_do_nothing(index_elements=["digest"]), source)
    rows = [{**row, "source": source["digest"]} for row in rows]
    statement = new(evidence).on_conflict_do_nothing(index_elements=["source", "device", "row"])
    return len(connection.scalars(statement.returning(evidence.c.id), rows).all())


def sources(store: Store) -> list[dict[str, Any]]:
    """All sources as they are stored: ``digest``, ``name``, ``content``, ``imported_at``."""
    query = select(evidence_sources).order_by(evidence_sources.c.imported_at, evidence_sources.c.digest)
    return [dict(row) for row in fetch(store.engine, query)]


def evidence_rows(store: Store, source: str) -> Iterator[list[dict[str, Any]]]:
    """The rows of a source as they are stored, in batches, without ``id`` and ``source``."""
    last = 0
    columns = [column for column in evidence.columns if column.name != "source"]
    while True:
        query = select(*columns).where(evidence.c.source == source, evidence.c.id > last)
        query = query.order_by(evidence.c.id).limit(BATCH)
        rows = fetch(store.engine, query)
        if not rows:
            return
        last = rows[-1]["id"]
        yield [{name: value for name, value in row.items() if name != "id"} for row in rows]
