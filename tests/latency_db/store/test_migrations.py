"""``data/schema_N.db`` was written by the release whose schema was N."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, create_engine, event, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

import latency_db.store.migrations
from devices.measurement.measurement import Measurement, Verdict
from latency_db.errors import StoreError
from latency_db.store import schema
from latency_db.store.keys import Key
from latency_db.store.maintenance import check
from latency_db.store.opening import backups_of, read_version
from latency_db.store.published import published_rows
from latency_db.store.rows import digest_of
from latency_db.store.schema import SCHEMA_VERSION
from latency_db.store.store import Store, open_store
from tests.latency_db.measurement_samples import (
    DEVICE,
    PROTOCOL,
    RUNTIME,
    block,
    failure,
    key_of,
    measurement,
)
from tests.latency_db.postgresql_server import PostgresqlServer

DATA = Path(__file__).with_name("data")
ROWS = {1: 6, 2: 7, 3: 7, 4: 7}
KEPT = {
    1: (),
    2: ("measurements", "evidence"),
    3: ("measurements", "evidence", "evidence_series"),
    4: ("measurements", "published_latencies", "published_series"),
}
PUBLISHED = {
    ("blocks.csv", "Pixel 1", 0, "block=Conv in_h=224", 4.5e6, 949, 0.25e12, ""),
    ("blocks.csv", "Pixel 1", 1, "block=Logits in_h=7", 0.5e6, 949, 0.01e12, ""),
    ("blocks.csv", "Pixel 1", 2, "block=broken in_h=7", None, None, None, "impossible"),
    ("blocks.csv", "Pixel 1", 3, "block=lost in_h=7", None, None, None, "missing"),
    ("two devices", "phone", 0, "network=a", 1.5e6, None, None, ""),
    ("two devices", "board", 1, "network=a", 2.5e6, None, None, ""),
    ("two devices", "phone", 2, "network=b", 3.5e6, None, None, ""),
    ("two devices", "board", 3, "network=b", 4.5e6, None, None, ""),
}


def original(schema_before: int) -> Path:
    return DATA / f"schema_{schema_before}.db"


@pytest.fixture(params=sorted(ROWS))
def schema_before(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def old(schema_before: int, tmp_path: Path) -> Path:
    return Path(shutil.copy(original(schema_before), tmp_path / "latency.db"))


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT version FROM lathe_schema").fetchone()[0])


def content(path: Path) -> list[Any]:
    """What every schema knows of the measurements; repetitions got a number in their provenance."""
    columns = "id, workload, runtime, device, protocol, instance, target, artifact_digest, verdict, reasons"
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            f"SELECT {columns}, launches, started_at FROM measurements ORDER BY id"
        ).fetchall()


def old_key(store: Store, row: int) -> Key:
    """The key of a row of the old file; those of today's identities may have further fields."""
    columns = [schema.measurements.c[part] for part in schema.PARTS]
    with store.engine.connect() as connection:
        return Key(*connection.execute(select(*columns).where(schema.measurements.c.id == row)).one())


def assert_holds_what_it_held(store: Store, schema_before: int) -> None:
    assert store.count() == ROWS[schema_before]
    for row, name, latency_ns in ((1, "host", 1000), (5, "board", 4000)):
        found = store.find(old_key(store, row))
        assert isinstance(found, Measurement)
        assert found.launches == measurement(latency_ns).launches
        assert (found.verdict, found.device.machine, found.device.emulated) == (
            Verdict.VALID,
            name,
            name == "board",
        )
    assert store.find(old_key(store, 3)) is None
    assert "never validly" in store.explain_miss(old_key(store, 3))
    assert store.find(old_key(store, 4)) == failure()
    if schema_before >= 2:
        assert store.find(old_key(store, 7)) == measurement(6000)
    columns = ("source", "device", "row", "workload", "latency_ns", "count", "variance_ns2", "flag")
    found = [tuple(row[name] for name in columns) for batch in published_rows(store) for row in batch]
    assert len(found) == len(set(found))
    assert set(found) == (PUBLISHED if schema_before >= 2 else set())


