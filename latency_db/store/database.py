"""The database behind a store: its place, connections and transactions, and what its errors mean."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    Select,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError, DBAPIError

from devices.untrusted import json_from
from latency_db.errors import StoreError

T = TypeVar("T")

_BUSY_TIMEOUT_S = 30
_CHECKPOINT_PAGES = 8_000
"""Pages in a log of 32 MB, at which it is written back: what changes often is then written less often."""

_CONNECT_TIMEOUT_S = 5
_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""How long to wait before each further try when a server does not answer."""

CHOOSE = "choose another file with --db or the environment variable LATHE_DB"

_SQLITE_ERRORS = {
    sqlite3.SQLITE_NOTADB: ("is not a database, or is damaged", f"restore it from a copy, or {CHOOSE}"),
    sqlite3.SQLITE_CORRUPT: (
        "is damaged",
        f"save what is readable with `sqlite3 FILE .recover`, restore it from a copy, or {CHOOSE}",
    ),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", f"make its folder writable, or {CHOOSE}"),
    sqlite3.SQLITE_READONLY: ("cannot be written", f"make the file and its folder writable, or {CHOOSE}"),
    sqlite3.SQLITE_FULL: ("cannot grow; rows stored before are kept", f"free some disk space, or {CHOOSE}"),
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written; rows stored before are kept",
        f"free some disk space and check the disk, or {CHOOSE}",
    ),
    sqlite3.SQLITE_BUSY: ("is locked", "end the other process that writes to it, or try again"),
}

# SQLSTATE of a server that goes down, comes up, or has no connection left, and of a conflict between writers.
_PASSING_STATES = ("08", "53300", "57P", "40001", "40P01")

_log = logging.getLogger(__name__)


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


def pages(
    engine: Engine, query: Select[Any], key: ColumnElement[int], after: int
) -> Iterator[Sequence[RowMapping]]:
    """The rows of a query with a limit in the order of a key, as many at once as the limit says.

    Args:
        engine: of the database.
        query: without an order.
        key: one of its columns, of which no two rows have the same value.
        after: rows whose key is larger than this.

    Raises:
        StoreError: as ``transact``; or rows are not in their order in the file, which would never end.
    """
    ordered = query.order_by(key)
    while rows := fetch(engine, ordered.where(key > after)):
        for row in rows:
            after = require_order(after, row[key.name], engine.url)
        yield rows


def require_order(before: int, key: object, url: URL) -> int:
    """The key of a row, which must be larger than that of the row before.

    Raises:
        StoreError: it is not.
    """
    if isinstance(key, int) and key > before:
        return key
    what, fix = _SQLITE_ERRORS[sqlite3.SQLITE_CORRUPT]
    raise StoreError(
        f"the latency database {shown(url)} {what}", why=f"row {key!r} comes after row {before}", fix=fix
    )


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
        if url.get_backend_name() != "sqlite" and _is_passing(error, url):
            raise StoreError(
                f"the latency database {shown(url)} does not answer",
                why=f"{_one_line(error)}; tried {len(_PAUSES_S) + 1} times in {sum(_PAUSES_S):.0f} s",
                fix="start the server, or check the URL; rows stored before are kept, and the same command "
                "continues from them",
            ) from error
        code = getattr(error.orig, "sqlite_errorcode", None)
        what, fix = _SQLITE_ERRORS.get(
            code & 0xFF if isinstance(code, int) else -1,
            ("could not carry out a statement", f"check that it can be reached and written, or {CHOOSE}"),
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
    return sqlite_file(parsed_url(location))


def parsed_url(location: str) -> URL:
    """The URL of a path or URL.

    Raises:
        StoreError: it is neither.
    """
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


def engine_of(url: URL) -> Engine:
    """An engine for a database, of which nothing is opened yet."""
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "postgresql":
        return create_engine(
            url, json_deserializer=_json, connect_args={"connect_timeout": _CONNECT_TIMEOUT_S}
        )
    if url.get_backend_name() != "sqlite":
        return create_engine(url, json_deserializer=_json)
    file = sqlite_file(url)
    if file is not None and _can_only_be_read(file):
        location = f"file:{quote(str(file.absolute()))}?immutable=1"
        engine = create_engine(
            url,
            json_deserializer=_json,
            creator=lambda: sqlite3.connect(location, uri=True, check_same_thread=False),
        )
    else:
        engine = create_engine(url, json_deserializer=_json, connect_args={"timeout": _BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _json(text: Any) -> Any:
    """What a column holds; ``None`` where that is damaged, so that no row keeps others from being read."""
    try:
        return json_from(text)
    except (ValueError, TypeError):
        return None


def _can_only_be_read(file: Path) -> bool:
    """In a folder that cannot be written SQLite cannot keep its log, not even to read; nor can anybody else.

    What another process left in a log must not be passed over, though.
    """
    log = Path(f"{file}-wal")
    return (
        file.is_file() and not os.access(file.parent, os.W_OK) and not (log.exists() and log.stat().st_size)
    )


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # The driver would end a query at a text that is damaged.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    connection.execute("PRAGMA foreign_keys = ON")
    # Without it, INSERT OR REPLACE would remove rows past the triggers that keep them.
    connection.execute("PRAGMA recursive_triggers = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
