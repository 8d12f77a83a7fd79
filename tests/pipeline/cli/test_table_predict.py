"""Tables by name in ``lathe table predict``, ``show`` and ``diff``: files, and targets of the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from latency_db.errors import EstimateError
from latency_db.store.store import open_store
from pipeline.cli.table.arguments import table_app
from pipeline.progress import ConsoleReporter
from pipeline.tables.building.bench import Bench
from tests.made_up_tables import (
    NEW,
    OLD,
    PROTOCOL,
    SPACE,
    keep_blocks,
    keep_networks,
    new_ns,
    old_ns,
    planned,
)

OF_SPACE = ("--input", "1x8x8")


@pytest.fixture(name="db", scope="module")
def _db(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tables of two targets of this host, made up."""
    location = str(tmp_path_factory.mktemp("named") / "latency.db")
    with open_store(location) as store:
        bench = Bench(store, PROTOCOL, ConsoleReporter())
        for target, cost in ((OLD, old_ns), (NEW, new_ns)):
            keep_blocks(bench, target, SPACE.distinct_blocks(), cost)
            keep_networks(bench, target, planned(12), cost)
    return location


@pytest.fixture(name="file", scope="module")
def _file(db: str) -> str:
    file = Path(db).with_name("table.json")
    lathe("export", str(file), "--target", str(OLD), *OF_SPACE, "--db", db)
    return str(file)


@pytest.fixture(autouse=True)
def _no_database_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LATHE_DB", str(tmp_path / "no folder" / "latency.db"))


def lathe(*arguments: str) -> str:
    ended = CliRunner().invoke(table_app, arguments, catch_exceptions=True)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def lathe_json(*arguments: str) -> Any:
    return json.loads(lathe(*arguments, "--json"))


def test_file_predicts_what_the_database_does_and_opens_none(db: str, file: str, tmp_path: Path) -> None:
    asked = ("--count", "4", "--seed", "3")
    from_file = lathe_json("predict", file, *asked)
    assert from_file == lathe_json("predict", str(OLD), *OF_SPACE, "--db", db, *asked)
    assert len(from_file["networks"]) == 4
    assert not (tmp_path / "no folder").exists()


def test_prediction_without_a_choice_is_of_reference_fastest_and_slowest(file: str) -> None:
    lines = lathe("predict", file).splitlines()
    assert len(lines) == 4
    assert [line.split("~")[0] for line in lines[:3]] == ["reference: ", "fastest: ", "slowest: "]
    assert lines[0].endswith(str(SPACE.reference()))
    assert "% coverage" in lines[3]


def test_architectures_that_are_named_are_predicted(file: str) -> None:
    architecture = json.dumps(dict(SPACE.reference().choices))
    document = lathe_json("predict", file, "--architecture", architecture, "--architecture", architecture)
    assert [each["architecture"] for each in document["networks"]] == [dict(SPACE.reference().choices)] * 2


def test_prediction_for_the_target_of_the_table_is_not_refused(file: str) -> None:
    assert lathe("predict", file, "--for", str(OLD)) == lathe("predict", file)


@pytest.mark.parametrize(
    ("wanted", "options", "difference"),
    [
        ("host/onnxruntime:fp32@2", (), "runtime threads: 1, not 2"),
        ("host/onnxruntime:int8@1", (), "runtime precision: fp32, not int8"),
        (str(OLD), ("--launches", "7"), "protocol launches: 5, not 7"),
    ],
)
def test_prediction_for_another_key_is_refused_with_the_difference(
    file: str, wanted: str, options: tuple[str, ...], difference: str
) -> None:
    with pytest.raises(EstimateError, match="does not hold") as caught:
        lathe("predict", file, "--for", wanted, *options)
    assert difference in caught.value.why


def test_table_of_another_version_of_the_runtime_is_refused_with_the_difference(
    file: str, tmp_path: Path
) -> None:
    document = json.loads(Path(file).read_text())
    document["model"]["table"]["key"]["runtime"]["version"] = "0.1"
    older = tmp_path / "older.json"
    older.write_text(json.dumps(document))
    assert lathe("predict", str(older))
    with pytest.raises(EstimateError) as caught:
        lathe("predict", str(older), "--for", str(OLD))
    assert "runtime version: 0.1, not" in caught.value.why


def test_show_gives_a_file_as_it_gives_the_table_of_the_database(db: str, file: str) -> None:
    assert lathe("show", file) == lathe("show", "--target", str(OLD), *OF_SPACE, "--db", db)
    assert lathe_json("show", file)["blocks"][0]["block"].startswith("stem")


def test_diff_takes_files_and_targets(db: str, file: str) -> None:
    of_database = (*OF_SPACE, "--db", db)
    nothing = lathe_json("diff", file, str(OLD), *of_database)
    assert (nothing["key"], nothing["median_ratio"], nothing["beyond"]) == ([], 1, [])
    found = lathe_json("diff", str(OLD), str(NEW), *of_database)
    assert found == lathe_json("diff", file, str(NEW), *of_database)
    assert found["key"] == ["runtime threads: 1, not 2"]
    assert found["shared"] == len(SPACE.distinct_blocks())
    assert "runtime threads: 1, not 2" in lathe("diff", str(OLD), str(NEW), *of_database)


@pytest.mark.parametrize("command", [("predict",), ("show",)])
def test_options_of_a_space_are_refused_beside_a_file(file: str, command: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(table_app, [*command, file, *OF_SPACE])
    assert ended.exit_code == 2


@pytest.mark.parametrize("arguments", [(), ("table.json", "--target", str(OLD))])
def test_show_wants_a_file_or_a_target(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(table_app, ["show", *arguments]).exit_code == 2


def test_file_that_is_not_there_is_named() -> None:
    with pytest.raises(EstimateError, match=r"no file 'nowhere\.json'"):
        lathe("predict", "nowhere.json")
