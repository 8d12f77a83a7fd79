from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from devices.errors import TargetError
from devices.measurement.conditions import Conditions
from devices.measurement.measurement import (
    DeviceIdentity,
    Launch,
    Measurement,
    MeasurementFailure,
    Reason,
    RuntimeIdentity,
    Verdict,
)
from devices.measurement.protocol import MeasuringProtocol
from latency_db.errors import StoreError
from latency_db.store.keys import Workload
from latency_db.store.store import open_store
from pipeline.cli.db.arguments import db_app

RUNTIME = RuntimeIdentity("onnxruntime", "1.20.0", "ab" * 32, "fp32", 1)
DEVICE = DeviceIdentity("x86_64", "some cpu", 2, "linux", "6.1", "machine-1")
PROTOCOL = MeasuringProtocol()
TARGET = "host/onnxruntime:fp32@1"


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "latency.db"
    monkeypatch.setenv("LATHE_DB", str(path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    return path


def fill(path: Path) -> None:
    launch = Launch(10, 20, 30, (1_500_000,) * 20, 1 << 20, Conditions(), Conditions())
    measurement = Measurement(
        "cd" * 32,
        TARGET,
        RUNTIME,
        DEVICE,
        PROTOCOL,
        (launch,) * 3,
        Verdict.VALID,
        (),
        "2026-01-05T10:00:00+00:00",
    )
    emulated = replace(
        measurement,
        device=replace(DEVICE, emulated=True),
        target="board/litert:fp32@1",
        started_at="2026-03-01T10:00:00+00:00",
    )
    conv, pool = (Workload.of("block", name, name) for name in ("conv 3x3", "pool"))
    failure = MeasurementFailure("ef" * 32, TARGET, Reason("unsupported", "no kernel"))
    with open_store(str(path)) as store:
        store.add(conv, RUNTIME, DEVICE, PROTOCOL, measurement)
        store.add(pool, RUNTIME, DEVICE, PROTOCOL, failure)
        store.add(conv, RUNTIME, emulated.device, PROTOCOL, emulated)


def lathe(*arguments: object) -> Result:
    return CliRunner().invoke(db_app, [str(argument) for argument in arguments])


def answer(*arguments: object) -> Any:
    ended = lathe(*arguments, "--json")
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def test_help_of_every_command_is_complete_and_loads_no_heavy_package() -> None:
    for command in ("info", "query", "merge", "export", "import", "check", "gc"):
        ended = lathe(command, "--help")
        assert ended.exit_code == 0
        assert "--json" in ended.stdout and "--db" in ended.stdout
    code = "import sys; import pipeline.cli.db.arguments; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "numpy", "pydantic", "sqlalchemy", "alembic", "pyarrow"} & set(loaded.split())


def test_info_shows_what_is_in_the_database(database: Path) -> None:
    fill(database)
    found = answer("info")
    assert found["outcomes"] == {TARGET: {"failed": 1, "valid": 1}, "board/litert:fp32@1": {"valid": 1}}
    assert found["place"] == str(database)
    text = lathe("info").stdout
    assert "board/litert:fp32@1 (emulated): 1 valid" in text
    assert f"{TARGET}: 1 failed, 1 valid" in text


def test_query_lists_rows_marks_emulated_devices_and_shows_failures(database: Path) -> None:
    fill(database)
    lines = lathe("query").stdout.splitlines()
    assert lines[0].startswith(f"2026-01-05T10:00:00  {TARGET}  1.5000 ms")
    assert lines[0].endswith("valid  conv 3x3")
    assert lines[1].endswith("-  failed (unsupported)  pool")
    assert "board/litert:fp32@1 (emulated)" in lines[2]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ([], [1, 2, 3]),
        (["--target", TARGET], [1, 2]),
        (["--workload", "conv"], [1, 3]),
        (["--verdict", "failed"], [2]),
        (["--verdict", "valid", "--since", "2026-02-01"], [3]),
        (["--verdict", "valid", "--since", "2026-03-01T12:30+03:00"], [3]),
        (["--limit", "1"], [1]),
        (["--workload", "nothing"], []),
    ],
)
def test_query_filters(database: Path, options: list[str], ids: list[int]) -> None:
    fill(database)
    found = answer("query", *options)
    assert [row["id"] for row in found["rows"]] == ids
    assert found["more"] == ("--limit" in options)


