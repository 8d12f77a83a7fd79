"""Bringing an older database to the present schema; alembic is imported only when there is something to do.

``versions`` holds one alembic revision for each schema, whose name is the schema's number. ``lathe_schema``
says where a database stands; alembic's own table of versions is not used, so the two cannot disagree.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, update

from latency_db.store.schema import lathe_schema


def migrate(connection: Connection, version: int) -> None:
    """Carry out every migration after schema ``version``, inside the caller's transaction."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).parent))
    with Operations.context(MigrationContext.configure(connection)):
        for revision in reversed(list(scripts.iterate_revisions("head", str(version)))):
            revision.module.upgrade()
            connection.execute(update(lathe_schema).values(version=int(revision.revision)))
