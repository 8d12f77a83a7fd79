from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from devices.digests import value_digest
from latency_db.errors import StoreError
from latency_db.store.database import transact
from latency_db.store.exchange import export_file, import_file
from latency_db.store.maintenance import Merged, check, clear, merge
from latency_db.store.opening import backups_of
from latency_db.store.published import (
    Page,
    PublishedLatency,
    PublishedSource,
    add_published,
    published_rows,
    put_published,
    sources,
)
from latency_db.store.reading import records
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
from tests.small_disks import small_disk

OLD = Path(__file__).with_name("data") / "schema_1.db"
TARGET = "host/onnxruntime:fp32@1"


def fill(store: Store, first: int, last: int) -> None:
    store.add_all(
        [(block(str(n)), RUNTIME, DEVICE, PROTOCOL, measurement(n + 1)) for n in range(first, last)]
    )


def add_table(store: Store, name: str = "table") -> None:
    cells: list[PublishedLatency] = [
        {"row": 0, "workload": "conv", "latency_ns": 4e6, "count": 949, "variance_ns2": 1.0, "flag": ""},
        {
            "row": 1,
            "workload": "broken",
            "latency_ns": None,
            "count": None,
            "variance_ns2": None,
            "flag": "impossible",
        },
    ]
    source = PublishedSource(name, value_digest(name), "csv", "ms", 4, ())
    assert add_published(store, source, [[Page("pixel", cells)], [Page("board", cells)]]) == 4


def published_of(store: Store) -> list[dict[str, object]]:
    return [row for batch in published_rows(store) for row in batch]


def test_merge_joins_without_loss_or_duplicates_and_can_be_repeated(new_location: Callable[[], str]) -> None:
    here, there = new_location(), new_location()
    with open_store(there) as store:
        fill(store, 0, 700)
        add_table(store)
    with open_store(here) as store:
        fill(store, 700, 710)
        assert merge(store, there) == Merged(700, 700, 4, 4, 0)
        assert merge(store, there) == Merged(700, 0, 4, 0, 0)
        assert store.count() == 710
        for n in range(0, 710, 7):
            assert store.find(key_of(block(str(n)))) == measurement(n + 1)
    with open_store(there) as store:
        assert store.count() == 700
        assert merge(store, here) == Merged(710, 10, 4, 0, 0)
        assert check(store).problems == ()


def test_merge_carries_published_latencies_with_its_sources_and_completes_what_was_cut(
    new_location: Callable[[], str],
) -> None:
    here, there = new_location(), new_location()
    with open_store(there) as store:
        add_table(store)
        add_table(store, "another table")
        published, told = published_of(store), sources(store)
    with open_store(here) as store:
        put_published(store, told[0], [[Page("pixel", [cell_of(published[0])])]])
        assert any("1 of 4 rows are there" in problem for problem in check(store).problems)
        assert merge(store, there) == Merged(0, 0, 8, 7, 0)
        assert published_of(store) == published
        assert sources(store) == told
        assert check(store).problems == ()
        assert store.count() == 0


def cell_of(row: dict[str, Any]) -> PublishedLatency:
    return PublishedLatency(**{name: row[name] for name in PublishedLatency.__annotations__})  # type: ignore[typeddict-item]


def test_merge_takes_an_older_file_and_leaves_it_as_it_is(location: str, tmp_path: Path) -> None:
    old = Path(shutil.copy(OLD, tmp_path / "old.db"))
    before = old.read_bytes()
    copies = []
    for name in ("one", "two"):
        with open_store(str(tmp_path / f"{name}.db")) as store:
            merge(store, str(old))
            copies.append(str(tmp_path / f"{name}.db"))
    with open_store(location) as store:
        assert merge(store, str(old)).added == 6
        assert [merge(store, copy).added for copy in copies] == [0, 0]
        assert store.count() == 6
    assert old.read_bytes() == before
    assert backups_of(old) == []


def test_merge_leaves_damaged_rows_out_and_counts_them(tmp_path: Path) -> None:
    with open_store(str(tmp_path / "other.db")) as other:
        fill(other, 0, 3)
        damage(other, "UPDATE measurements SET launches = x'00' WHERE id = 2")
    with open_store("sqlite://") as store:
        assert merge(store, str(tmp_path / "other.db")) == Merged(3, 2, 0, 0, 1)
        assert check(store).problems == ()