def test_query_says_on_which_targets_there_is_something_where_one_has_nothing(database: Path) -> None:
    fill(database)
    found = lathe("query", "--target", "host/litert:fp32@8")
    assert found.exit_code == 0
    assert found.stdout == ""
    assert "nothing was measured on host/litert:fp32@8, but on " in found.stderr
    assert f"{TARGET} and board/litert:fp32@1" in found.stderr or "board/litert:fp32@1 and" in found.stderr
    assert "but on" not in lathe("query", "--target", TARGET, "--since", "2030-01-01").stderr


def test_query_refuses_what_is_written_like_no_target(database: Path) -> None:
    fill(database)
    refused = lathe("query", "--target", "foo").exception
    assert isinstance(refused, TargetError)
    assert refused.what == "'foo' is not a target"


@pytest.mark.parametrize("options", [["--verdict", "fine"], ["--since", "yesterday"], ["--limit", "0"]])
def test_query_refuses_options_that_mean_nothing(options: list[str]) -> None:
    assert lathe("query", *options).exit_code == 2


def test_export_import_and_merge_carry_everything_to_another_database(database: Path, tmp_path: Path) -> None:
    fill(database)
    assert answer("export", "rows.csv", "--target", TARGET) == {"file": "rows.csv", "rows": 2, "damaged": 0}
    other = tmp_path / "other.db"
    assert answer("import", "rows.csv", "--db", other) == {"rows": 2, "added": 2}
    assert lathe("import", "rows.csv", "--db", other).stdout == "0 of 2 outcomes were new\n"
    assert lathe("merge", database, "--db", other).stdout == "1 of 3 outcomes were new\n"
    assert answer("merge", database, "--db", other)["added"] == 0
    digests = [[row["digest"] for row in answer("query", "--db", path)["rows"]] for path in (database, other)]
    assert sorted(digests[0]) == sorted(digests[1])


def test_import_of_a_published_table_shows_the_screening_report(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("block,mean_ms\na,1.5\nb,-1\n")
    ended = lathe("import", "--published", "table.csv", "--device", "Pixel 1")
    assert ended.exit_code == 0
    assert "Pixel 1: 1 of 2 are no time" in ended.stdout
    assert "2 of 2 published latencies were new (table.csv)" in ended.stdout
    again = answer("import", "--published", "table.csv", "--device", "Pixel 1")
    assert again["added"] == 0
    assert [finding["code"] for finding in again["findings"]] == ["impossible"]
    assert answer("query")["rows"] == []


PUBLISHED = "block,device,mean_ms,count\na,phone,1.5,10\nb,phone,-1,\na,board,2.5,20\n"


def test_info_counts_published_latencies_by_device_with_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(PUBLISHED)
    lathe("import", "--published", "table.csv", "--name", "a table")
    lines = lathe("info").stdout.splitlines()
    first = lines.index("  published table a table: 3 published latencies")
    assert lines[first + 1 :] == [
        "    board: 1",
        "    phone: 2; 1 of 2 are no time (zero, negative or infinite), left out",
    ]
    (found,) = answer("info")["published"]
    assert (found["cells"], found["devices"]) == (3, {"board": 1, "phone": 2})


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ([], [("board", 2), ("phone", 0), ("phone", 1)]),
        (["--device", "phone"], [("phone", 0), ("phone", 1)]),
        (["--workload", "block=a"], [("board", 2), ("phone", 0)]),
        (["--limit", "2"], [("board", 2), ("phone", 0)]),
        (["--device", "another"], []),
    ],
)
def test_query_lists_published_latencies_only_when_it_is_asked_for(
    database: Path, tmp_path: Path, options: list[str], rows: list[tuple[str, int]]
) -> None:
    fill(database)
    (tmp_path / "table.csv").write_text(PUBLISHED)
    lathe("import", "--published", "table.csv")
    found = answer("query", "--published", *options)
    assert [(row["device"], row["row"]) for row in found["published"]] == rows
    assert found["more"] == ("--limit" in options)
    assert len(answer("query")["rows"]) == 3
    assert lathe("query", "--published", *options).stdout.count("published in table.csv") == len(rows)


