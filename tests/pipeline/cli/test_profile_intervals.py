"""What ``lathe profile`` says of a measurement at another time, and what it keeps for that."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from devices.measuring import probe
from devices.target import Target
from latency_db.errors import StoreError
from latency_db.history import PRIOR
from latency_db.store import open_store, records
from pipeline.cli.profile.arguments import compare, profile
from pipeline.errors import RecipeError, WorkFolderError
from tests.devices.tiny_models import write_tiny_onnx
from tests.latency_db.made_up_history import START, batch, store_batches, wave

TARGET = "host/onnxruntime:fp32@1"

app = typer.Typer()
app.command()(profile)
app.command()(compare)

pytestmark = pytest.mark.usefixtures("quiet_machine")


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the working folder of a test, with a database of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LATHE_DB", str(tmp_path / "latency.db"))
    write_tiny_onnx(Path("tiny.onnx"))
    return Path("tiny.onnx")


def _lathe(*arguments: str) -> Result:
    # Batches are told apart by the second in which they begin.
    time.sleep(1 - time.time() % 1)
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _words(*arguments: str) -> str:
    """What is shown, without the ends of its lines."""
    return " ".join(_lathe(*arguments).stdout.split())


def _profiled(*arguments: str) -> dict[str, Any]:
    shown = _lathe("profile", "tiny.onnx", "--target", TARGET, "--launches", "2", "--json", *arguments)
    (result,) = json.loads(shown.stdout)["results"]
    return dict(result)


def test_without_history_the_interval_on_the_device_is_an_assumption_and_says_so() -> None:
    result = _profiled()
    narrow, wide, between = (result[key] for key in ("latency_ns", "latency_on_device_ns", "between_batches"))
    assert wide["low"] < narrow["low"] <= narrow["value"] == wide["value"] <= narrow["high"] < wide["high"]
    assert between["assumed"]
    assert between["batch"] == {
        "deviation": PRIOR.batch.deviation,
        "freedom": PRIOR.batch.freedom,
        "seen": 0,
    }
    assert between["day"]["seen"] == 0


def test_every_profile_adds_to_the_history_of_its_device() -> None:
    found = [_profiled()["between_batches"]["batch"] for _ in range(3)]
    assert [each["seen"] for each in found] == [0, 2, 3]
    assert found[2]["freedom"] > found[1]["freedom"] > PRIOR.batch.freedom


def test_the_text_shows_both_intervals_and_what_the_second_rests_on() -> None:
    shown = _words("profile", "tiny.onnx", "--target", TARGET, "--launches", "2")
    assert "] here and now, [" in shown
    assert "] on this machine" in shown
    assert "without a history yet" in shown
    shown = _words("profile", "tiny.onnx", "--target", TARGET, "--launches", "2")
    assert "between batches (of 2)" in shown
    assert "between days (assumed)" in shown


def test_a_comparison_keeps_both_files_and_its_ratio_is_as_sharp_as_ever() -> None:
    write_tiny_onnx(Path("other.onnx"))
    shown = _lathe("compare", "tiny.onnx", "other.onnx", "--target", TARGET, "--launches", "6", "--json")
    (found,) = json.loads(shown.stdout)["results"]
    assert found["first"]["latency_on_device_ns"]["high"] > found["first"]["latency_ns"]["high"]
    assert found["ratio"].keys() == {"low", "value", "high", "confidence"}
    with open_store("latency.db") as store:
        kept = [record for batch in records(store) for record in batch]
    assert len(kept) == 2


@pytest.mark.parametrize("text", ["10", "0m", "-1m", "25h", "m", "1d", "1e3s"])
def test_a_spread_that_is_no_time_is_refused(text: str) -> None:
    shown = _lathe("profile", "tiny.onnx", "--target", TARGET, "--spread", text)
    assert shown.exit_code == 2
    assert "is not a time" in " ".join(shown.stderr.split())


def test_launches_that_are_spread_are_a_protocol_of_their_own_and_all_of_them_count() -> None:
    protocol = _profiled("--spread", "0.2s")["protocol"]
    assert (protocol["launches"], protocol["max_launches"]) == (2, 2)
    assert protocol["spread_ns"] == 200_000_000


def test_another_database_has_another_history() -> None:
    _profiled()
    _profiled()
    assert _profiled("--db", "other.db")["between_batches"]["assumed"]


def test_a_database_that_cannot_be_opened_is_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.cli.profile.command.measure", None)
    Path("no.db").write_text("this is no database, and it is longer than the header of one " * 40)
    with pytest.raises(StoreError):
        _profiled("--db", "no.db")


def test_a_database_that_cannot_be_written_loses_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr("latency_db.store.store.Store.put", broken)
    shown = _lathe("profile", "tiny.onnx", "--target", TARGET, "--launches", "2", "--json")
    document = json.loads(shown.stdout)
    assert shown.exit_code == StoreError.exit_code
    assert document["results"][0]["between_batches"]["assumed"]
    assert [each["target"] for each in document["errors"]] == ["the latency database"]


def test_a_page_shows_the_latency_and_the_graph_with_times() -> None:
    shown = _lathe("profile", "tiny.onnx", "--target", TARGET, "--launches", "2", "--view", "page.html")
    page = Path("page.html").read_text()
    assert shown.exit_code == 0
    assert "operation" in shown.stdout
    assert "on this machine" in page
    assert page.count("<rect") >= 1


def test_a_page_that_cannot_be_written_is_told_and_loses_nothing() -> None:
    Path("file").write_text("")
    shown = _lathe("profile", "tiny.onnx", "--target", TARGET, "--launches", "2", "--view", "file/page.html")
    assert shown.exit_code == WorkFolderError.exit_code
    assert "here and now" in shown.stdout


def test_a_page_in_place_of_a_folder_or_where_there_is_none_is_refused_in_words() -> None:
    with pytest.raises(RecipeError, match="is a folder"):
        _lathe("profile", "tiny.onnx", "--target", TARGET, "--launches", "2", "--view", ".")
    shown = _lathe("profile", "tiny.onnx", "--target", TARGET, "--launches", "2", "--view", "/proc/page.html")
    assert shown.exit_code == WorkFolderError.exit_code
    assert "name another file with --view" in shown.output
    assert "here and now" in shown.stdout


def _with_history(factors: list[float], *, canary: bool = True) -> None:
    """Batches of this very machine in the database of the test, an hour apart."""
    _, device = probe(Target.parse(TARGET))
    batches = [
        batch(START + timedelta(hours=number), factor, device=device, canary=canary)
        for number, factor in enumerate(factors)
    ]
    with open_store(None) as store:
        store_batches(store, batches)


def test_a_device_whose_history_says_that_it_cannot_be_trusted_has_a_wide_interval() -> None:
    _with_history(wave(20, 0.3))
    result = _profiled()
    narrow, wide = result["latency_ns"], result["latency_on_device_ns"]
    assert not result["between_batches"]["assumed"]
    assert result["between_batches"]["deviation"] > 0.2
    assert wide["high"] > 1.5 * wide["value"] > wide["value"] / 1.5 > wide["low"]
    assert narrow["high"] < wide["high"]


def test_a_database_without_canaries_tells_by_what_was_repeated() -> None:
    _with_history(wave(20, 0.1), canary=False)
    between = _profiled()["between_batches"]
    assert between["batch"]["seen"] == 20
    assert 0.05 < between["batch"]["deviation"] < 0.2


def test_batches_of_a_clock_that_was_set_back_are_known_all_the_same() -> None:
    _with_history([1.0, 1.1])
    _with_history([1.0, 1.1, 1.0])
    assert _profiled()["between_batches"]["batch"]["seen"] >= 3