DAMAGES = (
    "UPDATE measurements SET launches = x'00' WHERE id = 2",
    "UPDATE measurements SET target = CAST(x'ff' AS TEXT) WHERE id = 2",
    "UPDATE measurements SET reasons = '{' WHERE id = 2",
    """UPDATE workloads SET content = '{"kind": "network", "description": "x"}'""",
    "UPDATE workloads SET content = 'null'",
    "UPDATE workloads SET content_digest = NULL",
    "UPDATE runtimes SET content = '{'",
    "UPDATE devices SET content = '[]'",
    "DELETE FROM protocols",
)


@pytest.mark.parametrize("statement", DAMAGES)
def test_merge_puts_sound_rows_in_the_place_of_damaged_ones(tmp_path: Path, statement: str) -> None:
    with open_store(str(tmp_path / "sound.db")) as sound:
        fill(sound, 0, 3)
    shutil.copy(tmp_path / "sound.db", tmp_path / "damaged.db")
    with open_store(str(tmp_path / "damaged.db")) as store:
        damage(store, statement)
        assert check(store).count
        merge(store, str(tmp_path / "sound.db"))
        assert check(store).problems == ()
        assert store.count() == 3
        with pytest.raises(StoreError, match="kept for ever"):
            transact(store.engine, lambda connection: connection.execute(text("DELETE FROM measurements")))
        with pytest.raises(StoreError, match="kept for ever"):
            transact(store.engine, lambda each: each.execute(text("UPDATE measurements SET target = 'x'")))


@pytest.mark.parametrize("statement", DAMAGES)
def test_a_damaged_row_keeps_no_other_from_being_exported(tmp_path: Path, statement: str) -> None:
    with open_store(str(tmp_path / "damaged.db")) as store, open_store("sqlite://") as other:
        fill(store, 0, 3)
        damage(store, statement)
        exported = export_file(store, tmp_path / "rows.json")
        assert exported.rows + exported.damaged == 3
        assert exported.damaged
        if exported.rows:
            assert import_file(other, tmp_path / "rows.json").added == exported.rows


def test_a_server_takes_sound_rows_in_the_place_of_damaged_ones(
    server: PostgresqlServer, tmp_path: Path
) -> None:
    with open_store(str(tmp_path / "sound.db")) as sound:
        fill(sound, 0, 3)
    with open_store(server.new_database()) as store:
        merge(store, str(tmp_path / "sound.db"))
        with store.engine.begin() as connection:
            connection.execute(text("ALTER TABLE measurements DISABLE TRIGGER measurements_keep"))
            connection.execute(text("UPDATE measurements SET target = 'faster' WHERE id = 2"))
            connection.execute(text("ALTER TABLE measurements ENABLE TRIGGER measurements_keep"))
            connection.execute(text("UPDATE workloads SET content = 'null'"))
        assert check(store).count
        merge(store, str(tmp_path / "sound.db"))
        assert check(store).problems == ()


@pytest.mark.parametrize("name", ["missing.db", "empty.db", "folder"])
def test_merge_refuses_what_is_no_database_and_does_not_create_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.db").touch()
    (tmp_path / "folder").mkdir()
    with open_store("sqlite://") as store, pytest.raises(StoreError) as caught:
        merge(store, str(tmp_path / name))
    assert caught.value.fix
    assert not (tmp_path / "missing.db").exists()


def damage(store: Store, *statements: str) -> None:
    with store.engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.execute(text("DROP TRIGGER IF EXISTS measurements_keep_on_UPDATE"))
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.execute(
            text(
                "CREATE TRIGGER measurements_keep_on_UPDATE BEFORE UPDATE ON measurements"
                " BEGIN SELECT RAISE(ABORT, 'measurements are kept for ever'); END"
            )
        )


