"""``lathe devices watch`` tells who measures what; see ``devices.locking.doing`` for how it is known."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from devices.connections import LocalConnection
from devices.locking import Doing
from devices.locking.lock import device_lock
from devices.measurement.conditions import Conditions
from pipeline.cli.devices.arguments import devices_app
from pipeline.cli.devices.watching import Watched, watched_text
from tests.places import ROOT


@pytest.fixture(autouse=True)
def _own_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "devices.toml"
    file.write_text('[devices.pi5]\nconnection = "ssh"\nhost = "pi5.invalid"\n')
    monkeypatch.setenv("LATHE_DEVICES", str(file))
    monkeypatch.setenv("LATHE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def watch(*options: str) -> str:
    ended = CliRunner().invoke(devices_app, ["watch", "--once", *options])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_devices_are_free_as_far_as_this_machine_knows_and_none_is_contacted() -> None:
    free = "free, as far as this machine knows"
    assert watch().splitlines() == [f"host  {free}", f"pi5   {free}"]
    document = json.loads(watch("--json"))
    nothing = {"fault": None, "held": [], "held_by_others": None, "waiting": []}
    assert document["devices"] == [{"name": name, **nothing} for name in ("host", "pi5")]


def test_what_cannot_be_used_is_not_free_and_pools_are_told(tmp_path: Path) -> None:
    with (tmp_path / "devices.toml").open("a") as stream:
        stream.write(
            '[devices.pi4]\nconnection = "ssh"\nhost = "pi4.invalid"\n[devices.wrong]\nconnection = "ssh"\n'
            '[pool.boards]\nmembers = ["pi4", "pi5"]\n[pool.alone]\nmembers = ["pi4"]\n'
        )
    lines = dict(line.split(maxsplit=1) for line in watch().splitlines())
    assert lines["pi5"] == "free, as far as this machine knows"
    assert lines["wrong"] == "cannot be used: host is missing"
    assert lines["boards"].startswith("cannot be used: 'pi4' is in the pool 'alone' too")
    (tmp_path / "devices.toml").write_text(
        (tmp_path / "devices.toml").read_text().partition("[pool.alone]")[0]
    )
    assert watch().splitlines()[-1].split(maxsplit=1) == ["boards", "pool of pi4 and pi5"]
    document = json.loads(watch("--json"))
    faults = {each["name"]: each["fault"] for each in document["devices"]}
    assert [name for name, fault in faults.items() if fault] == ["wrong"]
    assert "host is missing" in faults["wrong"]
    assert document["pools"] == [{"name": "boards", "fault": None, "members": ["pi4", "pi5"]}]


def test_who_measures_is_shown_with_what_it_knows() -> None:
    with device_lock("host", LocalConnection(), what="host/litert:fp32@1") as lock:
        lock.tell_conditions(Conditions(temperature_millicelsius=(51_000,), battery_percent=80))
        lines = watch().splitlines()
        (held,) = json.loads(watch("--json"))["devices"][0]["held"]
    assert re.match(r"host  host/litert:fp32@1, for \d+ s, 51 °C and battery 80 % \d+ s ago, ", lines[0])
    assert (held["what"], held["holds"], held["temperature_millicelsius"]) == (
        "host/litert:fp32@1",
        True,
        51_000,
    )


def test_other_programs_that_hold_this_machine_are_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "lathe-device.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert watch().splitlines()[0] == "host  held by another program"


def test_another_python_of_this_machine_is_held_with_it(tmp_path: Path) -> None:
    (tmp_path / "devices.toml").write_text('[devices.other]\nconnection = "local"\npython = "python3"\n')
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "lathe-device.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert watch().splitlines() == [f"{name:5}  held by another program" for name in ("host", "other")]


def test_lines_of_json_go_on_until_the_reader_leaves() -> None:
    command = [
        sys.executable,
        "-c",
        "from pipeline.cli.main import main; main()",
        "devices",
        "watch",
        "--json",
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.terminate()
        process.communicate()
    assert all([each["name"] for each in line["devices"]] == ["host", "pi5"] for line in lines)


def test_the_text_has_progress_and_the_queue() -> None:
    holder = Doing("pi5", "ann@lab, process 7", "pi5/litert:fp32@4", "2026-01-01T00:00:00Z", True, "", 12, 48)
    waiter = Doing(
        "pi5", "bob@lab, process 9", "pi5/onnxruntime:fp32@1", "2026-01-01T00:01:00Z", False, "ann has it"
    )
    devices = [Watched("host"), Watched("pi5", (holder,), (waiter,))]
    assert watched_text(devices, datetime(2026, 1, 1, 0, 2, tzinfo=UTC)).splitlines() == [
        "host  free, as far as this machine knows",
        "pi5   pi5/litert:fp32@4, 12/48 launches, for 2 min 00 s, ann@lab, process 7",
        "      waiting: bob@lab, process 9 for 1 min 00 s, with pi5/onnxruntime:fp32@1: ann has it",
    ]
