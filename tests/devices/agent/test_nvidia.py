"""The state of an NVIDIA GPU, by a stand-in for the driver's tool that prints what the real one does."""

from __future__ import annotations

import pytest

from devices.agent import nvidia


@pytest.fixture
def say(tmp_path, monkeypatch):
    """Makes nvidia-smi say something; it keeps its arguments."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def say(text: str) -> None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/arguments'\necho '{text}'\n")
        tool.chmod(0o755)

    return say


@pytest.mark.parametrize(
    ("mask", "reasons"),
    [
        ("0x0000000000000001", ""),
        ("0x0000000000000044", "software power cap, hardware thermal slowdown"),
        ("[N/A]", None),
    ],
)
def test_conditions_name_what_holds_the_clock_of_the_gpu_down(say, tmp_path, mask, reasons):
    say(f"1980, 41, {mask}")
    assert nvidia.conditions("GPU-12") == {
        "gpu_frequency_khz": 1_980_000,
        "gpu_temperature_millicelsius": 41_000,
        "gpu_throttle_reasons": reasons,
    }
    assert "--id=GPU-12 " in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(
    "text", ["", "[N/A], [N/A], [N/A]", "No devices were found", "1980, 41", f"{'9' * 5000}, {'9' * 5000}, x"]
)
def test_conditions_are_unknown_when_the_drivers_tool_tells_nothing(say, text):
    say(text)
    assert nvidia.conditions(nvidia.FIRST) == {
        "gpu_frequency_khz": None,
        "gpu_temperature_millicelsius": None,
        "gpu_throttle_reasons": None,
    }


def test_smi_gives_the_values_in_the_order_of_the_fields(say):
    say("NVIDIA H200, 570.1")
    assert nvidia.smi(nvidia.FIRST, "name", "driver_version") == ["NVIDIA H200", "570.1"]
    assert nvidia.smi(nvidia.FIRST, "name") == []