def test_check_is_content_with_a_sound_database(store: Store) -> None:
    fill(store, 0, 3)
    store.add(block("c"), RUNTIME, DEVICE, PROTOCOL, failure())
    add_table(store)
    found = check(store)
    assert (found.rows, found.problems, found.count) == (4, (), 0)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "UPDATE measurements SET launches = x'00' WHERE id = 2",
            "measurement 2: it is not as it was written",
        ),
        (
            "UPDATE measurements SET target = 'faster' WHERE id = 2",
            "measurement 2: it is not as it was written",
        ),
        ("UPDATE measurements SET reasons = '{' WHERE id = 2", "its JSON is damaged"),
        ("UPDATE devices SET content = '{}'", "its content does not fit its digest"),
        ("UPDATE workloads SET content = '[]'", "its content is not one of a workload"),
        (
            """UPDATE workloads SET content = '{"kind": "network", "description": "0"}'""",
            "its content does not fit its digest",
        ),
        ("UPDATE workloads SET content_digest = NULL", "its content does not fit its digest"),
        ("UPDATE measurements SET target = CAST(x'ff' AS TEXT)", "it is not as it was written"),
        ("UPDATE runtimes SET content = '{'", "its JSON is damaged"),
        ("DELETE FROM runtimes", "refers to nothing in runtimes"),
        ("DROP TRIGGER measurements_keep_on_DELETE", "measurements_keep_on_DELETE, which keeps rows"),
        (
            "INSERT INTO published_sources VALUES ('s', 'cut', '{\"cells\": 5}', 'now')",
            "published table cut: 0 of 5 rows are there",
        ),
    ],
)
def test_check_names_what_is_damaged(tmp_path: Path, statement: str, problem: str) -> None:
    with open_store(str(tmp_path / "latency.db")) as store:
        fill(store, 0, 3)
        damage(store, statement)
        found = check(store)
        assert found.count >= 1
        assert any(problem in each for each in found.problems), found.problems


def test_clear_removes_copies_and_unused_parts_but_no_measurement(tmp_path: Path) -> None:
    path = Path(shutil.copy(OLD, tmp_path / "latency.db"))
    with open_store(str(path)) as store:
        with store.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO devices VALUES ('unused', '{}')")
            connection.exec_driver_sql("DELETE FROM devices WHERE digest = 'never'")
        (backup,) = backups_of(path)
        with pytest.raises(StoreError, match="nothing was cleared"):
            clear(store)  # The unused part does not fit its digest, so that something is wrong.
        assert backup.exists()
        with store.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM devices WHERE digest = 'unused'")
            content = {"kind": "block", "description": "d"}
            connection.exec_driver_sql(
                "INSERT INTO workloads VALUES ('unused', ?, ?)", (json.dumps(content), value_digest(content))
            )
        rehearsed = clear(store, rehearse=True)
        assert (rehearsed.backups, rehearsed.parts) == ((backup.name,), 1)
        assert backup.exists()
        assert clear(store) == rehearsed
        assert not backup.exists()
        assert clear(store).parts == 0
        assert store.count() == 6
        assert check(store).problems == ()


def test_clear_keeps_copies_that_hold_more_than_the_database(tmp_path: Path) -> None:
    path = tmp_path / "latency.db"
    open_store(str(path)).close()
    shutil.copy(OLD, tmp_path / "latency.db.schema-1.20260101T000000.backup")
    with open_store(str(path)) as store, pytest.raises(StoreError, match="may be needed") as caught:
        clear(store)
    assert "has 6 rows of measurements that the database lacks" in caught.value.why
    assert len(backups_of(path)) == 1


def test_clear_keeps_copies_that_hold_more_published_latencies_than_the_database(tmp_path: Path) -> None:
    path, backup = tmp_path / "latency.db", tmp_path / "latency.db.schema-2.20260101T000000.backup"
    with open_store(str(backup)) as store:
        add_table(store)
    with open_store(str(path)) as store:
        with pytest.raises(StoreError, match="may be needed") as caught:
            clear(store)
        assert "has 4 rows of published_latencies that the database lacks" in caught.value.why
        assert backup.exists()
        merge(store, str(backup))
        assert backup.name in clear(store).backups
        assert not backup.exists()


def test_clear_keeps_a_copy_with_the_only_rows_however_many_others_the_database_has(tmp_path: Path) -> None:
    path = tmp_path / "latency.db"
    old = Path(shutil.copy(OLD, tmp_path / "latency.db.schema-1.20260101T000000.backup"))
    newer = tmp_path / "latency.db.schema-4.20260102T000000.backup"
    with open_store(str(tmp_path / "other.db")) as store:
        fill(store, 0, 2)
        add_table(store, "its own table")
    shutil.copy(tmp_path / "other.db", newer)
    with open_store(str(path)) as store:
        fill(store, 10, 30)
        add_table(store, "a table")
        add_table(store, "another table")
        merge(store, str(old))
        with pytest.raises(StoreError, match="nothing was cleared") as caught:
            clear(store)
        assert caught.value.why == f"{newer.name} has 2 rows of measurements that the database lacks"
        assert backups_of(path) == [old, newer]
        fill(store, 0, 2)  # The same latencies measured once more are other rows.
        with pytest.raises(StoreError, match="nothing was cleared"):
            clear(store)
        merge(store, str(newer))
        assert clear(store).backups == (old.name, newer.name)
        assert backups_of(path) == []


