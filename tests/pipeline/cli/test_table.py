from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from devices.errors import LatheError
from latency_db.errors import EstimateError
from latency_db.store.store import open_store
from pipeline.cli.table.arguments import table_app
from pipeline.errors import RecipeError
from pipeline.tables.exchange.table_file import read_table
from pipeline.tables.spaces import find_space
from pipeline.tables.transfer.estimates import read_estimates

pytestmark = pytest.mark.usefixtures("quiet_machine", "exporters_here")

RECIPE = """
name = "tiny"
[data]
kind = "digits"
[[teacher]]
kind = "train"
[space]
stem_width = 8
head_width = 16
[[space.stages]]
widths = [8, 12]
depths = [1, 2, 3, 4]
kernels = [3]
expansions = [2, 3]
squeeze_excite = [0.0, 0.25]
[[target]]
name = "host/onnxruntime:fp32@1"
budget_ms = 1000
"""
TARGET = "host/onnxruntime:fp32@1"
NEW = "host/litert:fp32@1"


class Lathe:
    """``lathe table`` on one space, with one database."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = folder / "tiny.toml"
        self.recipe.write_text(RECIPE)

    def __call__(self, command: str, *arguments: str, space: bool = True, db: bool = True) -> str:
        options = ["--space", str(self.recipe), "--input", "1x8x8", "--launches", "3"] if space else []
        options += ["--db", str(self.folder / "latency.db")] if db else []
        ended = CliRunner().invoke(table_app, [command, *arguments, *options], catch_exceptions=True)
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            raise ended.exception
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    def json(self, *arguments: str, **given: bool) -> Any:
        return json.loads(self(*arguments, "--json", **given))


def count(lathe: Lathe) -> int:
    """Outcomes in the database."""
    with open_store(str(lathe.folder / "latency.db")) as store:
        return store.count()


def until_valid(lathe: Lathe, *arguments: str, **given: bool) -> Any:
    """Again where a busy machine left measurements invalid, as the error asks for."""
    for _ in range(5):
        try:
            return lathe.json(*arguments, **given)
        except EstimateError as error:
            last = error
    raise last


@pytest.fixture(scope="module", name="built")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Lathe:
    lathe = Lathe(tmp_path_factory.mktemp("tables"))
    document = until_valid(lathe, "build", "--target", TARGET, "--networks", "8")
    assert [table["target"] for table in document["tables"]] == [TARGET]
    return lathe


@pytest.mark.slow
def test_build_measures_every_block_and_show_gives_the_same_table(built: Lathe) -> None:
    again = built.json("build", "--target", TARGET, "--networks", "8")["tables"][0]
    shown = built.json("show", "--target", TARGET)
    assert shown == {key: value for key, value in again.items() if key != "input"}
    assert len(shown["blocks"]) > 10
    assert shown["failed"] == []
    assert all(0 < row["low_ms"] <= row["latency_ms"] <= row["high_ms"] for row in shown["blocks"])
    assert shown["model"]["fitted_networks"] >= 6
    assert "mbconv" in built("show", "--target", TARGET)


@pytest.mark.slow
def test_verify_compares_fresh_networks_with_baselines_and_the_noise_ceiling(built: Lathe) -> None:
    document = until_valid(built, "verify", "--target", TARGET, "--count", "4")
    assert set(document["baselines"]) == {"plain sum", "sum and line", "macs and line"}
    assert len(document["networks"]) == document["model"]["networks"]
    for network in document["networks"]:
        assert 0 < network["low_ns"] <= network["predicted_ns"] <= network["high_ns"]
        assert network["measured_ns"] > 0
        assert network["repeated_ns"] > 0
    assert 0 <= document["model"]["covered"] <= 1


@pytest.mark.slow
def test_export_is_read_back_and_diff_finds_nothing_in_itself(built: Lathe) -> None:
    first, second = built.folder / "first.json", built.folder / "second.json"
    built("export", str(first), "--target", TARGET)
    shutil.copy(first, second)
    model = read_table(first).model
    assert str(model.table.target) == TARGET
    assert all(math.isfinite(model.block_cost_ns(block)) for block in model.table.rows)
    found = built.json("diff", str(first), str(second), space=False, db=False)
    assert found["median_ratio"] == 1
    assert found["beyond"] == found["key"] == []


@pytest.mark.slow
def test_package_that_was_planned_is_measured_and_gives_the_table(built: Lathe, tmp_path: Path) -> None:
    lathe = Lathe(tmp_path)
    package = tmp_path / "package"
    lathe("plan", str(package), "--target", TARGET, "--networks", "8", db=False)
    until_valid(lathe, "measure", str(package), "--target", TARGET, space=False)
    for _ in range(5):
        try:
            shown = lathe.json("show", "--target", TARGET)
            break
        except EstimateError:
            lathe("measure", str(package), "--target", TARGET, space=False)
    blocks = [row["block"] for row in built.json("show", "--target", TARGET)["blocks"]]
    assert [row["block"] for row in shown["blocks"]] == blocks


@pytest.mark.slow
def test_transfer_measures_as_much_as_asked_and_the_same_command_measures_nothing_more(built: Lathe) -> None:
    asked = ("transfer", "--from", TARGET, "--to", NEW, "--samples", "12")
    first = until_valid(built, *asked)
    assert (first["kind"], first["target"], first["sources"]) == ("estimates", NEW, [TARGET])
    assert len(first["measured_blocks"]) + len(first["measured_networks"]) == 12
    assert sum(network["drawn"] for network in first["measured_networks"]) >= 6
    for row in first["estimated_blocks"] + first["estimated_networks"]:
        assert 0 < row["low_ms"] <= row["estimate_ms"] <= row["high_ms"]
        assert 0 < row["coverage"] < 1
    table = built.json("show", "--target", TARGET)["blocks"]
    described = [row["what"] for row in first["measured_blocks"] + first["estimated_blocks"]]
    assert sorted(described) == sorted(row["block"] for row in table)
    stored = count(built)
    assert built.json(*asked) == first
    assert count(built) == stored
    text = built(*asked)
    assert f"{NEW} from {TARGET}" in text
    assert "coverage" in text


@pytest.mark.slow
def test_transfer_from_an_exported_table_saves_estimates_that_are_no_table(built: Lathe) -> None:
    table, estimates = built.folder / "source.json", built.folder / "estimates.json"
    built("export", str(table), "--target", TARGET)
    asked = ("transfer", "--from", str(table), "--to", NEW, "--samples", "12")
    document = until_valid(built, *asked, "--save", str(estimates))
    model = read_estimates(estimates)
    assert str(model.target) == NEW
    assert len(model.estimated) == len(document["estimated_blocks"])
    with pytest.raises(EstimateError, match="cannot be read as a latency table"):
        built("diff", str(table), str(estimates), space=False, db=False)
    stored = count(built)
    with pytest.raises(EstimateError, match="holds something else than estimates"):
        built(*asked, "--samples", "14", "--save", str(table))
    assert count(built) == stored


@pytest.mark.slow
def test_transfer_checks_itself_on_networks_that_it_has_not_seen(built: Lathe) -> None:
    asked = ("transfer", "--from", TARGET, "--to", NEW, "--samples", "12", "--check", "3")
    document = until_valid(built, *asked)
    seen = {network["what"] for network in document["measured_networks"]}
    checked = document["check"]
    assert len(checked["networks"]) + checked["invalid"] == 3
    assert not seen & {network["architecture"] for network in checked["networks"]}
    assert set(checked["baselines"]) == {f"{TARGET} scaled"}
    assert checked["model"]["coverage"] == document["coverage"]


def test_transfer_from_a_target_to_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EstimateError, match="from its own table"):
        Lathe(tmp_path)("transfer", "--from", TARGET, "--to", TARGET)


def test_transfer_from_a_target_without_a_table_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(EstimateError) as caught:
        Lathe(tmp_path)("transfer", "--from", TARGET, "--to", NEW)
    assert "lathe table build" in caught.value.fix


def test_show_says_how_to_build_when_nothing_is_stored(tmp_path: Path) -> None:
    open_store(str(tmp_path / "latency.db")).close()
    with pytest.raises(EstimateError) as caught:
        Lathe(tmp_path)("show", "--target", TARGET)
    assert "lathe table build" in caught.value.fix
    assert "the database is empty" in caught.value.why


@pytest.mark.parametrize("shape", ["32", "0x8", "axb", "3x32x32x3", ""])
def test_input_that_is_no_shape_is_refused(tmp_path: Path, shape: str) -> None:
    with pytest.raises(RecipeError, match="inputs of"):
        Lathe(tmp_path)("show", "--target", TARGET, "--input", shape, space=False)


def test_space_is_found_by_the_name_of_a_preset() -> None:
    mobile, akd = (find_space(name, "32x32", 10) for name in ("mobile", "akd"))
    assert mobile.description != akd.description
    assert any(block.kind == "regular" for block in akd.distinct_blocks())


def test_space_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no space"):
        Lathe(tmp_path)("show", "--target", TARGET, "--space", "nowhere.toml", space=False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "lathe-table", "version": 9}', "[" * 100_000])
def test_diff_refuses_what_is_no_table(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(LatheError, match="cannot be read as a latency table"):
        Lathe(tmp_path)("diff", str(path), str(path), space=False, db=False)
