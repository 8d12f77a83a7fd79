from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from latency_db.errors import StoreError
from latency_db.store.opening import default_url
from latency_db.store.schema import SCHEMA_VERSION
from latency_db.store.store import Store, open_store
from tests.latency_db.measurement_samples import DEVICE, PROTOCOL, RUNTIME, block, key_of, measurement
from tests.places import ROOT

OLD = Path(__file__).with_name("data") / "schema_1.db"
WRITERS = "tests.latency_db.store.store_writers"


def add(store: Store, name: str) -> None:
    store.add(block(name), RUNTIME, DEVICE, PROTOCOL, measurement())


def filled(path: Path, rows: int = 1) -> Path:
    with open_store(str(path)) as store:
        for row in range(rows):
            add(store, str(row))
    return path


def writers(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", WRITERS, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def integrity(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def refusal(path: Path | str) -> StoreError:
    with pytest.raises(StoreError) as caught:
        open_store(str(path))
    assert caught.value.why
    assert caught.value.fix
    return caught.value


def test_default_url_is_in_the_users_data_folder_unless_the_environment_names_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LATHE_DB", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_url() == str(tmp_path / "lathe" / "latency.db")
    monkeypatch.setenv("LATHE_DB", str(tmp_path / "other.db"))
    with open_store():
        assert (tmp_path / "other.db").exists()


def test_open_store_uses_write_ahead_log_and_foreign_keys(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    with open_store(str(path)) as store, store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


def test_open_store_creates_the_tables_when_the_file_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "latency.db"
    path.touch()
    with open_store(f"sqlite:///{path}") as store:
        assert store.count() == 0


def test_open_store_refuses_when_the_file_is_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "latency.db"
    path.write_bytes(b"these are not the bytes of a database " * 100)
    before = path.read_bytes()
    assert "damaged" in refusal(path).what
    assert path.read_bytes() == before


def test_open_store_refuses_when_the_header_is_damaged(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])
    assert "damaged" in refusal(path).what


def test_store_reports_damage_when_pages_behind_the_header_are_overwritten(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db", rows=30)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"), open_store(str(path)) as store:
        store.find(key_of(block("0")))


def test_open_store_refuses_a_database_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id INTEGER)")
    assert "not a latency database" in refusal(path).what
    with sqlite3.connect(path) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("photos",)]


