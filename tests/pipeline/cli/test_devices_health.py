"""``lathe devices health``: what a database tells of a device, and what is said where it tells nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from devices.errors import LatheError, TargetError
from latency_db.errors import StoreError
from latency_db.store import open_store
from pipeline.cli.devices.arguments import devices_app
from tests.latency_db.made_up_history import START, batch, hourly, store_batches, wave
from tests.latency_db.measurement_samples import DEVICE


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test, with devices and a database of its own."""
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.setenv("LATHE_DB", str(tmp_path / "latency.db"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def health(*arguments: str) -> Result:
    return CliRunner().invoke(devices_app, ["health", *arguments])


def error_of(*arguments: str) -> LatheError:
    error = health(*arguments).exception
    assert isinstance(error, LatheError)
    return error


@pytest.fixture
def history() -> None:
    """Two days of a device of this name."""
    with open_store() as store:
        for day in range(2):
            batches = hourly(wave(6, 0.02), start=START + timedelta(days=day))
            store_batches(store, [replace(each, target="pi5/litert:fp32@4") for each in batches])


@pytest.mark.usefixtures("history")
def test_the_text_ends_with_a_recommendation_and_needs_no_definition_of_the_device() -> None:
    shown = health("pi5")
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0] == "pi5"
    assert lines[-1].split()[0] == "recommended"
    told = {line.split("  ")[1] for line in lines[1:]}
    assert {"history", "usual canary", "now", "by hour", "by day", "void", "batches differ"} <= told
    assert "12 batches with a canary on 2 days" in shown.stdout


@pytest.mark.usefixtures("history")
def test_json_has_every_figure_by_name() -> None:
    document = json.loads(health("pi5", "--json").stdout)
    assert document["name"] == "pi5"
    assert document["between_batches"]["day"]["seen"] == 2
    assert document["between_batches"]["batch"]["seen"] == 12
    assert [level["of"] for level in document["by_day"]] == ["2025-01-01", "2025-01-02"]
    assert len(document["batches"]) == 12
    assert document["usual_canary_ns"].keys() == {"pi5/litert:fp32@4"}
    assert document["recommendation"]
    assert document["page"] is None


@pytest.mark.usefixtures("history")
def test_the_page_has_its_plots_and_loads_nothing(folder: Path) -> None:
    assert health("pi5", "--page", "pages/pi5.html").exit_code == 0
    page = (folder / "pages" / "pi5.html").read_text()
    for name in ("level", "hours", "days"):
        start = page.index(f'id="{name}-data">') + len(f'id="{name}-data">')
        figure = json.loads(page[start : page.index("</script>", start)])
        assert figure["data"][0]["x"]
    assert "Health of pi5" in page
    assert "src=" not in page.split("<script>")[0]


def test_what_a_database_says_of_a_device_is_shown_as_text_alone(folder: Path) -> None:
    odd = replace(DEVICE, cpu="<script>alert(1)</script>\x1b[31m")
    with open_store() as store:
        store_batches(store, [batch(START, device=odd)])
    assert "\x1b" not in health("host", "--page", "page.html").stdout
    assert "<script>alert" not in (folder / "page.html").read_text()


def test_a_database_without_canaries_of_the_device_ends_with_eight() -> None:
    with open_store() as store:
        store_batches(store, [batch(START, canary=False)])
    error = error_of("host")
    assert isinstance(error, StoreError)
    assert error.exit_code == 8
    assert "no canary of the device 'host'" in error.what
    assert error.fix


def test_a_known_device_that_was_never_measured_on_ends_with_eight() -> None:
    open_store().close()
    error = error_of("host")
    assert error.exit_code == 8
    assert "knows nothing of the device 'host'" in error.what


def test_an_unknown_device_ends_with_six_and_the_known_ones_are_listed() -> None:
    open_store().close()
    error = error_of("nobody")
    assert isinstance(error, TargetError)
    assert "known devices are host" in error.why


def test_no_database_is_made_to_be_asked(folder: Path) -> None:
    assert error_of("host").exit_code == 8
    assert not (folder / "latency.db").exists()


def test_a_clock_that_was_set_back_is_told() -> None:
    first, *others = hourly([1.0] * 11)
    with open_store() as store:
        store_batches(store, [*others, first])
    shown = health("host")
    assert shown.exit_code == 0
    assert "the clock was set back between them" in shown.stdout


def test_a_page_that_cannot_be_written_is_an_error(folder: Path) -> None:
    with open_store() as store:
        store_batches(store, hourly([1.0] * 3))
    (folder / "file").write_text("")
    assert error_of("host", "--page", "file/page.html").what
