"""What a latency database holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text

from latency_db.store.database import shown, sqlite_file, transact
from latency_db.store.opening import backups_of
from latency_db.store.published import sources
from latency_db.store.schema import (
    PARTS,
    SCHEMA_VERSION,
    devices,
    measurements,
    published_latencies,
    published_series,
)
from latency_db.store.store import Store


@dataclass(frozen=True)
class PublishedTable:
    """A published table that was imported.

    Attributes:
        digest: of the source.
        cells: latencies in its file; fewer are stored where its import was ended before its end.
        devices: number of stored latencies by device.
        findings: what screening found, as ``screening.ScreeningFinding`` says.
    """

    name: str
    digest: str
    imported_at: str
    cells: int
    devices: Mapping[str, int]
    findings: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Info:
    """What a database holds.

    Attributes:
        place: its path or URL, without a password.
        outcomes: number of rows by target and verdict (``failed`` for failures).
        emulated: targets with rows of emulated devices.
        parts: number of distinct contents of each part of the key.
        published: the published tables, in the order in which they were imported.
        backups: copies made before migrations.
    """

    place: str
    schema: int
    size_bytes: int | None
    outcomes: Mapping[str, Mapping[str, int]]
    emulated: tuple[str, ...]
    parts: Mapping[str, int]
    published: tuple[PublishedTable, ...]
    backups: tuple[str, ...]


def info(store: Store) -> Info:
    """Describe a database.

    Raises:
        StoreError: it cannot be read.
    """
    file = sqlite_file(store.engine.url)
    imported = sources(store)

    def read(connection: Connection) -> Info:
        return Info(
            place=shown(store.engine.url),
            schema=SCHEMA_VERSION,
            size_bytes=_size_bytes(connection, file),
            outcomes=_outcomes(connection),
            emulated=_emulated_targets(connection),
            parts={
                part: connection.scalar(select(func.count()).select_from(table)) or 0
                for part, table in PARTS.items()
            },
            published=tuple(_published_table(connection, source) for source in imported),
            backups=tuple(path.name for path in backups_of(file)) if file is not None else (),
        )

    return transact(store.engine, read)


def _size_bytes(connection: Connection, file: Path | None) -> int | None:
    if connection.dialect.name == "postgresql":
        return int(connection.scalar(text("SELECT pg_database_size(current_database())")) or 0)
    if file is None:
        return None
    return sum(path.stat().st_size for path in (file, Path(f"{file}-wal")) if path.exists())


def _outcomes(connection: Connection) -> dict[str, dict[str, int]]:
    group = (measurements.c.target, measurements.c.verdict)
    outcomes: dict[str, dict[str, int]] = {}
    for target, verdict, number in connection.execute(
        select(*group, func.count()).group_by(*group).order_by(*group)
    ):
        outcomes.setdefault(target, {})[verdict] = number
    return outcomes


def _emulated_targets(connection: Connection) -> tuple[str, ...]:
    kinds = connection.execute(select(devices.c.digest, devices.c.content))
    emulated = [digest for digest, content in kinds if isinstance(content, dict) and content.get("emulated")]
    if not emulated:
        return ()
    targets = select(measurements.c.target).where(measurements.c.device.in_(emulated)).distinct()
    return tuple(sorted(connection.scalars(targets)))


def _published_table(connection: Connection, source: Mapping[str, Any]) -> PublishedTable:
    series = published_series.c
    counted = (
        select(series.device, func.count())
        .join(published_latencies, published_latencies.c.series == series.id)
        .where(series.source == source["digest"])
        .group_by(series.device)
        .order_by(series.device)
    )
    content = source["content"]
    return PublishedTable(
        name=source["name"],
        digest=source["digest"],
        imported_at=source["imported_at"],
        cells=content["cells"],
        devices=dict(connection.execute(counted).all()),
        findings=tuple(content["findings"]),
    )
