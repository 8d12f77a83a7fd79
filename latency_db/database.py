"""Opening the database behind a store: where it is, how it is created and migrated, what its errors mean."""

from __future__ import annotations

import glob
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import platformdirs
from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, RowMapping, Select, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from latency_db import schema
from latency_db.errors import StoreError

T = TypeVar("T")

_BUSY_TIMEOUT_S = 30
_MIGRATION_TIMEOUT_S = 600
_CHECKPOINT_PAGES = 8_000
"""Pages in a log of 32 MB, at which it is written back: what changes often is then written less often."""

_CONNECT_TIMEOUT_S = 5
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""How long to wait before each further try when a server does not answer."""

_SCHEMA_LOCK = 0x1A7E
"""Number of the advisory lock under which a server's tables are created and migrated."""

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

# SQLSTATE of a server that goes down, comes up, or has no connection left, and of a conflict between writers.
_PASSING_STATES = ("08", "53300", "57P", "40001", "40P01")

_log = logging.getLogger(__name__)


def default_url() -> str:
    """The database named by ``LATHE_DB``, else one SQLite file in the user's data folder."""
    return os.environ.get("LATHE_DB") or str(Path(platformdirs.user_data_dir("lathe")) / "latency.db")


def open_engine(location: str) -> Engine:
    """Open the database at a path or SQLAlchemy URL; create it, and its folder, where there is none.

    An older schema is migrated first, in one transaction; a SQLite file is copied beside itself before.

    Raises:
        StoreError: it cannot be opened, created or migrated, is damaged, or has a newer schema.
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
        extra = "pip install 'lathe-deploy[postgresql]'" if url.get_backend_name() == "postgresql" else ""
        raise StoreError(
            f"no database can be opened at {shown(url)}",
            why=str(error),
            fix=extra or "install the driver that the URL names, or give the path of a SQLite file",
        ) from error
    except Timeout as error:
        raise StoreError(
            f"the latency database {shown(url)} is locked",
            why=f"another process has been creating or migrating it for {_MIGRATION_TIMEOUT_S} s",
            fix="wait for that process, or end it: a migration that is ended leaves the database as it was",
        ) from error
    except OSError as error:
        older = file is not None and file.is_file() and file.stat().st_size > 0
        raise StoreError(
            f"the latency database {shown(url)} cannot be {'migrated' if older else 'created'}",
            why=str(error),
            fix=f"make its folder writable, or {_CHOOSE}",
        ) from error
    return engine


def transact(engine: Engine, work: Callable[[Connection], T]) -> T:
    """Carry out ``work`` in one transaction; again, after a pause, when a server went away or was not there.

    A server may have stored what it could not confirm any more, so ``work`` must do no harm when it is done
    twice.

    Raises:
        StoreError: in place of any error of the driver, also when the server stayed away.
    """
    with explained_errors(engine.url):
        for pause_s in _PAUSES_S:
            try:
                with engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not _is_passing(error, engine.url):
                    raise
                _log.info("%s does not answer, next try in %s s: %s", shown(engine.url), pause_s, error.orig)
            time.sleep(pause_s)
        with engine.begin() as connection:
            return work(connection)


def fetch(engine: Engine, query: Select[Any]) -> Sequence[RowMapping]:
    """The rows of a query; see ``transact``."""
    return transact(engine, lambda connection: connection.execute(query).mappings().all())


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
    except JSONDecodeError as error:
        raise StoreError(
            f"the latency database {shown(url)} holds a row that cannot be read",
            why=f"its JSON is damaged: {error}",
            fix=f"see which with `lathe db check`; restore it from a copy, or {_CHOOSE}",
        ) from error
    except DBAPIError as error:
        if url.get_backend_name() != "sqlite" and _is_passing(error, url):
            raise StoreError(
                f"the latency database {shown(url)} does not answer",
                why=f"{_one_line(error)}; tried {len(_PAUSES_S) + 1} times in {sum(_PAUSES_S):.0f} s",
                fix="start the server, or check the URL; rows stored before are kept, and the same command "
                "goes on from them",
            ) from error
        code = getattr(error.orig, "sqlite_errorcode", None)
        what, fix = _SQLITE_ERRORS.get(
            code & 0xFF if isinstance(code, int) else -1,
            ("could not carry out a statement", f"check that it can be reached and written, or {_CHOOSE}"),
        )
        raise StoreError(
            f"the latency database {shown(url)} {what}", why=_one_line(error), fix=fix
        ) from error


def shown(url: URL) -> str:
    """A database's place as it may be printed: the path of a file, a URL without its password."""
    file = sqlite_file(url)
    return str(file) if file is not None else url.render_as_string(hide_password=True)


def _one_line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())


def _is_passing(error: DBAPIError, url: URL) -> bool:
    """Whether it may be over soon: a server that is down, starts, stops, or met a conflict of writers."""
    if url.get_backend_name() == "sqlite":
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return bool(str(state).startswith(_PASSING_STATES))
    said = str(error.orig)
    refused = "FATAL" in said and not any(
        word in said for word in ("starting up", "shutting down", "recovery", "too many")
    )
    return error.connection_invalidated or (type(error.orig).__name__ == "OperationalError" and not refused)


def sqlite_path(location: str) -> Path | None:
    """The SQLite file that a path or URL names; ``None`` for anything else.

    Raises:
        StoreError: it is neither a path nor a URL.
    """
    return sqlite_file(_url(location))


def read_version(location: str) -> int | None:
    """The schema version of the database at a path or URL, which is not changed; ``None`` if it is empty.

    Raises:
        StoreError: it cannot be read, holds something else, or has a newer schema.
    """
    engine = _engine(_url(location))
    try:
        return transact(engine, schema.version_of)
    finally:
        engine.dispose()


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
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "postgresql":
        return create_engine(url, connect_args={"connect_timeout": _CONNECT_TIMEOUT_S})
    if url.get_backend_name() != "sqlite":
        return create_engine(url)
    file = sqlite_file(url)
    if file is not None and _can_only_be_read(file):
        location = f"file:{quote(str(file.absolute()))}?immutable=1"
        engine = create_engine(
            url, creator=lambda: sqlite3.connect(location, uri=True, check_same_thread=False)
        )
    else:
        engine = create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _can_only_be_read(file: Path) -> bool:
    """In a folder that cannot be written SQLite cannot keep its log, not even to read; nor can anybody else.

    What another process left in a log must not be passed over, though.
    """
    log = Path(f"{file}-wal")
    return (
        file.is_file() and not os.access(file.parent, os.W_OK) and not (log.exists() and log.stat().st_size)
    )


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # Without it, INSERT OR REPLACE would remove rows past the triggers that keep them.
    connection.execute("PRAGMA recursive_triggers = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")


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
        from latency_db.migrations import migrate

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
                why=str(error),
                fix=f"free some disk space beside it and make its folder writable, or {_CHOOSE}",
            ) from error
    with unfinished.open("rb") as stream:
        os.fsync(stream.fileno())
    unfinished.replace(backup)
    return backup
