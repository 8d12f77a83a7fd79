from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, make_url

from devices.installing import how_to_install
from latency_db.errors import StoreError
from latency_db.published import import_table
from latency_db.store import check, database, export_file, import_file, merge, published_rows, records
from latency_db.store.store import Store, open_store
from tests.latency_db.measurement_samples import DEVICE, PROTOCOL, RUNTIME, block, key_of, measurement
from tests.latency_db.postgresql_server import PostgresqlServer

WRITERS = [sys.executable, "-m", "tests.latency_db.store.store_writers"]


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_PAUSES_S", (0.05, 0.05))


def add(store: Store, row: int) -> None:
    store.add(block(str(row)), RUNTIME, DEVICE, PROTOCOL, measurement(row + 1))


def assert_holds(store: Store, rows: int) -> None:
    assert store.count() == rows
    for row in range(rows):
        assert store.find(key_of(block(str(row)))) == measurement(row + 1)


def test_open_store_explains_when_the_server_is_down(
    server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch, short_pauses: None
) -> None:
    url = make_url(server.new_database()).set(port=1, password="secret")
    with pytest.raises(StoreError, match="does not answer") as caught:
        open_store(url.render_as_string(hide_password=False))
    assert "tried 3 times" in caught.value.why
    assert "start the server" in caught.value.fix
    assert "secret" not in str(caught.value)


def test_open_store_waits_for_a_server_that_is_coming_up(server: PostgresqlServer) -> None:
    url = server.new_database()
    server.stop()

    def open_and_add() -> None:
        with open_store(url) as store:
            add(store, 0)
            assert_holds(store, 1)

    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_and_add)
        time.sleep(0.5)
        server.start()
        opened.result()


def test_add_goes_on_when_the_server_comes_back(server: PostgresqlServer) -> None:
    with open_store(server.new_database()) as store:
        for row in range(30):
            if row in (10, 20):
                server.stop()
                server.start()
            add(store, row)
        assert_holds(store, 30)


def test_add_explains_and_nothing_is_lost_when_the_server_stays_away(
    server: PostgresqlServer, short_pauses: None
) -> None:
    with open_store(server.new_database()) as store:
        for row in range(10):
            add(store, row)
        server.stop()
        try:
            with pytest.raises(StoreError, match="does not answer") as caught:
                add(store, 10)
            assert "rows stored before are kept" in caught.value.fix
            with pytest.raises(StoreError, match="does not answer"):
                store.find(key_of(block("0")))
        finally:
            server.start()
        assert_holds(store, 10)
        add(store, 10)
        assert_holds(store, 11)


@pytest.mark.slow
def test_writers_lose_nothing_when_the_server_crashes_while_they_write(server: PostgresqlServer) -> None:
    url = server.new_database()
    command = [*WRITERS, url, "4", "150"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
            server.stop()
            time.sleep(0.2)
            server.start()
        process.stdout.read()
    assert process.returncode == 0
    with open_store(url) as store:
        assert store.count() == 600
        for writer in range(4):
            for row in range(150):
                assert store.find(key_of(block(f"{writer}/{row}"))) == measurement(row + 1)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["import", "merge", "import published"])
def test_what_comes_in_is_whole_though_the_server_crashes_meanwhile(
    server: PostgresqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    entries = [(block(str(n)), RUNTIME, DEVICE, PROTOCOL, measurement(n + 1)) for n in range(600)]
    there, file = str(tmp_path / "there.db"), tmp_path / "rows.csv"
    with open_store(there) as store:
        store.add_all(entries)
        export_file(store, file)
    table = tmp_path / "table.csv"
    lines = "".join(f"Conv{n},{n},{1 + n % 7}.5\n" for n in range(21_000))
    table.write_text(f"block,in_h,mean_ms\n{lines}")
    calls, whole = 0, Engine.begin

    def begin(engine: Engine) -> AbstractContextManager[Connection]:
        """Two transactions begin when the server has crashed and come up again, so the connection is dead."""
        nonlocal calls
        if engine.dialect.name == "postgresql":
            calls += 1
            if calls in {1, 2}:
                server.stop()
                server.start()
        return whole(engine)

    with open_store(server.new_database()) as store:
        monkeypatch.setattr(Engine, "begin", begin)
        match way:
            case "import":
                import_file(store, file)
            case "merge":
                merge(store, there)
            case _:
                import_table(store, table, device="d")
        monkeypatch.undo()
        assert calls > 2
        assert check(store).problems == ()
        if way == "import published":
            assert sum(map(len, published_rows(store))) == 21_000
        else:
            with open_store(there) as other:
                wanted = [record.columns["digest"] for batch in records(other) for record in batch]
            assert [record.columns["digest"] for batch in records(store) for record in batch] == wanted


def test_store_keeps_every_row_when_eight_processes_write_at_once(server: PostgresqlServer) -> None:
    url = server.new_database()
    command = [*WRITERS, url, "8", "20"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    with open_store(url) as store:
        assert store.count() == 160


def test_open_store_refuses_at_once_when_the_database_does_not_exist(
    server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    url = make_url(server.new_database()).set(database="nowhere")
    with pytest.raises(StoreError) as caught:
        open_store(str(url))
    assert '"nowhere" does not exist' in caught.value.why
    assert pauses == []


def test_open_store_takes_a_url_that_names_no_driver(server: PostgresqlServer) -> None:
    url = make_url(server.new_database()).set(drivername="postgresql")
    with open_store(str(url)) as store:
        add(store, 0)
        assert_holds(store, 1)


def test_open_store_names_the_extra_when_the_driver_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError) as caught:
        open_store("postgresql://localhost/lathe")
    assert how_to_install("postgresql") in caught.value.fix


def test_open_store_creates_the_tables_once_when_several_come_at_once(server: PostgresqlServer) -> None:
    url = server.new_database()
    code = "import sys; from latency_db.store.store import open_store; print(open_store(sys.argv[1]).count())"
    command = [sys.executable, "-c", code, url]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0] for process in several] == ["0\n"] * 3


def test_add_explains_when_text_cannot_be_stored(server: PostgresqlServer) -> None:
    from dataclasses import replace

    with open_store(server.new_database()) as store:
        with pytest.raises(StoreError, match="could not carry out"):
            store.add(block("a"), RUNTIME, DEVICE, PROTOCOL, replace(measurement(), target="\0"))
        assert store.count() == 0
