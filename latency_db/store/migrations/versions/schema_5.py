"""A digest of what is kept of a workload, since its identity is that of a content which is not kept."""

from __future__ import annotations

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"

_workloads = sa.table("workloads", sa.column("digest"), sa.column("content"), sa.column("content_digest"))


def upgrade() -> None:
    """From schema 4 to 5; content that is damaged gets no digest."""
    op.add_column("workloads", sa.Column("content_digest", sa.String))
    connection = op.get_bind()
    rows = connection.execute(sa.select(_workloads.c.digest, sa.cast(_workloads.c.content, sa.String))).all()
    for digest, text in rows:
        try:
            content = json.loads(text)
            canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            continue
        content_digest = hashlib.sha256(canonical.encode()).hexdigest()
        connection.execute(
            sa.update(_workloads).where(_workloads.c.digest == digest).values(content_digest=content_digest)
        )
