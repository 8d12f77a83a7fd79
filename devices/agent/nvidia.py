"""The state of an NVIDIA GPU, by the driver's tool; what that does not tell, by the kernel of a Jetson.

The host reads the same by a shell, where it cannot push this (``devices.runtimes.native.nvidia``).

Sources: ``nvidia-smi --help-query-gpu``; NVML, ``nvmlClocksEventReasons``.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from .machine import read

FIRST = "0"
TIMEOUT_S = 10
FIELDS = ("clocks.sm", "temperature.gpu", "clocks_throttle_reasons.active")
"""What the driver's tool is asked for."""

THROTTLE_REASONS = {
    0x02: "applications clocks setting",
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of ``clocks_throttle_reasons.active``; 0x01 means idle, which is none."""

_MOST_DIGITS = 18


def smi(gpu: str, *fields: str) -> list[str]:
    """What the driver says of a GPU, given by index or UUID; empty where its tool is missing or silent."""
    try:
        found = subprocess.run(
            ["nvidia-smi", f"--id={gpu}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    values = [value.strip() for value in found.stdout.split(",")]
    return values if len(values) == len(fields) else []


def conditions(gpu: str) -> dict[str, Any]:
    """Clock, temperature and what holds the clock down: the ``gpu_*`` of ``Conditions``, None if not told."""
    hertz = [read(path) or "" for path in sorted(Path("/sys/class/devfreq").glob("*gpu*/cur_freq"))]
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*"))
    warmth = [read(zone / "temp") or "" for zone in zones if (read(zone / "type") or "").lower()[:3] == "gpu"]
    return parse_conditions(smi(gpu, *FIELDS), *(hertz[:1] or [""]), *(warmth[:1] or [""]))


def parse_conditions(told: list[str], hertz: str, warmth: str) -> dict[str, Any]:
    """The ``gpu_*`` of ``Conditions`` from what was read of a GPU; empty text, or none, for what was not.

    Args:
        told: what the driver's tool says of ``FIELDS``: MHz, degrees Celsius, bits.
        hertz: the clock by devfreq, where the kernel of a Jetson has its GPU.
        warmth: the temperature by a thermal zone, thousandths of a degree Celsius.
    """
    megahertz, celsius, mask = (*told, "", "", "")[:3]
    frequency_khz = int(megahertz) * 1000 if _is_whole(megahertz) else None
    if frequency_khz is None and _is_whole(hertz):
        frequency_khz = int(hertz) // 1000
    temperature = int(celsius) * 1000 if _is_whole(celsius) else None
    if temperature is None and _is_whole(warmth):
        temperature = int(warmth)
    return {
        "gpu_frequency_khz": frequency_khz,
        "gpu_temperature_millicelsius": temperature,
        "gpu_throttle_reasons": throttle_reasons(mask),
    }


def _is_whole(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MOST_DIGITS


def throttle_reasons(mask: str) -> str | None:
    """The names of the bits that are set, empty for none; None where the driver gives no mask."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return None
    return ", ".join(name for bit, name in THROTTLE_REASONS.items() if bits & bit)