def assert_rows_carry_their_digests(store: Store, schema_before: int) -> None:
    with store.engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(select(schema.measurements))]
    assert [row["digest"] for row in rows] == [digest_of(row) for row in rows]
    assert len({row["digest"] for row in rows}) == ROWS[schema_before]


def test_open_store_migrates_an_older_file_and_loses_nothing(old: Path, schema_before: int) -> None:
    before = content(old)
    with open_store(str(old)) as store:
        assert_holds_what_it_held(store, schema_before)
        assert_rows_carry_their_digests(store, schema_before)
        assert check(store).problems == ()
        store.add(block("a"), RUNTIME, DEVICE, PROTOCOL, measurement(5000))
        assert store.find(key_of(block("a"))) == measurement(5000)
    assert version(old) == SCHEMA_VERSION
    assert content(old)[:-1] == before


def test_digests_stay_as_they_are_once_they_were_written(tmp_path: Path) -> None:
    query = "SELECT digest FROM measurements ORDER BY id"
    with closing(sqlite3.connect(original(2))) as connection:
        before = connection.execute(query).fetchall()
    path = shutil.copy(original(2), tmp_path / "latency.db")
    open_store(str(path)).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(query).fetchall() == before


def test_open_store_copies_the_file_before_it_migrates_it(old: Path, schema_before: int) -> None:
    open_store(str(old)).close()
    (backup,) = backups_of(old)
    assert version(backup) == schema_before
    assert content(backup) == content(original(schema_before))
    with open_store(str(backup)) as store:
        assert_holds_what_it_held(store, schema_before)


def test_open_store_copies_what_is_only_in_the_write_ahead_log(old: Path) -> None:
    with closing(sqlite3.connect(old)) as writer:
        writer.execute("INSERT INTO workloads VALUES ('logged', '{}')")
        writer.commit()
        assert old.with_name("latency.db-wal").stat().st_size > 0
        open_store(str(old)).close()
        with closing(sqlite3.connect(backups_of(old)[0])) as copy:
            assert copy.execute("SELECT count(*) FROM workloads WHERE digest = 'logged'").fetchone() == (1,)


