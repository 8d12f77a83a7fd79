"""Whether a latency database is whole, joining two of them, and clearing what nobody needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, exists, func, select, text

from devices.host import temporary_folder
from devices.words import cause_of, count_of
from latency_db.errors import StoreError
from latency_db.store.database import CHOOSE, fetch, sqlite_file, sqlite_path, transact
from latency_db.store.opening import backups_of, read_version
from latency_db.store.published import published_pages, put_published, sources
from latency_db.store.reading import Record, records
from latency_db.store.rows import damage_of_part
from latency_db.store.schema import (
    KEPT_FOR_EVER,
    PARTS,
    SCHEMA_VERSION,
    measurements,
    published_latencies,
    published_series,
)
from latency_db.store.store import Store, open_store

_SHOWN_PROBLEMS = 100
_RECOGNISED = {
    measurements: "SELECT digest FROM {0}.measurements",
    published_latencies: "SELECT source, device, row FROM {0}.published_latencies"
    " JOIN {0}.published_series ON id = series",
}
"""By what rows are the same in two SQLite files, as a merge sees it."""


@dataclass(frozen=True)
class Check:
    """What an examination found.

    Attributes:
        rows: outcomes that were read.
        problems: sentences; the first hundred.
        count: number of all problems.
    """

    rows: int
    problems: tuple[str, ...]
    count: int


def check(store: Store) -> Check:
    """Read everything again: the file's structure, constraints, every digest and every row's JSON.

    Raises:
        StoreError: the database cannot be read at all.
    """
    first: list[str] = []
    rows = found = 0

    def note(problem: str) -> None:
        nonlocal found
        found += 1
        if len(first) < _SHOWN_PROBLEMS:
            first.append(problem)

    for problem in transact(store.engine, lambda connection: list(_structure_problems(connection))):
        note(problem)
    for problem in _part_problems(store):
        note(problem)
    for found_in_row in _row_problems(store):
        rows += 1
        if found_in_row is not None:
            note(found_in_row)
    for source in sources(store):
        counted = select(func.count().label("cells")).select_from(published_latencies).join(published_series)
        counted = counted.where(published_series.c.source == source["digest"])
        stored = fetch(store.engine, counted)[0]["cells"]
        if stored != source["content"]["cells"]:
            expected = source["content"]["cells"]
            what = f"published table {source['name']}: {stored} of {expected} rows are there"
            note(f"{what}; import its file again")
    return Check(rows, tuple(first), found)


def _structure_problems(connection: Connection) -> Iterator[str]:
    if connection.dialect.name == "sqlite":
        for (message,) in connection.exec_driver_sql("PRAGMA integrity_check"):
            if message != "ok":
                yield f"the file: {message}"
        for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            yield f"{table} {row} refers to nothing in {parent}"
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        wanted = [
            f"{table.name}_keep_on_{event}" for table in KEPT_FOR_EVER for event in ("UPDATE", "DELETE")
        ]
    else:
        query = "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'D'"
        wanted = [f"{table.name}_keep" for table in KEPT_FOR_EVER]
    there = set(connection.scalars(text(query)))
    for name in wanted:
        if name not in there:
            yield f"the trigger {name}, which keeps rows from being changed, is missing"


def _part_problems(store: Store) -> Iterator[str]:
    for part, table in PARTS.items():
        for digest in [row["digest"] for row in fetch(store.engine, select(table.c.digest))]:
            [row] = fetch(store.engine, select(table).where(table.c.digest == digest))
            damage = damage_of_part(part, digest, row["content"], row.get("content_digest"))
            if damage is not None:
                yield f"{part} {digest}: {damage}"


def _row_problems(store: Store) -> Iterator[str | None]:
    """One item for each row, ``None`` if it is sound; the last one says where reading ended, if it did."""
    last = 0
    try:
        for batch in records(store):
            yield from map(_row_problem, batch)
            last = batch[-1].id
    except StoreError as error:
        yield f"the rows after measurement {last} cannot be read: {error.why}"


def _row_problem(record: Record) -> str | None:
    return None if record.damage is None else f"measurement {record.id}: {record.damage}"


@dataclass(frozen=True)
class Merged:
    """What a merge did: rows of the other database, how many of them were new, and how many are damaged."""

    rows: int
    added: int
    published_rows: int
    published_added: int
    damaged: int


def merge(store: Store, location: str) -> Merged:
    """Add everything of another database that this one lacks; the other is not changed.

    Merging again adds nothing. Rows that do not fit their digests are damaged, and are counted and left out.
    A sound row takes the place of a damaged one here.

    Raises:
        StoreError: one of the databases cannot be read or written.
    """
    rows = added = damaged = published_seen = published_added = 0
    with _opened(location) as other:
        for batch in records(other):
            sound = [record for record in batch if record.damage is None]
            rows += len(batch)
            damaged += len(batch) - len(sound)
            parts = {key: content for record in sound for key, content in record.keyed_parts().items()}
            added += store.put(parts, [record.columns for record in sound])
        for source in sources(other):
            for page in published_pages(other, source["digest"]):
                published_seen += len(page.rows)
                published_added += put_published(store, source, [[page]])
    return Merged(rows, added, published_seen, published_added, damaged)


@contextmanager
def _opened(location: str) -> Iterator[Store]:
    """Another database to read; an older file is migrated as a copy, which is removed afterwards."""
    file = sqlite_path(location)
    if file is not None and not file.is_file():
        raise StoreError(f"{file} does not exist", why="there is no such file", fix="check the path")
    version = read_version(location)
    if version is None:
        raise StoreError(f"{location} is empty", why="it has no tables", fix="check the path or URL")
    with ExitStack() as stack:
        if version < SCHEMA_VERSION:
            if file is None:
                raise StoreError(
                    f"the other database has schema {version}, this one {SCHEMA_VERSION}",
                    why="a server is migrated only when it is opened as the database itself",
                    fix="open it once, e.g. `lathe db info --db URL`, and merge again",
                )
            folder = stack.enter_context(temporary_folder("merge"))
            location = str(folder / "copy.db")
            try:
                with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(location)) as copy:
                    source.backup(copy)
            except sqlite3.Error as error:
                raise StoreError(
                    f"{file} cannot be copied, to bring it from schema {version} to {SCHEMA_VERSION}",
                    why=cause_of(error),
                    fix=f"check it and the free disk space, or {CHOOSE}",
                ) from error
        yield stack.enter_context(open_store(location))


@dataclass(frozen=True)
class Cleared:
    """What was, or would be, removed: names of backups, and the number of parts that no row refers to."""

    backups: tuple[str, ...]
    freed_bytes: int
    parts: int


def clear(store: Store, *, rehearse: bool = False) -> Cleared:
    """Remove copies made before migrations, and parts of keys without rows; never a latency.

    Copies are removed only if the file is sound and holds every row that they hold.

    Args:
        store: what to clear.
        rehearse: remove nothing, and say what would be.

    Raises:
        StoreError: the file or a copy is damaged, or the file lacks a row of a copy, so that its copies may
            be needed; or the database cannot be written.
    """
    file = sqlite_file(store.engine.url)
    backups = backups_of(file) if file is not None else []
    if file is not None and backups:
        _require_sound(store, file)
    freed_bytes = sum(path.stat().st_size for path in backups)

    def remove(connection: Connection) -> int:
        parts = 0
        for part, table in PARTS.items():
            orphaned = ~exists().where(measurements.c[part] == table.c.digest)
            if rehearse:
                parts += connection.scalar(select(func.count()).select_from(table).where(orphaned)) or 0
            else:
                parts += connection.execute(delete(table).where(orphaned)).rowcount
        return parts

    parts = transact(store.engine, remove)
    if not rehearse:
        for path in backups:
            path.unlink(missing_ok=True)
    return Cleared(tuple(path.name for path in backups), freed_bytes, parts)


def _require_sound(store: Store, file: Path) -> None:
    problems = [*check(store).problems]
    for backup in backups_of(file):
        if backup.suffix == ".backup":
            problems += _lacking(file, backup)
    if problems:
        raise StoreError(
            "nothing was cleared: the copies of the database may be needed",
            why=problems[0],
            fix="see `lathe db check`; add what a copy has with `lathe db merge COPY`, or remove a copy that "
            "nobody needs by hand",
        )


def _lacking(file: Path, backup: Path) -> Iterator[str]:
    """What a copy has and the database lacks, row by row and not by their number; or that nobody can tell."""

    def missing(connection: Connection) -> dict[str, int]:
        connection.exec_driver_sql("ATTACH DATABASE ? AS here", (str(file),))
        return {
            table.name: connection.exec_driver_sql(
                f"SELECT count(*) FROM ({rows.format('main')} EXCEPT {rows.format('here')})"
            ).scalar_one()
            for table, rows in _RECOGNISED.items()
        }

    try:
        with _opened(str(backup)) as copy:
            for table, rows in transact(copy.engine, missing).items():
                if rows:
                    yield f"{backup.name} has {count_of(rows, 'row')} of {table} that the database lacks"
    except StoreError as error:
        yield f"{backup.name} cannot be compared: {error.why}"
