"""Evidence by series: the digest of its source and its device are written once, not with every latency."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from latency_db.store.schema import keep_for_ever

revision = "3"
down_revision = "2"

_COLUMNS = ("row", "workload", "latency_ns", "count", "variance_ns2", "flag")


def upgrade() -> None:
    """From schema 2 to 3."""
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        op.execute("DROP TRIGGER evidence_keep_on_UPDATE")
        op.execute("DROP TRIGGER evidence_keep_on_DELETE")
    else:
        op.execute("DROP FUNCTION evidence_keep() CASCADE")
        # There the names of these belong to the database, not to the table.
        op.drop_constraint("pk_evidence", "evidence")
        op.drop_constraint("uq_evidence_source_device_row", "evidence")
    op.rename_table("evidence", "evidence_of_schema_2")
    old = sa.table("evidence_of_schema_2", *map(sa.column, ("source", "device", *_COLUMNS)))
    series = _create_series()
    evidence = _create_evidence()
    named = sa.select(old.c.source, old.c.device).distinct().order_by(old.c.source, old.c.device)
    op.execute(series.insert().from_select(["source", "device"], named))
    numbered = (
        sa.select(series.c.id, *(old.c[name] for name in _COLUMNS))
        .join(series, sa.and_(series.c.source == old.c.source, series.c.device == old.c.device))
        .order_by(series.c.id, old.c.row)
    )
    op.execute(evidence.insert().from_select(["series", *_COLUMNS], numbered))
    op.drop_table("evidence_of_schema_2")
    keep_for_ever(connection, "evidence_series")
    keep_for_ever(connection, "evidence")


def _create_series() -> sa.Table:
    return op.create_table(
        "evidence_series",
        sa.Column("id", sa.Integer),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.UniqueConstraint("source", "device", name="uq_evidence_series_source_device"),
        sa.ForeignKeyConstraint(["source"], ["evidence_sources.digest"], name="fk_evidence_series_source"),
        sa.PrimaryKeyConstraint("id", name="pk_evidence_series"),
    )


def _create_evidence() -> sa.Table:
    return op.create_table(
        "evidence",
        sa.Column("series", sa.Integer),
        sa.Column("row", sa.Integer, autoincrement=False),
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
        sa.ForeignKeyConstraint(["series"], ["evidence_series.id"], name="fk_evidence_series"),
        sa.PrimaryKeyConstraint("series", "row", name="pk_evidence"),
        sqlite_with_rowid=False,
    )