@pytest.mark.parametrize("first", [0, 4096])
def test_clear_keeps_everything_where_a_copy_is_damaged(tmp_path: Path, first: int) -> None:
    path = Path(shutil.copy(OLD, tmp_path / "latency.db"))
    with open_store(str(path)) as store:
        (backup,) = backups_of(path)
        content = bytearray(backup.read_bytes())
        content[first:] = b"\xa5" * (len(content) - first)
        backup.write_bytes(content)
        with pytest.raises(StoreError, match="nothing was cleared") as caught:
            clear(store)
        assert caught.value.why.startswith(f"{backup.name} cannot be compared")
        assert backups_of(path) == [backup]


def test_an_older_file_that_cannot_be_copied_is_neither_merged_nor_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Path(shutil.copy(OLD, tmp_path / "old.db"))
    path = tmp_path / "latency.db"
    backup = Path(shutil.copy(OLD, tmp_path / "latency.db.schema-1.20260101T000000.backup"))
    with small_disk(tmp_path / "temporary", "40k") as disk, open_store(str(path)) as store:
        monkeypatch.setattr(tempfile, "tempdir", str(disk.path))
        with pytest.raises(StoreError, match=r"old\.db cannot be copied") as caught:
            merge(store, str(old))
        assert "full" in caught.value.why
        with pytest.raises(StoreError, match="nothing was cleared"):
            clear(store)
    assert backup.exists()


def test_clear_removes_unused_parts_on_every_database(store: Store) -> None:
    fill(store, 0, 2)
    with store.engine.begin() as connection:
        connection.execute(text("INSERT INTO protocols VALUES ('unused', '{}')"))
    assert clear(store).parts == 1
    assert check(store).problems == ()
    fill(store, 2, 3)


def test_a_damaged_file_is_not_merged_silently(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with open_store(str(path)) as other:
        fill(other, 0, 50)
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)
    with open_store("sqlite://") as store, pytest.raises(StoreError, match="damaged"):
        merge(store, str(path))
    with closing(sqlite3.connect(path)):
        assert path.read_bytes() == bytes(content)


def put_out_of_order(file: Path, table: str) -> None:
    """Exchange the first and the last row of a table, as damage to its file may do."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (root,) = connection.execute(query, (table,)).fetchone()
    content = bytearray(file.read_bytes())
    page = (root - 1) * size

    def number(place: int) -> int:
        return int.from_bytes(content[place : place + 2], "big")

    # Source: "Database File Format" of SQLite, "B-tree Pages".
    if content[page] in {0x0A, 0x0D}:
        # A leaf: its cells are found by an array of pointers after the header.
        first, length = page + 8, 2
        last = first + length * (number(page + 3) - 1)
    else:
        # Pages below it: the first cell begins with the number of one, the last one stands in the header.
        first, last, length = page + number(page + 12), page + 8, 4
    assert first != last
    here, there = slice(first, first + length), slice(last, last + length)
    content[here], content[there] = content[there], content[here]
    file.write_bytes(content)


@pytest.mark.parametrize("table", ["measurements", "published_latencies"])
def test_rows_out_of_order_end_in_an_error_and_are_not_read_for_ever(tmp_path: Path, table: str) -> None:
    file = tmp_path / "latency.db"
    with open_store(str(file)) as store:
        fill(store, 0, 9)
        add_table(store)
    put_out_of_order(file, table)
    with open_store(str(file)) as store, pytest.raises(StoreError, match="is damaged") as error:
        list(records(store))
        published_of(store)
    assert error.value.exit_code == 8
    assert "comes after row" in str(error.value)


def test_an_old_file_with_rows_out_of_order_is_not_migrated_for_ever(tmp_path: Path) -> None:
    file = Path(shutil.copy(OLD, tmp_path / "latency.db"))
    put_out_of_order(file, "measurements")
    with pytest.raises(StoreError, match="is damaged"):
        open_store(str(file))
