"""A digest of every measurement, so that merged databases hold each once; tables of evidence.

The digests are those of ``latency_db.store.rows`` at this schema, spelt out here, since a migration must
stay as it is. Rows that are equal in every column are told apart by a number in their provenance.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import sqlalchemy as sa
from alembic import op

from latency_db.store.database import require_order
from latency_db.store.schema import keep_for_ever

revision = "2"
down_revision = "1"

_BATCH = 500


def _part(name: str) -> sa.Column[str]:
    key = sa.ForeignKey(f"{name}s.digest", name=f"fk_measurements_{name}")
    return sa.Column(name, sa.String, key, nullable=False)


_measurements = sa.Table(
    "measurements",
    sa.MetaData(),
    sa.Column("id", sa.Integer),
    _part("workload"),
    _part("runtime"),
    _part("device"),
    _part("protocol"),
    sa.Column("instance", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("artifact_digest", sa.String, nullable=False),
    sa.Column("verdict", sa.String, nullable=False),
    sa.Column("reasons", sa.JSON, nullable=False),
    sa.Column("launches", sa.LargeBinary),
    sa.Column("started_at", sa.String, nullable=False),
    sa.Column("provenance", sa.JSON, nullable=False),
    sa.Column("digest", sa.String),
    sa.CheckConstraint(
        "verdict IN ('valid', 'degraded', 'invalid', 'failed')", name="ck_measurements_known_verdict"
    ),
    sa.CheckConstraint(
        "(verdict = 'failed') = (launches IS NULL)", name="ck_measurements_failures_have_no_times"
    ),
    sa.PrimaryKeyConstraint("id", name="pk_measurements"),
    sa.Index("ix_measurements_workload_runtime_device_protocol", "workload", "runtime", "device", "protocol"),
    sqlite_autoincrement=True,
)


def upgrade() -> None:
    """From schema 1 to 2."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        op.execute("DROP TRIGGER measurements_keep_on_UPDATE")
        op.execute("DROP TRIGGER measurements_keep_on_DELETE")
    op.add_column("measurements", sa.Column("digest", sa.String))
    _fill_digests(connection)
    with op.batch_alter_table(
        "measurements", copy_from=_measurements, table_kwargs={"sqlite_autoincrement": True}
    ) as batch:
        batch.alter_column("digest", existing_type=sa.String(), nullable=False)
    op.create_index("ix_measurements_digest", "measurements", ["digest"], unique=True)
    op.create_index("ix_measurements_target_verdict", "measurements", ["target", "verdict"])
    op.create_index("ix_measurements_started_at", "measurements", ["started_at"])
    keep_for_ever(connection, "measurements")
    _create_evidence()
    keep_for_ever(connection, "evidence")


def _fill_digests(connection: sa.Connection) -> None:
    seen: dict[str, int] = {}
    last = 0
    while True:
        rows = connection.execute(
            sa.select(_measurements)
            .where(_measurements.c.id > last)
            .order_by(_measurements.c.id)
            .limit(_BATCH)
        ).all()
        if not rows:
            return
        for row in rows:
            last = require_order(last, row.id, connection.engine.url)
        changes = [_change(dict(row._mapping), seen) for row in rows]
        connection.execute(
            sa.update(_measurements)
            .where(_measurements.c.id == sa.bindparam("row_id"))
            .values(digest=sa.bindparam("row_digest"), provenance=sa.bindparam("row_provenance")),
            changes,
        )


def _change(row: dict[str, Any], seen: dict[str, int]) -> dict[str, Any]:
    digest = _digest(row)
    seen[digest] = seen.get(digest, 0) + 1
    if seen[digest] > 1:
        row["provenance"] = {**row["provenance"], "repetition": seen[digest]}
        digest = _digest(row)
    return {"row_id": row["id"], "row_digest": digest, "row_provenance": row["provenance"]}


def _digest(row: dict[str, Any]) -> str:
    content = {name: value for name, value in row.items() if name not in ("id", "digest")}
    if row["launches"] is not None:
        try:
            launches = zlib.decompress(row["launches"])
        except zlib.error:
            # A damaged row stays what it is, and check finds it; it must not keep the others from migrating.
            launches = row["launches"]
        content["launches"] = hashlib.sha256(launches).hexdigest()
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _create_evidence() -> None:
    op.create_table(
        "evidence_sources",
        sa.Column("digest", sa.String),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("imported_at", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_evidence_sources"),
    )
    op.create_table(
        "evidence",
        sa.Column("id", sa.Integer),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.Column("workload", sa.String, nullable=False),
        sa.Column("latency_ns", sa.Float),
        sa.Column("count", sa.Integer),
        sa.Column("variance_ns2", sa.Float),
        sa.Column("flag", sa.String, nullable=False),
        sa.CheckConstraint(
            "flag IN ('', 'missing', 'impossible', 'failed-run')", name="ck_evidence_known_flag"
        ),
        sa.CheckConstraint(
            "(flag IN ('missing', 'impossible')) = (latency_ns IS NULL)",
            name="ck_evidence_only_times_are_kept",
        ),
        sa.CheckConstraint("latency_ns > 0", name="ck_evidence_latency_is_positive"),
        sa.UniqueConstraint("source", "device", "row", name="uq_evidence_source_device_row"),
        sa.ForeignKeyConstraint(["source"], ["evidence_sources.digest"], name="fk_evidence_source"),
        sa.PrimaryKeyConstraint("id", name="pk_evidence"),
        sqlite_autoincrement=True,
    )