def test_a_second_open_changes_nothing_and_does_not_import_alembic(old: Path) -> None:
    open_store(str(old)).close()
    before = old.read_bytes()
    code = (
        "import sys; from latency_db.store.store import open_store; open_store(sys.argv[1]).close();"
        "print('alembic' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code, old], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"
    assert old.read_bytes() == before
    assert len(backups_of(old)) == 1


def structure(path: Path) -> set[tuple[str, str, str]]:
    query = "SELECT type, name, coalesce(sql, '') FROM sqlite_master"
    with closing(sqlite3.connect(path)) as connection:
        return {
            (kind, name, "" if kind == "table" else " ".join(sql.replace('"', "").split()))
            for kind, name, sql in connection.execute(query)
        }


def test_a_migrated_file_has_the_structure_of_a_new_one(old: Path, tmp_path: Path) -> None:
    open_store(str(old)).close()
    open_store(str(tmp_path / "new.db")).close()
    assert structure(old) == structure(tmp_path / "new.db")
    for path in (old, tmp_path / "new.db"):
        with create_engine(f"sqlite:///{path}").connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM measurements",
        "UPDATE measurements SET target = 'x'",
        "REPLACE INTO measurements SELECT * FROM measurements",
        "INSERT INTO measurements SELECT 99, workload, runtime, device, protocol, instance, target,"
        " artifact_digest, 'splendid', reasons, launches, started_at, provenance, 'd' FROM measurements",
        "INSERT INTO measurements SELECT 99, workload, runtime, device, protocol, instance, target,"
        " artifact_digest, verdict, reasons, launches, started_at, provenance, NULL FROM measurements",
        "INSERT INTO measurements SELECT 99, 'nowhere', runtime, device, protocol, instance, target,"
        " artifact_digest, verdict, reasons, launches, started_at, provenance, 'd' FROM measurements",
    ],
)
def test_a_migrated_file_keeps_its_rows_and_its_constraints(
    old: Path, schema_before: int, statement: str
) -> None:
    with open_store(str(old)) as store:
        with pytest.raises(IntegrityError), store.engine.begin() as connection:
            connection.execute(text(statement))
        assert_holds_what_it_held(store, schema_before)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM published_latencies",
        "UPDATE published_latencies SET latency_ns = 1",
        "REPLACE INTO published_latencies SELECT * FROM published_latencies",
        "UPDATE published_series SET device = 'x'",
        "DELETE FROM published_series",
        "INSERT INTO published_latencies VALUES (1, 9, 'w', -1, NULL, NULL, '')",
        "INSERT INTO published_latencies VALUES (1, 9, 'w', NULL, NULL, NULL, '')",
        "INSERT INTO published_latencies VALUES (1, 9, 'w', 1, NULL, NULL, 'fine')",
        "INSERT INTO published_latencies VALUES (99, 9, 'w', 1, NULL, NULL, '')",
    ],
)
def test_a_migrated_file_keeps_its_published_latencies_and_its_constraints(
    tmp_path: Path, statement: str
) -> None:
    with open_store(str(shutil.copy(original(2), tmp_path / "latency.db"))) as store:
        with pytest.raises(IntegrityError), store.engine.begin() as connection:
            connection.execute(text(statement))
        assert_holds_what_it_held(store, 2)


def test_a_migration_that_is_killed_at_any_statement_leaves_the_old_or_the_new_state(
    old: Path, schema_before: int
) -> None:
    """The process is ended by SIGKILL before its n-th statement, for every n until one comes through."""
    before = content(old)
    left = []
    for number in range(200):
        shutil.copy(original(schema_before), old)
        child = os.fork()
        if child == 0:
            _open_and_die(str(old), number)
        _, status = os.waitpid(child, 0)
        left.append(version(old))
        assert content(old) == before
        if os.waitstatus_to_exitcode(status) == 0:
            break
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        with open_store(str(old)) as store:
            assert_holds_what_it_held(store, schema_before)
            assert_rows_carry_their_digests(store, schema_before)
        for leftover in (*backups_of(old), *old.parent.glob("latency.db-*")):
            leftover.unlink()
    assert len(left) > 8
    assert set(left[:-1]) <= {schema_before, SCHEMA_VERSION}
    assert left[-1] == SCHEMA_VERSION


def _open_and_die(path: str, number: int) -> None:
    """In a forked process: open the store, and die before statement ``number`` after the version was read."""
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    try:
        open_store(path).close()
    finally:
        os._exit(0)


def test_a_migration_that_is_refused_leaves_the_file_as_it_was(old: Path, schema_before: int) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("ALTER TABLE workloads ADD COLUMN content_digest TEXT")
    before = content(old)
    with pytest.raises(StoreError) as caught:
        open_store(str(old))
    assert "duplicate column name" in caught.value.why
    assert version(old) == schema_before
    assert content(old) == before


