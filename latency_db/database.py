"""Opening the database behind a store: where it is, how it is created, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from latency_db import schema
from latency_db.errors import StoreError

_BUSY_TIMEOUT_S = 30
_CHOOSE = "choose another file with --db or the environment variable LATHE_DB"

_SQLITE_ERRORS = {
    sqlite3.SQLITE_NOTADB: ("is not a database, or is damaged", f"restore it from a copy, or {_CHOOSE}"),
    sqlite3.SQLITE_CORRUPT: (
        "is damaged",
        f"save what is readable with `sqlite3 FILE .recover`, restore it from a copy, or {_CHOOSE}",
    ),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", f"make its folder writable, or {_CHOOSE}"),
    sqlite3.SQLITE_READONLY: ("cannot be written", f"make the file and its folder writable, or {_CHOOSE}"),
    sqlite3.SQLITE_FULL: ("cannot grow; rows stored before are kept", f"free some disk space, or {_CHOOSE}"),
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written; rows stored before are kept",
        f"free some disk space and check the disk, or {_CHOOSE}",
    ),
    sqlite3.SQLITE_BUSY: ("is locked", "end the other process that writes to it, or try again"),
}


def default_url() -> str:
    """The database named by ``LATHE_DB``, else one SQLite file in the user's data folder."""
    return os.environ.get("LATHE_DB") or str(Path(platformdirs.user_data_dir("lathe")) / "latency.db")


def open_engine(location: str) -> Engine:
    """Open the database at a path or SQLAlchemy URL; create it, and its folder, where there is none.

    Raises:
        StoreError: it cannot be opened or created, is damaged, or has another schema.
    """
    url = _url(location)
    file = sqlite_file(url)
    try:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        engine = _engine(url)
        with explained_errors(url):
            _prepare(engine, file)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise StoreError(
            f"no database can be opened at {_shown(url)}",
            why=str(error),
            fix="install the driver that the URL names, or give the path of a SQLite file",
        ) from error
    except OSError as error:
        raise StoreError(
            f"the latency database {_shown(url)} cannot be created",
            why=str(error),
            fix=f"make its folder writable, or {_CHOOSE}",
        ) from error
    return engine


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL; ``None`` for a server, memory, and SQLite's own ``file:`` notation."""
    database = url.database or ":memory:"
    if url.get_backend_name() != "sqlite" or database.startswith((":memory:", "file:")):
        return None
    return Path(database)


@contextmanager
def explained_errors(url: URL) -> Iterator[None]:
    """Turn the driver's errors into one clear message.

    Raises:
        StoreError: in place of any error of the driver.
    """
    try:
        yield
    except DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        what, fix = _SQLITE_ERRORS.get(
            code & 0xFF if isinstance(code, int) else -1,
            ("could not carry out a statement", f"check that it can be reached and written, or {_CHOOSE}"),
        )
        raise StoreError(
            f"the latency database {_shown(url)} {what}", why=str(error.orig), fix=fix
        ) from error


def _url(location: str) -> URL:
    if "://" not in location:
        return URL.create("sqlite", database=str(Path(location).expanduser().absolute()))
    try:
        return make_url(location)
    except ArgumentError as error:
        raise StoreError(
            f"'{location}' is neither a path nor a database URL",
            why="a URL is written like sqlite:////home/me/latency.db",
            fix="give the path of a SQLite file",
        ) from error


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url)
    engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _enforce_foreign_keys)
    return engine


def _enforce_foreign_keys(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


def _prepare(engine: Engine, file: Path | None) -> None:
    """Create the tables once, whoever comes first."""
    with engine.connect() as connection:
        if schema.is_prepared(connection):
            return
    if file is None:
        with engine.begin() as connection:
            schema.create(connection)
        return
    with FileLock(f"{file}.lock", timeout=_BUSY_TIMEOUT_S), engine.connect() as connection:
        if schema.is_prepared(connection):
            return
        connection.rollback()
        # The journal mode stays in the file; it cannot change inside a transaction.
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        schema.create(connection)
        connection.commit()


def _shown(url: URL) -> str:
    file = sqlite_file(url)
    return str(file) if file is not None else url.render_as_string(hide_password=True)
