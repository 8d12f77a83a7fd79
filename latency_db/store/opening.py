"""Opening a database: where it is, and how it is created, or copied and migrated."""

from __future__ import annotations

import glob
import logging
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from devices.installing import how_to_install
from devices.words import cause_of
from latency_db.errors import NoDatabaseError, StoreError
from latency_db.store import schema
from latency_db.store.database import (
    CHOOSE,
    engine_of,
    explained_errors,
    parsed_url,
    shown,
    sqlite_file,
    transact,
)

_MIGRATION_TIMEOUT_S = 600
_SCHEMA_LOCK = 0x1A7E
"""Number of the advisory lock under which a server's tables are created and migrated."""

_log = logging.getLogger(__name__)


def default_url() -> str:
    """The database named by ``LATHE_DB``, else one SQLite file in the user's data folder."""
    return os.environ.get("LATHE_DB") or str(Path(platformdirs.user_data_dir("lathe")) / "latency.db")


def open_engine(location: str, *, must_exist: bool = False) -> Engine:
    """Open the database at a path or SQLAlchemy URL; create it, and its folder, unless it must exist.

    An older schema is migrated first, in one transaction; a SQLite file is copied beside itself before.

    Raises:
        StoreError: it cannot be opened, created or migrated, is damaged, or has a newer schema; or it must
            exist and does not.
    """
    url = parsed_url(location)
    file = sqlite_file(url)
    try:
        if must_exist:
            _require_database(location, file)
        elif file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        engine = engine_of(url)
        with explained_errors(url):
            _prepare(engine, file)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        extra = how_to_install("postgresql") if url.get_backend_name() == "postgresql" else ""
        raise StoreError(
            f"no database can be opened at {shown(url)}",
            why=cause_of(error),
            fix=extra or "install the driver that the URL names, or give the path of a SQLite file",
        ) from error
    except Timeout as error:
        raise StoreError(
            f"the latency database {shown(url)} is locked",
            why=f"another process has been creating or migrating it for {_MIGRATION_TIMEOUT_S} s",
            fix="wait for that process, or end it: a migration that is ended leaves the database as it was",
        ) from error
    except OSError as error:
        older = file is not None and os.access(file, os.F_OK) and file.stat().st_size > 0
        raise StoreError(
            f"the latency database {shown(url)} cannot be {'migrated' if older else 'created'}",
            why=cause_of(error),
            fix=f"make its folder writable, or {CHOOSE}",
        ) from error
    return engine


def _require_database(location: str, file: Path | None) -> None:
    """Check that there is a database, without making a file or a folder.

    Raises:
        NoDatabaseError: there is none.
        StoreError: it cannot be read.
    """
    if file is not None and not file.exists():
        why = "there is no such file"
    elif read_version(location) is None:
        why = "it has no tables"
    else:
        return
    raise NoDatabaseError(
        f"there is no latency database at {shown(parsed_url(location))}",
        why=why,
        fix="check --db and the environment variable LATHE_DB; commands that measure make a new database",
    )


def read_version(location: str) -> int | None:
    """The schema version of the database at a path or URL, which is not changed; ``None`` if it is empty.

    Raises:
        StoreError: it cannot be read, holds something else, or has a newer schema.
    """
    engine = engine_of(parsed_url(location))
    try:
        return transact(engine, schema.version_of)
    finally:
        engine.dispose()


def _prepare(engine: Engine, file: Path | None) -> None:
    """Create or migrate the tables once, whoever comes first."""
    if transact(engine, schema.version_of) == schema.SCHEMA_VERSION:
        return
    if file is None:
        transact(engine, _bring_up_to_date)
        return
    with FileLock(f"{file}.lock", timeout=_MIGRATION_TIMEOUT_S), engine.connect() as connection:
        version = schema.version_of(connection)
        connection.rollback()
        if version == schema.SCHEMA_VERSION:
            return
        if version is None:
            # The journal mode stays in the file; it cannot change inside a transaction.
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        else:
            backup = _back_up(file, version)
            _log.info(
                "bringing %s from schema %d to %d; a copy is %s", file, version, schema.SCHEMA_VERSION, backup
            )
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        _bring_up_to_date(connection)
        connection.commit()


def _bring_up_to_date(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _SCHEMA_LOCK})
    version = schema.version_of(connection)
    if version is None:
        schema.create(connection)
    elif version < schema.SCHEMA_VERSION:
        from latency_db.store.migrations import migrate

        migrate(connection, version)


def backups_of(file: Path) -> list[Path]:
    """Copies made before migrations of a SQLite file, and what a killed one left of its copy."""
    return sorted(file.parent.glob(f"{glob.escape(file.name)}.schema-*"))


def _back_up(file: Path, version: int) -> Path:
    """Copy a SQLite file, its write-ahead log included, beside itself; an older copy is kept."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    backup = file.with_name(f"{file.name}.schema-{version}.{stamp}.backup")
    unfinished = backup.with_suffix(".unfinished")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(unfinished)) as copy:
        try:
            source.backup(copy)
        except sqlite3.Error as error:
            unfinished.unlink(missing_ok=True)
            raise StoreError(
                f"the latency database {file} cannot be copied before its migration, which was not begun",
                why=cause_of(error),
                fix=f"free some disk space beside it and make its folder writable, or {CHOOSE}",
            ) from error
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    unfinished.replace(backup)
    return backup