def test_a_migration_is_refused_when_no_copy_can_be_made(
    old: Path, schema_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    real = sqlite3.connect

    class Unfinished(sqlite3.Connection):
        backup = full

    monkeypatch.setattr(
        "latency_db.store.opening.sqlite3.connect", lambda path, **_: real(path, factory=Unfinished)
    )
    with pytest.raises(StoreError, match="cannot be copied before its migration") as caught:
        open_store(str(old))
    monkeypatch.undo()
    assert "disk space" in caught.value.fix
    assert version(old) == schema_before
    assert backups_of(old) == []


def test_two_processes_that_open_an_old_file_at_once_migrate_it_once(old: Path, schema_before: int) -> None:
    code = "import sys; from latency_db.store.store import open_store; print(open_store(sys.argv[1]).count())"
    command = [sys.executable, "-c", code, str(old)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == [f"{ROWS[schema_before]}\n"] * 2
    assert len(backups_of(old)) == 1


def test_a_migration_that_ends_while_the_schema_is_read_is_seen_whole(
    old: Path, schema_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(old)) as connection:
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
    open_store(str(old)).close()
    tables = iter([names])

    class Inspector:
        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def get_table_names(self) -> list[str]:
            return next(tables, None) or inspect(self._connection).get_table_names()

    monkeypatch.setattr(schema, "inspect", Inspector)
    assert read_version(str(old)) == schema.SCHEMA_VERSION
    assert next(tables, None) is None


def test_a_damaged_row_does_not_keep_the_others_from_migrating(old: Path, schema_before: int) -> None:
    with closing(sqlite3.connect(old)) as connection:
        connection.execute("DROP TRIGGER measurements_keep_on_UPDATE")
        connection.execute("UPDATE measurements SET launches = x'00' WHERE id = 2")
        connection.execute(
            "CREATE TRIGGER measurements_keep_on_UPDATE AFTER UPDATE ON lathe_schema BEGIN SELECT 1; END"
        )
        connection.commit()
    with open_store(str(old)) as store:
        assert_holds_what_it_held(store, schema_before)


def test_migrations_lead_one_by_one_to_the_present_schema() -> None:
    scripts = ScriptDirectory(str(Path(latency_db.store.migrations.__file__).parent))
    revisions = [revision.revision for revision in scripts.walk_revisions()]
    assert revisions == [str(number) for number in range(SCHEMA_VERSION, 0, -1)]


def test_open_store_migrates_an_older_server(server: PostgresqlServer, schema_before: int) -> None:
    url = server.new_database()
    _fill(url, schema_before)
    with open_store(url) as store:
        assert_holds_what_it_held(store, schema_before)
        assert_rows_carry_their_digests(store, schema_before)
        assert check(store).problems == ()
        store.add(block("a"), RUNTIME, DEVICE, PROTOCOL, measurement(5000, Verdict.DEGRADED))
        assert store.count() == ROWS[schema_before] + 1
        with store.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_a_migration_of_a_server_that_is_killed_leaves_the_old_or_the_new_state(
    server: PostgresqlServer,
) -> None:
    url = server.new_database()
    _fill(url, 2)
    kills = 0
    while read_version(url) == 2:
        child = os.fork()
        if child == 0:
            _open_and_die(url, 4 * kills)
        _, status = os.waitpid(child, 0)
        kills += os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert kills > 3
    with open_store(url) as store:
        assert_holds_what_it_held(store, 2)


def _fill(url: str, schema_before: int) -> None:
    """Copy the tables of an old file to a server, as the release of that schema would have made them."""
    old, new = create_engine(f"sqlite:///{original(schema_before)}"), create_engine(url)
    tables = MetaData(naming_convention=schema.metadata.naming_convention)
    tables.reflect(old)
    json_columns = {"content", "reasons", "provenance"}
    for table in tables.sorted_tables:
        for column in table.columns:
            if column.name in json_columns:
                column.type = schema.measurements.c.reasons.type
            if column.name == "launches":
                column.type = schema.measurements.c.launches.type
    with closing(old.connect()) as source, new.begin() as target:
        tables.create_all(target)
        for table in tables.sorted_tables:
            if table.name == "sqlite_sequence":
                continue
            rows = [dict(row._mapping) for row in source.execute(select(table))]
            target.execute(insert(table), rows)
        target.exec_driver_sql(f"SELECT setval('measurements_id_seq', {ROWS[schema_before]})")
        for kept in KEPT[schema_before]:
            schema.keep_for_ever(target, kept)
    old.dispose()
    new.dispose()
