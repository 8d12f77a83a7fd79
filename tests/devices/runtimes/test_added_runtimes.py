"""Runtimes of other distributions that cannot be loaded are clear errors, whatever their modules do."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import devices.added
import devices.runtimes
from devices.errors import TargetError
from devices.inventory.devices_file import read_file

FAULTS = {
    "raises": "1 / 0",
    "ends": "raise SystemExit(0)",
    "lacks": "from nowhere import nothing",
    "is none": "THING = 7",
}


@pytest.fixture(params=FAULTS.values(), ids=FAULTS)
def entry(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EntryPoint:
    """An entry point whose module has a fault."""
    name = f"faulty_{abs(hash(request.param))}"
    (tmp_path / f"{name}.py").write_text(f"{request.param}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return EntryPoint("faulty", f"{name}:THING", "lathe.runtimes")


def test_a_runtime_that_cannot_be_loaded_is_named(entry: EntryPoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.added, "entry_points", lambda group: [entry])
    devices.runtimes._added_runtimes.cache_clear()
    with pytest.raises(TargetError, match="the runtime 'faulty' of a distribution cannot be used"):
        devices.runtimes.known_runtimes()
    devices.runtimes._added_runtimes.cache_clear()


def test_a_connection_that_cannot_be_loaded_is_named(
    entry: EntryPoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices.added, "entry_points", lambda group: [entry])
    (tmp_path / "devices.toml").write_text('[devices.board]\nconnection = "faulty"\n')
    fault = read_file(tmp_path / "devices.toml")["board"].fault
    assert fault is not None
    assert "connection 'faulty'" in fault.why
