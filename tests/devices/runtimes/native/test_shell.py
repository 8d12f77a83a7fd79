from __future__ import annotations

import hashlib
import os
import platform
import shutil
from pathlib import Path

import pytest

from devices.agent import machine
from devices.connections import LocalConnection
from devices.connections.base import Completed
from devices.errors import MeasurementError
from devices.measurement.conditions import Conditions
from devices.measurement.measurement import DeviceIdentity
from devices.runtimes.native.shell import (
    identify_device,
    parse_conditions,
    parse_identity,
    read_conditions,
    read_platform,
)
from tests.devices.runtimes.native.native_targets import STANDINS

ANDROID = STANDINS / "android"


@pytest.fixture
def android(monkeypatch) -> LocalConnection:
    """This machine, where Android's commands are found."""
    monkeypatch.setenv("PATH", f"{ANDROID}{os.pathsep}{os.environ['PATH']}")
    return LocalConnection()


def test_identify_device_agrees_with_the_agent():
    told = identify_device(LocalConnection(), emulated=True)
    device = DeviceIdentity(**told)
    assert device.emulated
    known = {name: value for name, value in machine.identity().items() if name in told}
    known.pop("accelerator", None)
    known.pop("emulated", None)
    assert {name: told[name] for name in known} == known


def test_read_conditions_agrees_with_the_agent():
    told = read_conditions(LocalConnection())
    assert told.load_1min == pytest.approx(os.getloadavg()[0], abs=1)
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < told.memory_available_bytes <= total
    assert told.boot_id == machine.conditions()["boot_id"]
    governors = sorted(
        {
            path.read_text().strip()
            for path in Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_governor")
        }
    )
    assert told.governor == (",".join(governors) or None)


def test_read_platform_names_system_and_processor():
    assert read_platform(LocalConnection()) == f"linux-{platform.machine()}"


def test_read_platform_takes_no_path_from_a_device(monkeypatch, tmp_path):
    (tmp_path / "uname").write_text("#!/bin/sh\necho ../../../tmp/tools\n")
    (tmp_path / "uname").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(MeasurementError, match="did not say what it is"):
        read_platform(LocalConnection())


def test_identify_device_hides_the_serial_number_of_a_phone(android):
    told = identify_device(android)
    assert told["cpu"] == "Google Pixel 7, Google GS201"
    assert told["os"] == "Android 14 google/panther/panther:14/AP1A.240505.004/11583682:user/release-keys"
    assert told["instance"] == hashlib.sha256(b"0A1B2C3D4E5F").hexdigest()
    assert told["accelerator"].startswith("ARM, Mali-G710, OpenGL ES 3.2")
    assert "0A1B2C3D4E5F" not in str(told)
    assert read_platform(android).startswith("android-")


def test_read_conditions_reads_battery_and_thermal_status_of_a_phone(android):
    told = read_conditions(android)
    assert (told.battery_percent, told.charging, told.thermal_status) == (85, True, 1)


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox", "mksh"])
def test_scripts_run_in_the_shells_of_devices(android, monkeypatch, shell, tmp_path):
    path = shutil.which(shell)
    if path is None and shell != "dash":
        pytest.skip(f"the Debian package {shell} is not installed")
    (tmp_path / "sh").write_text(f'#!/bin/sh\nexec {path} {"sh" if shell == "busybox" else ""} "$@"\n')
    (tmp_path / "sh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert identify_device(android)["cpu"] == "Google Pixel 7, Google GS201"
    assert read_conditions(android).battery_percent == 85
    assert read_platform(android).startswith("android-")


@pytest.mark.parametrize(
    ("status", "charging"),
    [("2", True), ("3", False), ("4", False), ("5", False), ("1", None), ("x", None), (None, None)],
)
def test_charging_means_that_the_battery_takes_up_charge(status, charging):
    lines = [] if status is None else ["Current Battery Service state:", f"  status: {status}"]
    assert parse_conditions({"battery": lines}).charging is charging


def test_battery_is_told_in_percent_of_its_scale():
    assert parse_conditions({"battery": ["level: 43", "scale: 200"]}).battery_percent == 22


def test_parse_conditions_sums_throttling_and_joins_governors():
    told = parse_conditions(
        {
            "frequency": ["1800000", "2400000", ""],
            "governor": ["schedutil", "performance", "schedutil"],
            "temperature": ["41000", "-1000", "hot"],
            "throttled": ["2", "3"],
            "thermal": ["Thermal Status: 0"],
        }
    )
    assert told == Conditions(
        cpu_frequency_khz=(1_800_000, 2_400_000),
        governor="performance,schedutil",
        temperature_millicelsius=(41_000, -1_000),
        throttle_count=5,
        thermal_status=0,
    )


MANY_DIGITS = "9" * 5000


def test_numbers_with_thousands_of_digits_are_not_known():
    told = parse_conditions(
        {
            "load": [f"{MANY_DIGITS}.5 0.1"],
            "memory": [MANY_DIGITS],
            "thermal": [
                "Current temperatures from HAL:",
                f"Temperature{{mValue={MANY_DIGITS}.0, mType=0, mName=CPU}}",
                "Current cooling devices from HAL:",
            ],
        }
    )
    assert told == Conditions()


@pytest.mark.parametrize("cores", [MANY_DIGITS, "0", "-4", "many"])
def test_a_device_without_a_number_of_cores_did_not_say_what_it_is(cores):
    with pytest.raises(MeasurementError, match="did not say what it is"):
        parse_identity({"machine": ["aarch64"], "cores": [cores]})


def test_temperatures_are_androids_where_it_hides_the_zones(android):
    lines = ANDROID.joinpath("dumpsys").read_text().partition("thermalservice)")[2].splitlines()
    assert parse_conditions({"thermal": lines}).temperature_millicelsius == (33_300, 41_000)


@pytest.mark.parametrize(
    "readings",
    [
        {},
        {
            "load": [""],
            "memory": ["many"],
            "frequency": [],
            "battery": ["level"],
            "thermal": ["Thermal Status: high"],
        },
        {"load": ["nan 1"], "memory": ["9" * 30], "throttled": ["1.5"]},
    ],
)
def test_parse_conditions_leaves_out_what_cannot_be_read(readings):
    assert parse_conditions(readings) == Conditions()


def test_parse_identity_names_a_board_by_its_device_tree():
    readings = {
        "machine": ["aarch64"],
        "cores": ["4"],
        "board": ["Raspberry Pi 5 Model B"],
        "kernel": ["6.6"],
    }
    told = parse_identity(readings)
    assert (told["cpu"], told["os"], told["accelerator"]) == ("Raspberry Pi 5 Model B", "Linux", "")


@pytest.mark.parametrize("readings", [{}, {"machine": ["x"]}, {"machine": ["x"], "cores": ["some"]}])
def test_parse_identity_refuses_a_device_that_says_too_little(readings):
    with pytest.raises(MeasurementError, match="did not say"):
        parse_identity(readings)


class Silent(LocalConnection):
    """A device that goes away in the middle of its answer."""

    def run(self, argv, *, on_line=None, **options):
        on_line("machine aarch64")
        return Completed(-1, "connection cut", lost=True)


def test_identify_device_refuses_half_an_answer():
    with pytest.raises(MeasurementError, match="did not say") as caught:
        identify_device(Silent())
    assert "connection cut" in caught.value.why


def test_read_conditions_gives_what_came_when_the_device_goes_away():
    assert read_conditions(Silent()) == Conditions()
