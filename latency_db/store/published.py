"""Published latencies, of which only a number is known: neither how they were measured nor their samples.

They have a type and tables of their own. No lookup of a measurement and no latency table sees them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, NamedTuple, TypedDict

from sqlalchemy import Connection, Dialect, select
from sqlalchemy.dialects import postgresql, sqlite

from devices.digests import value_digest
from latency_db.store.database import fetch, pages, transact
from latency_db.store.schema import (
    published_latencies,
    published_series,
    published_sources,
    require_known_schema,
)
from latency_db.store.store import Store

BATCH = 20_000
"""Latencies that are in memory and in a transaction at once."""

Flag = Literal["", "missing", "impossible", "failed-run"]
"""What screening found: nothing, no value, one that no run can have, a failed run that was kept as data."""


class PublishedLatency(TypedDict):
    """One published latency, as it is stored.

    Attributes:
        row: of the file, from 0.
        workload: as the file describes it.
        latency_ns: mean, or whatever the publisher took; ``None`` if the value is missing or impossible.
        count: number of runs behind it, where the file says so.
        variance_ns2: their variance, where the file says so.
    """

    row: int
    workload: str
    latency_ns: float | None
    count: int | None
    variance_ns2: float | None
    flag: Flag


class Page(NamedTuple):
    """Some latencies of one device, which is named as the file, or who imported it, calls it."""

    device: str
    rows: Sequence[PublishedLatency]


@dataclass(frozen=True)
class PublishedSource:
    """Where published latencies come from.

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


def add_published(store: Store, source: PublishedSource, batches: Iterable[Sequence[Page]]) -> int:
    """Store latencies of a source, each batch in one transaction; those already there are left out.

    So an import that was killed can be repeated, and goes on from where it was.

    Returns:
        How many were new.

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
    return put_published(store, row, batches)


def put_published(store: Store, source: dict[str, Any], batches: Iterable[Sequence[Page]]) -> int:
    """As ``add_published``, of a source as it is stored."""
    return sum(
        transact(store.engine, partial(_insert, source=source, pages=pages)) for pages in batches if pages
    )


def _insert(connection: Connection, source: dict[str, Any], pages: Sequence[Page]) -> int:
    require_known_schema(connection)
    new = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(new(published_sources).on_conflict_do_nothing(index_elements=["digest"]), source)
    digest, series = source["digest"], published_series.c
    connection.execute(
        new(published_series).on_conflict_do_nothing(index_elements=["source", "device"]),
        [{"source": digest, "device": device} for device in sorted({page.device for page in pages})],
    )
    known = select(series.device, series.id).where(series.source == digest)
    numbers = dict(connection.execute(known).all())
    rows = [{**row, "series": numbers[page.device]} for page in pages for row in page.rows]
    statement = new(published_latencies).on_conflict_do_nothing(index_elements=["series", "row"])
    # Straight to the driver: SQLAlchemy would look at every value once more, which takes almost as long.
    compiled = statement.compile(dialect=_named(connection))
    return connection.exec_driver_sql(str(compiled), rows).rowcount


def _named(connection: Connection) -> Dialect:
    """The connection's dialect, with names in place of question marks for values."""
    return sqlite.dialect(paramstyle="named") if connection.dialect.name == "sqlite" else connection.dialect


def sources(store: Store) -> list[dict[str, Any]]:
    """All sources as they are stored: ``digest``, ``name``, ``content``, ``imported_at``."""
    query = select(published_sources).order_by(published_sources.c.imported_at, published_sources.c.digest)
    return [dict(row) for row in fetch(store.engine, query)]


def devices_of(store: Store, source: str) -> set[str]:
    """Devices of which something is stored from a source, which is named by its digest."""
    query = select(published_series.c.device).where(published_series.c.source == source)
    return {row["device"] for row in fetch(store.engine, query)}


def published_pages(
    store: Store, source: str, *, device: str | None = None, workload: str | None = None
) -> Iterator[Page]:
    """What is stored of a source, device by device and in the order of its file, in bounded memory.

    Args:
        store: where to read.
        source: its digest.
        device: only this one.
        workload: only workloads whose description has this text.

    Raises:
        StoreError: the database cannot be read.
    """
    series = published_series.c
    query = select(series.id, series.device).where(series.source == source).order_by(series.device)
    if device is not None:
        query = query.where(series.device == device)
    for each in fetch(store.engine, query):
        for rows in _pages(store, each["id"], workload):
            yield Page(each["device"], rows)


def _pages(store: Store, series: int, workload: str | None) -> Iterator[list[Any]]:
    columns = [column for column in published_latencies.columns if column.name != "series"]
    query = select(*columns).where(published_latencies.c.series == series).limit(BATCH)
    if workload is not None:
        query = query.where(published_latencies.c.workload.contains(workload, autoescape=True))
    for rows in pages(store.engine, query, published_latencies.c.row, after=-1):
        yield [dict(row) for row in rows]


def published_rows(
    store: Store, *, device: str | None = None, workload: str | None = None
) -> Iterator[list[dict[str, Any]]]:
    """As ``published_pages``, of all sources; rows also have ``source``, ``source_digest`` and ``device``."""
    for source in sources(store):
        origin = {"source": source["name"], "source_digest": source["digest"]}
        for page in published_pages(store, source["digest"], device=device, workload=workload):
            yield [{**origin, "device": page.device, **row} for row in page.rows]
