"""Tables of the latency database, and the version by which a database says which tables it has.

Measurements and published latencies are only ever added. Estimates have no table here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    insert,
    inspect,
    select,
)

from latency_db.errors import StoreError

SCHEMA_VERSION = 5
"""1: measurements. 2: a digest of every row, so that merged databases hold each once; published
latencies. 3: these by series, in a third of the space. 4: under that name; they were called evidence.
5: a digest of what is kept of a workload, whose identity is that of a content which is not kept."""

# Named constraints can be altered by later migrations on every database.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

lathe_schema = Table(
    "lathe_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
)


def _part_table(name: str, *further: Column[Any]) -> Table:
    """Contents of one part of the key as JSON, once per digest."""
    key, content = Column("digest", String, primary_key=True), Column("content", JSON, nullable=False)
    return Table(name, metadata, key, content, *further)


workloads = _part_table("workloads", Column("content_digest", String))  # none where content is damaged
runtimes = _part_table("runtimes")
devices = _part_table("devices")
protocols = _part_table("protocols")

PARTS = {"workload": workloads, "runtime": runtimes, "device": devices, "protocol": protocols}

measurements = Table(
    "measurements",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("workload", ForeignKey("workloads.digest"), nullable=False),
    Column("runtime", ForeignKey("runtimes.digest"), nullable=False),
    Column("device", ForeignKey("devices.digest"), nullable=False),
    Column("protocol", ForeignKey("protocols.digest"), nullable=False),
    Column("instance", String, nullable=False),
    Column("target", String, nullable=False),
    Column("artifact_digest", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("launches", LargeBinary),  # zlib of the JSON of all launches with their raw samples
    Column("started_at", String, nullable=False),
    Column("provenance", JSON, nullable=False),
    Column("digest", String, nullable=False),  # of the rest of the row: latency_db.store.rows
    CheckConstraint("verdict IN ('valid', 'degraded', 'invalid', 'failed')", name="known_verdict"),
    CheckConstraint("(verdict = 'failed') = (launches IS NULL)", name="failures_have_no_times"),
    Index(None, "workload", "runtime", "device", "protocol"),
    Index(None, "digest", unique=True),
    Index(None, "target", "verdict"),
    Index(None, "started_at"),
    sqlite_autoincrement=True,
)

published_sources = Table(
    "published_sources",
    metadata,
    Column("digest", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("content", JSON, nullable=False),  # latency_db.store.published.Source
    Column("imported_at", String, nullable=False),
)

published_series = Table(  # what one source says of one device
    "published_series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("source", ForeignKey("published_sources.digest"), nullable=False),
    Column("device", String, nullable=False),  # as the file or the user calls it
    UniqueConstraint("source", "device"),
)

published_latencies = Table(
    "published_latencies",
    metadata,
    Column("series", ForeignKey("published_series.id"), primary_key=True),
    Column("row", Integer, primary_key=True, autoincrement=False),  # of the imported file, from 0
    Column("workload", String, nullable=False),  # as the file describes it
    Column("latency_ns", Float),
    Column("count", Integer),
    Column("variance_ns2", Float),
    Column("flag", String, nullable=False),
    CheckConstraint("flag IN ('', 'missing', 'impossible', 'failed-run')", name="known_flag"),
    CheckConstraint("(flag IN ('missing', 'impossible')) = (latency_ns IS NULL)", name="only_times_are_kept"),
    CheckConstraint("latency_ns > 0", name="latency_is_positive"),
    sqlite_with_rowid=False,
)

KEPT_FOR_EVER = (measurements, published_series, published_latencies)


def version_of(connection: Connection) -> int | None:
    """The schema version of the database; ``None`` if it is empty.

    Raises:
        StoreError: the database holds something else, lacks tables, or has a newer schema.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        return None
    if lathe_schema.name not in tables:
        raise StoreError(
            "this database is not a latency database",
            why=f"it holds the tables {', '.join(sorted(tables)[:5])} and no {lathe_schema.name}",
            fix="choose another file with --db",
        )
    versions = connection.scalars(select(lathe_schema.c.version)).all()
    if len(versions) != 1:
        raise StoreError(
            "the latency database does not say which schema it has",
            why=f"{lathe_schema.name} holds {len(versions)} rows instead of one",
            fix="restore the file from a copy, or choose another one with --db",
        )
    version = versions[0]
    if not isinstance(version, int) or version < 1:
        raise StoreError(
            "the latency database does not say which schema it has",
            why=f"{lathe_schema.name} says {version!r}",
            fix="restore the file from a copy, or choose another one with --db",
        )
    if version > SCHEMA_VERSION:
        raise _newer(version)
    if version < SCHEMA_VERSION:
        return version
    # Tables are looked at again after the version: another process may have migrated in between.
    if missing := metadata.tables.keys() - set(inspect(connection).get_table_names()):
        raise StoreError(
            f"the latency database lacks tables of its schema {version}",
            why=f"missing: {', '.join(sorted(missing))}",
            fix="restore it from a copy, or choose another one with --db",
        )
    return version


def require_known_schema(connection: Connection) -> None:
    """To be called in each transaction that writes: another version of Lathe may have migrated meanwhile.

    Raises:
        StoreError: the database has a newer schema.
    """
    version = connection.scalar(select(lathe_schema.c.version))
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise _newer(version)


def _newer(version: int) -> StoreError:
    return StoreError(
        f"the latency database has schema {version}, newer than the {SCHEMA_VERSION} known here",
        why="a later version of Lathe wrote it; nothing in it was changed",
        fix="upgrade Lathe, or choose another file with --db",
    )


def create(connection: Connection) -> None:
    """Create all tables and write the version, inside the caller's transaction."""
    metadata.create_all(connection)
    for table in KEPT_FOR_EVER:
        keep_for_ever(connection, table.name)
    connection.execute(insert(lathe_schema).values(version=SCHEMA_VERSION))


@contextmanager
def changeable(connection: Connection, table: Table) -> Iterator[None]:
    """Let rows be changed meanwhile, to put a sound one in the place of a damaged one."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table.name}_keep_on_UPDATE")
        yield
        _refuse(connection, table.name, "UPDATE")
    else:
        connection.exec_driver_sql(f"ALTER TABLE {table.name} DISABLE TRIGGER {table.name}_keep")
        yield
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ENABLE TRIGGER {table.name}_keep")


def _refuse(connection: Connection, table: str, event: str) -> None:
    connection.exec_driver_sql(
        f"CREATE TRIGGER {table}_keep_on_{event} BEFORE {event} ON {table}\n"
        f"BEGIN SELECT RAISE(ABORT, '{table} are kept for ever'); END"
    )


def keep_for_ever(connection: Connection, table: str) -> None:
    """Let the database itself refuse to change or remove rows of a table."""
    if connection.dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            _refuse(connection, table, event)
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            f"CREATE FUNCTION {table}_keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION '{table} are kept for ever'"
            " USING ERRCODE = 'integrity_constraint_violation'; END $$"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER {table}_keep BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {table}_keep()"
        )
