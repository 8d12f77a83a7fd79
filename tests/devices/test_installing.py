from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from devices import installing
from devices.installing import how_to_install
from tests.places import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
SOURCES = [
    path for package in ("devices", "latency_db", "pipeline") for path in (ROOT / package).rglob("*.py")
]


def test_the_command_names_checkout_and_extra() -> None:
    command = how_to_install("ssh")
    assert command.startswith(f"cd {ROOT} && ")
    assert command.endswith('pip install -c constraints.txt -e ".[ssh]"')


def test_pip_of_the_checkouts_own_environment_is_named_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "my checkout"
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "pip").touch()
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(installing, "_CHECKOUT", checkout)
    monkeypatch.setattr("sys.executable", str(checkout / ".venv" / "bin" / "python"))
    expected = f"""cd '{checkout}' && .venv/bin/pip install -c constraints.txt -e ".[nni]\""""
    assert how_to_install("nni") == expected


def test_a_copy_without_its_project_file_names_the_extra_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "_CHECKOUT", tmp_path)
    assert "[nni]" in how_to_install("nni")


def test_no_source_names_a_package_that_no_index_has() -> None:
    assert not [path for path in SOURCES if "lathe-deploy[" in path.read_text("utf-8")]


def test_every_extra_that_is_named_exists() -> None:
    named = {
        text.split('"')[0]
        for path in SOURCES
        for text in path.read_text("utf-8").replace("'", '"').split('how_to_install("')[1:]
    }
    assert named
    assert named <= EXTRAS.keys()
