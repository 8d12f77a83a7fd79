"""Tables of the latency database, and the version by which a file says which tables it has.

Measurements are only ever added. Estimates have no table here.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    select,
)

from latency_db.errors import StoreError

SCHEMA_VERSION = 1

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


def _part_table(name: str) -> Table:
    """Contents of one part of the key as JSON, once per digest."""
    return Table(
        name, metadata, Column("digest", String, primary_key=True), Column("content", JSON, nullable=False)
    )


workloads = _part_table("workloads")
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
    Column("launches", LargeBinary, comment="zlib of the JSON of all launches with their raw samples"),
    Column("started_at", String, nullable=False),
    Column("provenance", JSON, nullable=False),
    CheckConstraint("verdict IN ('valid', 'degraded', 'invalid', 'failed')", name="known_verdict"),
    CheckConstraint("(verdict = 'failed') = (launches IS NULL)", name="failures_have_no_times"),
    Index(None, "workload", "runtime", "device", "protocol"),
    sqlite_autoincrement=True,
)

_SQLITE_APPEND_ONLY = """
CREATE TRIGGER measurements_keep_on_{event} BEFORE {event} ON measurements
BEGIN SELECT RAISE(ABORT, 'measurements are kept for ever'); END
"""


def is_prepared(connection: Connection) -> bool:
    """Whether the database has this schema; ``False`` if it is empty.

    Raises:
        StoreError: the database holds something else, or has a newer schema.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return False
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
    if versions[0] > SCHEMA_VERSION:
        raise StoreError(
            f"the latency database has schema {versions[0]}, newer than the {SCHEMA_VERSION} known here",
            why="a later version of Lathe wrote it; nothing in it was changed",
            fix="upgrade Lathe, or choose another file with --db",
        )
    return True


def create(connection: Connection) -> None:
    """Create all tables and write the version, inside the caller's transaction."""
    metadata.create_all(connection)
    if connection.dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(_SQLITE_APPEND_ONLY.format(event=event))
    connection.execute(insert(lathe_schema).values(version=SCHEMA_VERSION))
