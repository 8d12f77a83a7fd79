"""What else a device is doing right now, for a progress line that says why a measurement waits.

A reading takes ``WINDOW_S`` and a few processes on the device. It decides nothing: which launches count is
decided from what was seen beside each launch (``devices.measurement.verdict``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from devices.connections import Connection
from devices.errors import MeasurementError
from devices.inventory.devices import connected
from devices.measurement.verdict import OTHER_SHARE, STOLEN_SHARE

__all__ = ["OtherLoad", "busy_with"]

WINDOW_S = 0.5
TOP = 3
"""Processes that are named."""
_LEAST_CORES = 0.05
"""What takes less of a processor is not named."""
_TIMEOUT_S = 30.0

# One process reads all files: a shell that reads hundreds of them would be the load that is looked for.
# Source: proc(5).
_SCRIPT = r"""
LC_ALL=C; export LC_ALL
exec 2>/dev/null
look() { echo "uptime $(cat /proc/uptime)"; head -n 1 /proc/stat; cat /proc/[0-9]*/stat; }
echo "ticks $(getconf CLK_TCK || echo 100)"
echo "processors $(getconf _NPROCESSORS_ONLN || nproc)"
look
echo again
sleep "$1" || sleep 1
look
echo end
"""


@dataclass(frozen=True)
class OtherLoad:
    """What the processors of a device did for others than this process and its children.

    Attributes:
        cores: processors of the device.
        busy_cores: how many of them others kept busy, on average over the reading.
        stolen_cores: how many the hypervisor gave to other machines.
        processes: the busiest others by name, with how many cores each took, the busiest first. Android and
            containers hide processes, so that they may add up to less than ``busy_cores``.
    """

    cores: int
    busy_cores: float
    stolen_cores: float = 0.0
    processes: tuple[tuple[str, float], ...] = ()

    @property
    def disturbs(self) -> bool:
        """A launch beside this load would not count, by the shares of ``devices.measurement.verdict``."""
        return self.busy_cores >= OTHER_SHARE * self.cores or self.stolen_cores >= STOLEN_SHARE * self.cores

    def __str__(self) -> str:
        """One phrase, such as ``1.3 of 2 cores are busy (ffmpeg 0.9, pytest 0.4)``."""
        named = ", ".join(f"{name} {cores:.1f}" for name, cores in self.processes)
        parts = [f"{self.busy_cores:.1f} of {self.cores} cores are busy" + (f" ({named})" if named else "")]
        if self.stolen_cores >= _LEAST_CORES:
            parts.append(f"the hypervisor gives {self.stolen_cores:.1f} to other machines")
        return ", ".join(parts)


def busy_with(device: str, *, connection: Connection | None = None) -> OtherLoad:
    """Look at a device for ``WINDOW_S``. It needs no lock, and no Python on the device.

    Args:
        device: its name.
        connection: an open connection to use instead of a new one; it stays open.

    Raises:
        TargetError: no such device, or it cannot be reached.
        MeasurementError: its kernel does not tell.
    """
    with connected(device, connection) as opened:
        argv = ("sh", "-c", _SCRIPT, "lathe-busy", f"{WINDOW_S:g}")
        lines, ended = opened.ask(argv, timeout_s=_TIMEOUT_S)
        own = os.getpid() if opened.shares_clock else None
    try:
        return parse_load(lines, own)
    except (ValueError, ArithmeticError, LookupError) as error:
        raise MeasurementError(
            f"'{device}' does not say what it is doing", why=ended.stderr_tail or f"/proc gave {error!r}"
        ) from error


def parse_load(lines: Sequence[str], own: int | None) -> OtherLoad:
    """The load between the two readings in the script's output.

    Args:
        lines: of the script.
        own: number of a process there that is left out, with its descendants.

    Raises:
        ValueError, ArithmeticError, LookupError: something is missing, has another form, or is too large.
    """
    middle = lines.index("again")
    facts = dict(line.split(" ", 1) for line in lines[:2])
    ticks, cores = int(facts["ticks"]), int(facts["processors"])
    before, after = _Reading(lines[2:middle]), _Reading(lines[middle + 1 : lines.index("end")])
    elapsed_ticks = max((after.uptime_s - before.uptime_s) * ticks, 1.0)
    spent = {
        number: max(0, process.ticks - (before.processes[number].ticks if number in before.processes else 0))
        for number, process in after.processes.items()
    }
    ours = _descendants(own, after.processes)
    by_name: dict[str, int] = {}
    for number in spent.keys() - ours:
        name = after.processes[number].name
        by_name[name] = by_name.get(name, 0) + spent[number]
    busiest = sorted(by_name.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    busy = after.busy - before.busy - sum(spent[number] for number in ours)
    return OtherLoad(
        cores,
        max(0.0, busy / elapsed_ticks),
        max(0.0, (after.stolen - before.stolen) / elapsed_ticks),
        tuple((name, used / elapsed_ticks) for name, used in busiest if used / elapsed_ticks >= _LEAST_CORES),
    )


@dataclass(frozen=True)
class _ProcessTime:
    name: str
    parent: int
    ticks: int


class _Reading:
    """Uptime, time of all processors and time of each process at one moment."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.uptime_s = float(lines[0].split()[1])
        total = [int(value) for value in lines[1].split()[1:9]]
        self.busy = sum(total[:3]) + sum(total[5:7])
        self.stolen = total[7] if len(total) > 7 else 0
        self.processes: dict[int, _ProcessTime] = {}
        for line in lines[2:]:
            head, _, tail = line.rpartition(")")
            number, _, name = head.partition(" (")
            fields = tail.split()
            if number.isdecimal() and len(fields) > 12:  # a name may hold a line end, which cuts the line
                spent = int(fields[11]) + int(fields[12])
                self.processes[int(number)] = _ProcessTime(name, int(fields[1]), spent)


def _descendants(own: int | None, processes: dict[int, _ProcessTime]) -> set[int]:
    found = {own} & processes.keys()
    while grown := {number for number, each in processes.items() if each.parent in found} - found:
        found |= grown
    return {number for number in found if number is not None}
