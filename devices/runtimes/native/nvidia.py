"""Reads the state of an NVIDIA GPU by a device's shell; ``devices.agent.nvidia`` says what it means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from devices.agent import nvidia
from devices.connections import Connection

COMMAND_TIMEOUT_S = 60.0

_GPU_CONDITIONS = r"""
LC_ALL=C; export LC_ALL
exec 2>/dev/null
echo "smi $(nvidia-smi --id=0 --query-gpu="$1" --format=csv,noheader,nounits | sed -n '1p')"
for file in /sys/class/devfreq/*gpu*/cur_freq; do read -r hertz < "$file" && echo "hertz $hertz"; done
for zone in /sys/class/thermal/thermal_zone*; do
  read -r kind < "$zone/type"
  case $kind in gpu*|GPU*) read -r warmth < "$zone/temp" && echo "warmth $warmth";; esac
done
"""


def gpu_conditions(connection: Connection) -> dict[str, Any]:
    """The ``gpu_*`` fields of Conditions; ``None`` where unreadable."""
    argv = ("sh", "-c", _GPU_CONDITIONS, "lathe-gpu", ",".join(nvidia.FIELDS))
    lines, _ = connection.ask(argv, timeout_s=COMMAND_TIMEOUT_S)
    return parse_gpu_conditions(lines)


def parse_gpu_conditions(lines: Sequence[str]) -> dict[str, Any]:
    """The same from lines ``smi MHz, Celsius, bits``, ``hertz`` and ``warmth`` (thousandths of a degree)."""
    read = readings(lines)
    told = re.split(r",\s*", read.get("smi", ""))
    return nvidia.parse_conditions(told, read.get("hertz", ""), read.get("warmth", ""))


def readings(lines: Sequence[str]) -> dict[str, str]:
    """``name value`` lines; the first of each name."""
    readings: dict[str, str] = {}
    for line in lines:
        name, _, value = line.rstrip("\r").partition(" ")
        readings.setdefault(name, value.strip())
    return readings