def test_open_store_refuses_when_the_schema_is_newer(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lathe_schema SET version = ?", [SCHEMA_VERSION + 1])
    error = refusal(path)
    assert f"schema {SCHEMA_VERSION + 1}" in error.what
    assert "upgrade" in error.fix
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM measurements").fetchone() == (1,)


def test_open_store_refuses_when_the_version_is_lost(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM lathe_schema")
    assert "which schema" in refusal(path).what


@pytest.mark.parametrize("number", [0, -1])
def test_open_store_refuses_when_the_version_is_none_that_ever_was(tmp_path: Path, number: int) -> None:
    path = filled(tmp_path / "latency.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE lathe_schema SET version = ?", [number])
    error = refusal(path)
    assert "which schema" in error.what
    assert f"says {number}" in error.why


def test_store_explains_when_a_column_is_lost(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE measurements DROP COLUMN provenance")
    with open_store(str(path)) as store:
        with pytest.raises(StoreError) as caught:
            store.find(key_of(block("0")))
        assert "no such column: measurements.provenance" in caught.value.why
        with pytest.raises(StoreError, match="could not carry out"):
            add(store, "1")


def test_open_store_refuses_when_a_table_is_lost(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE published_latencies")
    error = refusal(path)
    assert "lacks tables" in error.what
    assert "published_latencies" in error.why


@pytest.mark.parametrize("folder", ["a file/under", "/proc/lathe", "x" * 300])
def test_open_store_refuses_when_the_folder_cannot_be_written(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a file").write_text("not a folder")
    error = refusal(tmp_path / folder / "latency.db")
    assert "cannot be created" in error.what
    assert "--db" in error.fix


def test_open_store_refuses_when_the_path_is_a_folder(tmp_path: Path) -> None:
    assert "cannot be opened" in refusal(tmp_path).what


@pytest.mark.parametrize("url", ["nonsense://", "sqlite+missing:///x.db", "://"])
def test_open_store_refuses_when_the_url_is_unknown(url: str) -> None:
    assert refusal(url).exit_code == 8


def test_add_explains_when_the_database_is_read_only(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    with open_store(f"sqlite:///file:{path}?mode=ro&uri=true") as store:
        assert store.find(key_of(block("0"))) == measurement()
        with pytest.raises(StoreError, match="cannot be written"):
            add(store, "1")


def test_add_explains_and_keeps_the_rest_when_the_database_may_not_grow(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    with open_store(str(path)) as store:
        with store.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match="disk space"):
            for row in range(1, 1000):
                add(store, str(row))
    with open_store(str(path)) as store:
        assert store.find(key_of(block("0"))) == measurement()
    assert integrity(path) == "ok"


def test_add_explains_and_keeps_the_rest_when_the_disk_is_full(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    size = path.stat().st_size
    with writers(path, 1, 1000, size + 20_000) as process:
        output = process.communicate()[0]
    assert process.returncode == StoreError.exit_code
    assert "Fix: free some disk space" in output
    with open_store(str(path)) as store:
        assert store.count() == 1 + output.count("stored 0/")
        assert store.find(key_of(block("0"))) == measurement()
        add(store, "written after the disk was freed")
    assert integrity(path) == "ok"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small file system, and not in every container")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_store_keeps_what_it_reported_when_a_real_disk_fills_up(small_disk: Path) -> None:
    path = small_disk / "latency.db"
    with open_store(str(path)) as store:
        with pytest.raises(StoreError) as caught:
            for row in range(100_000):
                add(store, str(row))
        assert "disk" in caught.value.fix
        reported = row
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM measurements").fetchone() == (reported,)
    assert integrity(path) == "ok"


def test_a_migration_on_a_full_disk_leaves_the_file_as_it_was(small_disk: Path) -> None:
    path = Path(shutil.copy(OLD, small_disk / "latency.db"))
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb") as stream:
        stream.write(b"\0" * (1 << 21))
    with pytest.raises(StoreError) as caught:
        open_store(str(path))
    assert "disk" in caught.value.fix
    filler.unlink()
    with open_store(str(path)) as store:
        assert store.count() == 6


def test_add_explains_when_the_file_is_gone_in_the_middle(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    path = filled(folder / "latency.db")
    with open_store(str(path)) as store:
        add(store, "1")
        shutil.rmtree(folder)
        with pytest.raises(StoreError, match="removed or replaced"):
            add(store, "2")


def test_store_refuses_to_go_on_when_its_file_was_replaced(tmp_path: Path) -> None:
    path = filled(tmp_path / "latency.db")
    with open_store(str(path)) as store:
        filled(tmp_path / "other.db", rows=3).replace(path)
        with pytest.raises(StoreError, match="removed or replaced"):
            add(store, "1")


def test_add_explains_when_the_disk_is_taken_away_in_the_middle(small_disk: Path) -> None:
    with open_store(str(small_disk / "latency.db")) as store:
        add(store, "0")
        subprocess.run(["umount", "-l", str(small_disk)], check=True)
        with pytest.raises(StoreError, match="removed or replaced"):
            add(store, "1")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(small_disk)], check=True)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that anybody may read and nobody but root may write."""
    with tempfile.TemporaryDirectory(prefix="lathe-read-only-") as folder:
        yield Path(folder)
        Path(folder).chmod(0o755)


def opened_by_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    """Open a file whose folder cannot be written, as somebody who is not root; count its rows, add one."""
    path.chmod(0o444)
    path.parent.chmod(0o555)
    code = (
        "import sys, os; from tests.latency_db.store.test_database import add, open_store;"
        "import alembic.command, email.parser, encodings.idna;"
        "os.getuid() or os.setuid(65534);"
        "store = open_store(sys.argv[1]); print(store.count(), flush=True); add(store, '1')"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_read_only_file_can_be_read_but_not_written(read_only: Path) -> None:
    ended = opened_by_nobody(filled(read_only / "latency.db"))
    assert ended.stdout == "1\n", ended.stderr
    assert "cannot be written" in ended.stderr
    assert "make the file and its folder writable" in ended.stderr


def test_a_read_only_file_of_an_older_schema_is_refused_and_left_alone(read_only: Path) -> None:
    path = Path(shutil.copy(OLD, read_only / "latency.db"))
    ended = opened_by_nobody(path)
    assert ended.stdout == ""
    assert "cannot be migrated" in ended.stderr
    assert "make its folder writable" in ended.stderr
    assert path.read_bytes() == OLD.read_bytes()


def test_store_keeps_every_row_when_eight_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "latency.db"
    with writers(path, 8, 20) as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output
    with open_store(str(path)) as store:
        assert store.count() == 160
        for writer in range(8):
            for row in range(20):
                assert store.find(key_of(block(f"{writer}/{row}"))) == measurement(row + 1)
    assert integrity(path) == "ok"


def test_store_keeps_every_reported_row_when_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "latency.db"
    code = f"import {WRITERS} as writers; writers.write({str(path)!r}, 0, 10**6)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reported = [process.stdout.readline() for _ in range(25)]
        process.kill()
        reported += process.stdout.readlines()
    assert process.returncode == -9
    complete = [line for line in reported if line.endswith("\n")]
    with open_store(str(path)) as store:
        assert len(complete) <= store.count() <= len(complete) + 1
        for row in range(len(complete)):
            assert store.find(key_of(block(f"0/{row}"))) == measurement(row + 1)
        add(store, "after")
    assert integrity(path) == "ok"


def test_open_store_says_locked_when_another_process_holds_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "latency.db")
    monkeypatch.setattr("latency_db.store.database._BUSY_TIMEOUT_S", 0.05)
    with sqlite3.connect(path, isolation_level=None) as other, open_store(str(path)) as store:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            add(store, "1")
        other.execute("ROLLBACK")
        add(store, "1")
        assert store.count() == 2


def test_a_store_writes_nothing_once_a_later_version_has_migrated_its_file(tmp_path: Path) -> None:
    """Two versions of Lathe on one database: rows of the older one would lack what the newer needs."""
    path = filled(tmp_path / "latency.db")
    with open_store(str(path)) as store:
        add(store, "before")
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE lathe_schema SET version = version + 1")
        connection.close()
        with pytest.raises(StoreError, match="newer than the"):
            add(store, "after")
        assert store.count() == 2
