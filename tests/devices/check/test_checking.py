from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import devices.added
import devices.check.checking
import devices.inventory.devices_file
from devices.check import DeviceReport, Problem, RuntimeReport, check_device, describe_device
from devices.check.report import hints_of
from devices.connections import LocalConnection
from devices.inventory.devices_file import user_file, write_device
from devices.locking.lock import device_lock
from devices.measurement.conditions import Conditions
from devices.measurement.measurement import DeviceIdentity
from devices.runtimes import find_runtime
from tests.devices.hostile_runtime import hostile_runtime
from tests.devices.local_shell import ShellConnection

IDENTITY = DeviceIdentity("aarch64", "Cortex-A76", 4, "Debian", "6.1", "0" * 64)


@pytest.fixture(autouse=True)
def _own_devices(tmp_path, monkeypatch):
    """devices.toml of the test's own, with a kind of connection whose far end is a shell on this machine."""
    entry = EntryPoint(
        "shell", "tests.devices.local_shell:ShellConnection", devices.inventory.devices_file.ENTRY_POINTS
    )
    monkeypatch.setattr(devices.added, "entry_points", lambda group: [entry] * (group == entry.group))
    monkeypatch.setenv("LATHE_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def runtimes(monkeypatch):
    def choose(*chosen) -> None:
        monkeypatch.setattr(devices.check.checking, "known_runtimes", lambda: chosen)

    choose(find_runtime("onnxruntime"))
    return choose


def define(name: str, **table) -> None:
    write_device(user_file(), name, table, replace=False)


def fixes(report: DeviceReport) -> str:
    assert report.problems and all(problem.fix for problem in report.problems)
    return " ".join(f"{problem.what} {problem.why} {problem.fix}" for problem in report.problems)


@pytest.mark.slow
@pytest.mark.parametrize("connection", ["local", "shell"])
def test_check_finds_what_a_device_is_and_runs_a_model_on_each_runtime(connection, runtimes):
    runtimes(find_runtime("onnxruntime"), find_runtime("litert"))
    python = sys.executable if connection == "local" else [sys.executable]
    define("board", connection=connection, python=python, emulated=True)
    steps: list[str] = []
    report = check_device("board", on_step=steps.append)
    assert report.ok, report
    assert (report.identity.cores >= 1, report.identity.emulated) == (True, True)
    assert report.conditions.load_1min is not None
    assert report.python.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert report.free_bytes > 0 and report.memory_bytes > 0
    assert [runtime.name for runtime in report.runtimes] == ["onnxruntime", "litert"]
    assert all(runtime.version and runtime.smoke_ns > 0 for runtime in report.runtimes)
    assert not report.lock.taken
    assert any("emulated" in hint for hint in report.hints)
    assert "trying litert" in steps


@pytest.fixture
def missing(tmp_path):
    """A runtime that is not installed."""
    engine = tmp_path / "missing_engine.py"
    engine.write_text("import no_such_runtime\n")
    return replace(find_runtime("onnxruntime"), engine=engine)


def test_check_reports_a_runtime_that_is_not_installed_as_a_fact(runtimes, missing):
    runtimes(find_runtime("onnxruntime"), missing)
    report = check_device("host")
    assert report.ok
    assert report.runtimes[1].version is None
    assert report.runtimes[1].detail


def test_a_python_without_numpy_is_not_said_to_lack_the_runtime(runtimes, tmp_path):
    engine = tmp_path / "bare_engine.py"
    engine.write_text("raise ModuleNotFoundError('no numpy', name='numpy')\n")
    runtimes(replace(find_runtime("onnxruntime"), engine=engine))
    report = check_device("host")
    assert report.runtimes[0].problem.what == "onnxruntime cannot be loaded on 'host'"


def test_check_reports_a_runtime_that_is_installed_and_cannot_be_loaded_as_a_problem(runtimes, tmp_path):
    engine = tmp_path / "broken_engine.py"
    engine.write_text("from json import no_such_name\n")
    runtimes(replace(find_runtime("onnxruntime"), engine=engine))
    report = check_device("host")
    assert not report.ok
    assert report.runtimes[0].problem.what == "onnxruntime cannot be loaded on 'host'"
    assert "no_such_name" in report.runtimes[0].problem.why
    assert "install" in report.runtimes[0].problem.fix


def test_check_says_how_to_mend_it_when_no_runtime_is_installed(runtimes, missing):
    runtimes(missing)
    report = check_device("host")
    assert not report.ok
    assert "has no runtime" in fixes(report)


def test_check_reports_a_runtime_whose_model_does_not_run_and_tries_the_next(runtimes, monkeypatch, tmp_path):
    monkeypatch.setattr(devices.check.checking, "CANARIES", tmp_path)
    (tmp_path / "canary.script").write_text("die")
    runtimes(hostile_runtime(), replace(find_runtime("onnxruntime"), engine=Path(__file__)))
    report = check_device("host")
    assert not report.ok
    assert "crashed-signal-11" in report.runtimes[0].problem.what
    assert report.runtimes[0].problem.fix
    assert len(report.runtimes) == 2


def test_check_understands_a_shell_that_prints_blank_lines_and_names_without_values(runtimes, monkeypatch):
    runtimes()
    execute = ShellConnection._execute
    greeting = "echo; echo '   '; echo 'memory '; echo 'sensor '; echo 'numpy '; echo ' x'; "
    monkeypatch.setattr(ShellConnection, "_execute", lambda self, command: execute(self, greeting + command))
    define("board", connection="shell", python=[sys.executable])
    report = check_device("board")
    assert "prints more than it is asked for" in fixes(report)
    assert report.free_bytes > 0 and report.memory_bytes > 0
    assert "numpy missing" not in report.python


def test_check_goes_on_without_python_when_there_is_none(runtimes):
    define("board", connection="shell", python=["/nonexistent/python"])
    report = check_device("board")
    assert not report.ok
    assert report.identity is not None and report.free_bytes > 0
    assert "/nonexistent/python" in fixes(report) and "devices.toml" in fixes(report)
    assert report.runtimes == ()


@pytest.mark.parametrize(
    ("says", "said"),
    [
        ("version 3.7.2", "3.8 or later"),
        ("version 3.9.2\\nwithout No module named numpy", "-m pip install numpy"),
        ("Python 2.7", "does not work as Python"),
    ],
)
def test_check_refuses_a_python_that_cannot_drive_a_runtime(says, said, runtimes, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nprintf '{says}\\n'\n")
    python.chmod(0o755)
    runtimes()
    define("board", connection="shell", python=[str(python)])
    assert said in fixes(check_device("board"))


def test_check_of_a_device_out_of_reach_says_why():
    pytest.importorskip("asyncssh")
    define("gone", connection="ssh", host="127.0.0.1", port=9, connect_timeout_s=5.0)
    report = check_device("gone")
    assert not report.ok
    assert report.identity is None and report.lock is None
    assert len(report.problems) == 1
    assert fixes(report)


def test_check_tells_who_uses_a_device_and_leaves_its_runtimes_alone(runtimes):
    with device_lock("host", LocalConnection()):
        report = check_device("host", lock_wait_s=0.1)
    assert report.lock.holder is not None
    assert "holds it since" in fixes(report)
    assert report.runtimes == ()
    assert report.identity is not None


def test_check_refuses_an_unknown_device():
    report = check_device("mars")
    assert not report.ok
    assert "no device 'mars'" in report.problems[0].what


def test_describe_tells_identity_conditions_and_lock_and_runs_nothing(runtimes):
    with device_lock("host", LocalConnection()):
        report = describe_device("host")
    assert report.ok
    assert report.identity is not None and report.conditions is not None
    assert report.lock.holder is not None
    assert report.runtimes == ()


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (Conditions(governor="ondemand"), "governor is ondemand"),
        (Conditions(governor="performance,powersave"), "governor"),
        (Conditions(battery_percent=10), "battery is at 10 %"),
        (Conditions(battery_percent=80, charging=True), "charging"),
        (Conditions(thermal_status=2), "throttles"),
        (Conditions(temperature_millicelsius=(40_000, 81_000)), "81 °C"),
        (Conditions(load_1min=2.5), "load 2.50"),
        (Conditions(memory_available_bytes=50_000_000), "50 MB of memory"),
    ],
)
def test_hints_say_what_makes_measurements_less_trustworthy(conditions, said):
    report = DeviceReport("a", "ssh", identity=IDENTITY, memory_bytes=10**9, free_bytes=10**10, folder="/f")
    quiet = Conditions(
        load_1min=0.1,
        governor="performance",
        temperature_millicelsius=(40_000,),
        memory_available_bytes=900_000_000,
        battery_percent=80,
        charging=False,
        thermal_status=0,
    )
    before = list(hints_of(replace(report, conditions=quiet), swapping=False))
    hints = list(hints_of(replace(report, conditions=conditions), swapping=False))
    assert all("flock" in hint for hint in before)
    assert any(said in hint for hint in hints)


def test_hints_name_a_full_disk_and_swapping():
    report = DeviceReport("a", "ssh", free_bytes=1000, folder="/f")
    hints = " ".join(hints_of(report, swapping=True))
    assert "disk" in hints and "swapping" in hints


def test_a_report_is_not_ok_when_one_runtime_is_broken():
    broken = RuntimeReport("litert", False, version="1", problem=Problem("it crashed"))
    assert not DeviceReport("a", "ssh", runtimes=(broken,)).ok
    assert DeviceReport("a", "ssh", runtimes=(replace(broken, problem=None),)).ok
