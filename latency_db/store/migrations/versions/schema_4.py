"""Published latencies under that name; they were called evidence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from latency_db.store.schema import keep_for_ever

revision = "4"
down_revision = "3"

_OLD = ("evidence", "evidence_series", "evidence_sources")


def upgrade() -> None:
    """From schema 3 to 4."""
    connection = op.get_bind()
    sqlite = connection.dialect.name == "sqlite"
    for table in _OLD[:2]:
        if sqlite:
            op.execute(f"DROP TRIGGER {table}_keep_on_UPDATE")
            op.execute(f"DROP TRIGGER {table}_keep_on_DELETE")
        else:
            op.execute(f"DROP FUNCTION {table}_keep() CASCADE")
    # Copied, not renamed: SQLite cannot rename constraints.
    _create_tables()
    for new, old, order in (
        ("published_sources", "evidence_sources", "digest"),
        ("published_series", "evidence_series", "id"),
        ("published_latencies", "evidence", "series, row"),
    ):
        columns = ", ".join(f'"{column["name"]}"' for column in sa.inspect(connection).get_columns(old))
        op.execute(f"INSERT INTO {new} ({columns}) SELECT {columns} FROM {old} ORDER BY {order}")
    if not sqlite:
        op.execute(
            "SELECT setval(pg_get_serial_sequence('published_series', 'id'), max(id)) FROM published_series"
        )
    for table in _OLD:
        op.drop_table(table)
    keep_for_ever(connection, "published_series")
    keep_for_ever(connection, "published_latencies")


def _create_tables() -> None:
    op.create_table(
        "published_sources",
        sa.Column("digest", sa.String),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("imported_at", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_published_sources"),
    )
    op.create_table(
        "published_series",
        sa.Column("id", sa.Integer),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.UniqueConstraint("source", "device", name="uq_published_series_source_device"),
        sa.ForeignKeyConstraint(["source"], ["published_sources.digest"], name="fk_published_series_source"),
        sa.PrimaryKeyConstraint("id", name="pk_published_series"),
    )
    op.create_table(
        "published_latencies",
        sa.Column("series", sa.Integer),
        sa.Column("row", sa.Integer, autoincrement=False),
        sa.Column("workload", sa.String, nullable=False),
        sa.Column("latency_ns", sa.Float),
        sa.Column("count", sa.Integer),
        sa.Column("variance_ns2", sa.Float),
        sa.Column("flag", sa.String, nullable=False),
        sa.CheckConstraint(
            "flag IN ('', 'missing', 'impossible', 'failed-run')", name="ck_published_latencies_known_flag"
        ),
        sa.CheckConstraint(
            "(flag IN ('missing', 'impossible')) = (latency_ns IS NULL)",
            name="ck_published_latencies_only_times_are_kept",
        ),
        sa.CheckConstraint("latency_ns > 0", name="ck_published_latencies_latency_is_positive"),
        sa.ForeignKeyConstraint(["series"], ["published_series.id"], name="fk_published_latencies_series"),
        sa.PrimaryKeyConstraint("series", "row", name="pk_published_latencies"),
        sqlite_with_rowid=False,
    )