def test_listed_published_latencies_say_where_it_comes_from_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(PUBLISHED)
    lathe("import", "--published", "table.csv")
    assert lathe("query", "--published").stdout.splitlines() == [
        "published in table.csv  board  2.5000 ms  block=a",
        "published in table.csv  phone  1.5000 ms  block=a",
        "published in table.csv  phone  -  impossible  block=b",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_published_latencies_are_exported_for_other_tools_and_never_taken_for_measurements(
    tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "table.csv").write_text(PUBLISHED)
    lathe("import", "--published", "table.csv")
    file = tmp_path / f"rows{suffix}"
    assert answer("export", "--published", file, "--device", "phone") == {"file": str(file), "rows": 2}
    assert "3 published latencies are in" in lathe("export", file, "--published").stdout
    if suffix == ".json":
        rows = json.loads(file.read_text())
        assert rows == [
            {name: row[name] for name in rows[0]} for row in answer("query", "--published")["published"]
        ]
        assert (rows[1]["latency_ns"], rows[1]["count"], rows[2]["latency_ns"]) == (1.5e6, 10, None)
    ended = lathe("import", file)
    assert isinstance(ended.exception, StoreError)
    assert "not an export of measurements" in ended.exception.what


def test_merge_tells_how_many_published_latencies_were_new(database: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(PUBLISHED)
    lathe("import", "--published", "table.csv")
    ended = lathe("merge", database, "--db", tmp_path / "other.db")
    assert ended.stdout.splitlines() == [
        "0 of 0 outcomes were new",
        "3 of 3 published latencies were new",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("query", "--device", "phone"),
        ("query", "--published", "--target", TARGET),
        ("query", "--published", "--since", "2026-01-01"),
        ("export", "rows.csv", "--device", "phone"),
        ("export", "rows.csv", "--published", "--verdict", "valid"),
    ],
)
def test_options_of_published_latencies_and_of_measurements_are_not_mixed(arguments: tuple[str, ...]) -> None:
    assert lathe(*arguments).exit_code == 2


def test_import_refuses_options_of_published_latencies_without_it() -> None:
    assert lathe("import", "table.csv", "--device", "Pixel 1").exit_code == 2


def test_check_ends_with_the_code_of_the_store_when_something_is_damaged(database: Path) -> None:
    fill(database)
    assert lathe("check").stdout == "3 outcomes read, all is well\n"
    with open_store(str(database)) as store, store.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER measurements_keep_on_UPDATE")
        connection.exec_driver_sql("UPDATE measurements SET target = 'faster' WHERE id = 1")
    ended = lathe("check")
    assert ended.exit_code == StoreError.exit_code
    assert "problem: measurement 1: it is not as it was written" in ended.stdout
    assert json.loads(lathe("check", "--json").stdout)["count"] == 2


def test_merge_of_damaged_rows_ends_with_the_code_of_the_store(database: Path, tmp_path: Path) -> None:
    fill(database)
    with open_store(str(database)) as store, store.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER measurements_keep_on_UPDATE")
        connection.exec_driver_sql("UPDATE measurements SET target = 'faster' WHERE id = 1")
    ended = lathe("merge", database, "--db", tmp_path / "other.db")
    assert ended.exit_code == StoreError.exit_code
    assert "2 of 3 outcomes were new" in ended.stdout
    assert "1 damaged rows were left out" in ended.stdout


def test_gc_removes_nothing_when_it_only_rehearses(database: Path) -> None:
    fill(database)
    with open_store(str(database)) as store, store.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO protocols VALUES ('unused', '{}')")
    assert answer("gc", "--dry-run") == {"backups": [], "freed_bytes": 0, "parts": 1, "dry_run": True}
    assert lathe("gc").stdout == "removed: 0 copies (0.0 MB), 1 unused parts of keys\n"
    assert answer("gc")["parts"] == 0
    assert len(answer("query")["rows"]) == 3


@pytest.mark.parametrize(
    "arguments", [["merge", "no.db"], ["import", "no.csv"], ["import", "no.csv", "--published"]]
)
def test_no_database_is_made_for_a_source_that_is_not_there(database: Path, arguments: list[str]) -> None:
    ended = CliRunner().invoke(db_app, arguments)
    assert isinstance(ended.exception, StoreError)
    assert "there is no file no." in str(ended.exception)
    assert not database.exists()


@pytest.mark.parametrize("name", ["x" * 300, "folder"])
def test_what_can_be_no_file_is_not_there(database: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for command in ("merge", "import"):
        ended = CliRunner().invoke(db_app, [command, str(tmp_path / name)])
        assert isinstance(ended.exception, StoreError)
        assert "there is no file" in ended.exception.what
        assert ended.exception.why
    assert not database.exists()
