"""Reads the state of an NVIDIA GPU by a device's shell.

Sources: ``nvidia-smi --help-query-gpu``; on Jetsons, which have none or one that tells little, the kernel's
devfreq and thermal zones in sysfs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from devices.connections import Connection

COMMAND_TIMEOUT_S = 60.0

_GPU_CONDITIONS = r"""
LC_ALL=C; export LC_ALL
exec 2>/dev/null
query=clocks.sm,temperature.gpu,clocks_throttle_reasons.active
echo "smi $(nvidia-smi --id=0 --query-gpu=$query --format=csv,noheader,nounits | sed -n '1p')"
for file in /sys/class/devfreq/*gpu*/cur_freq; do read -r hertz < "$file" && echo "hertz $hertz"; done
for zone in /sys/class/thermal/thermal_zone*; do
  read -r kind < "$zone/type"
  case $kind in gpu*|GPU*) read -r warmth < "$zone/temp" && echo "warmth $warmth";; esac
done
"""

_THROTTLE_REASONS = {
    0x02: "applications clocks setting",
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of ``clocks_throttle_reasons.active``; 0x01 means idle, which is none."""


def gpu_conditions(connection: Connection) -> dict[str, Any]:
    """The ``gpu_*`` fields of Conditions; ``None`` where unreadable."""
    lines: list[str] = []
    connection.run(("sh", "-c", _GPU_CONDITIONS), timeout_s=COMMAND_TIMEOUT_S, on_line=lines.append)
    return parse_gpu_conditions(lines)


def parse_gpu_conditions(lines: Sequence[str]) -> dict[str, Any]:
    """The same from lines ``smi MHz, Celsius, bits``, ``hertz`` and ``warmth`` (thousandths of a degree)."""
    read = readings(lines)
    megahertz, celsius, bits = ([*re.split(r",\s*", read.get("smi", "")), "", "", ""])[:3]
    hertz, warmth = read.get("hertz", ""), read.get("warmth", "")
    frequency = int(megahertz) * 1000 if megahertz.isdecimal() else None
    temperature = int(celsius) * 1000 if celsius.isdecimal() else None
    reasons = int(bits, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", bits) else None
    return {
        "gpu_frequency_khz": int(hertz) // 1000 if frequency is None and hertz.isdecimal() else frequency,
        "gpu_temperature_millicelsius": int(warmth)
        if temperature is None and warmth.isdecimal()
        else temperature,
        "gpu_throttle_reasons": None
        if reasons is None
        else ", ".join(name for bit, name in _THROTTLE_REASONS.items() if reasons & bit),
    }


def readings(lines: Sequence[str]) -> dict[str, str]:
    """``name value`` lines; the first of each name."""
    readings: dict[str, str] = {}
    for line in lines:
        name, _, value = line.rstrip("\r").partition(" ")
        readings.setdefault(name, value.strip())
    return readings
