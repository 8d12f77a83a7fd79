"""The machine that the agent runs on: what it is, its state, and what a process takes of it.

All of it is read from files of the kernel; what a machine does not tell is None.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def identity() -> dict[str, Any]:
    """What kind of machine this is, and a digest that tells it from others of its kind."""
    machine_id = read("/etc/machine-id") or platform.node()
    release = dict(line.split("=", 1) for line in (read("/etc/os-release") or "").splitlines() if "=" in line)
    return {
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "os": release.get("PRETTY_NAME", platform.system()).strip('"'),
        "kernel": platform.release(),
        "instance": hashlib.sha256(machine_id.encode()).hexdigest(),
        "emulated": is_emulated(),
    }


def is_emulated() -> bool:
    """Whether another kind of processor runs this interpreter's code, as under QEMU's user mode.

    The kernel tells which program it started, and that is the emulator, a program for the real processor.
    QEMU hides that in /proc/self and /proc/PID, but not in /proc/thread-self (seen with 7.2).
    """
    ours, started = elf_machine(sys.executable), elf_machine("/proc/thread-self/exe")
    return ours is not None and started is not None and ours != started


def elf_machine(path: str) -> int | None:
    """The processor that a program is for, ``e_machine`` of its ELF header; None for another file."""
    try:
        with Path(path).open("rb") as stream:
            header = stream.read(20)
    except OSError:
        return None
    if len(header) < 20 or not header.startswith(b"\x7fELF"):
        return None
    return int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")


def cpu_name() -> str:
    """The name of the processor: x86 and some ARM kernels state it, boards have it in the device tree."""
    for line in (read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Hardware"):
            return value.strip()
    board = read("/proc/device-tree/model")
    return board.strip("\0") if board else platform.processor() or platform.machine()


def conditions() -> dict[str, Any]:
    """Load, memory, clocks, governor, temperatures, throttling, boot and battery now; see ``Conditions``."""
    cpus = Path("/sys/devices/system/cpu")
    governors = {read(path) or "" for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    throttled = read_numbers(cpus, "cpu[0-9]*/thermal_throttle/core_throttle_count")
    load = read("/proc/loadavg")
    available = [
        line.split()[1]
        for line in (read("/proc/meminfo") or "").splitlines()
        if line.startswith("MemAvailable:")
    ]
    return {
        "load_1min": float(load.split()[0]) if load else None,
        "memory_available_bytes": int(available[0]) * 1024 if available else None,
        "cpu_frequency_khz": read_numbers(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq"),
        "governor": ",".join(sorted(governors)) or None,
        "temperature_millicelsius": read_numbers(Path("/sys/class/thermal"), "thermal_zone*/temp"),
        "throttle_count": sum(throttled) if throttled else None,
        "boot_id": read("/proc/sys/kernel/random/boot_id"),
        **battery(),
    }


def battery() -> dict[str, Any]:
    """Charge of the first battery in percent, and whether it takes up more; nothing without a battery."""
    for supply in sorted(Path("/sys/class/power_supply").glob("*")):
        percent = read(supply / "capacity")
        if read(supply / "type") == "Battery" and percent is not None and percent.isdigit():
            return {"battery_percent": int(percent), "charging": is_charging(read(supply / "status"))}
    return {}


def is_charging(status: str | None) -> bool | None:
    """What a battery's status means, a word of the kernel's or a number of Android's; None if unknown.

    A full battery does not charge, nor does one that its charger holds back: only what flows in warms a
    device. Sources: ABI/testing/sysfs-class-power; ``BatteryManager.BATTERY_STATUS_*``.
    """
    if status in ("Charging", "2"):
        return True
    return False if status in ("Discharging", "3", "Not charging", "4", "Full", "5") else None


class UsageMeter:
    """What the processors do from now on; see ``devices.measurement.conditions.Usage``."""

    def __init__(self) -> None:
        self._start = self._read()

    def until_now(self) -> dict[str, Any]:
        """The fields of a Usage."""
        start, end = self._start, self._read()
        spent: dict[str, Any] = {
            name: None if value is None or start[name] is None else value - start[name]
            for name, value in end.items()
        }
        busy = spent.pop("busy_ns")
        return {
            "wall_ns": spent["monotonic_ns"],
            "own_cpu_ns": spent["own_cpu_ns"],
            "waiting_ns": spent["waiting_ns"],
            "other_cpu_ns": None if busy is None else max(0, busy - spent["own_cpu_ns"]),
            "stolen_ns": spent["stolen_ns"],
            "clock_jump_ns": spent["wall_clock_ns"] - spent["monotonic_ns"],
        }

    @staticmethod
    def _read() -> dict[str, Any]:
        scheduled = (read("/proc/self/schedstat") or "").split()
        ticks = [int(value) for value in (read("/proc/stat") or "").partition("\n")[0].split()[1:9]]
        return {
            "monotonic_ns": time.perf_counter_ns(),
            "wall_clock_ns": time.time_ns(),
            "own_cpu_ns": time.process_time_ns(),
            "waiting_ns": int(scheduled[1]) if len(scheduled) == 3 else None,
            # user, nice, system, irq, softirq; not idle, iowait, and steal, which is told apart
            "busy_ns": TICK_NS * (sum(ticks[:3]) + sum(ticks[5:7])) if len(ticks) == 8 else None,
            "stolen_ns": TICK_NS * ticks[7] if len(ticks) == 8 else None,
        }


class QueueMeter:
    """How this process gets processors from now on; see ``devices.measurement.conditions.RunQueue``."""

    def __init__(self) -> None:
        self._start = self._read()

    def until_now(self) -> dict[str, int] | None:
        """The fields of a RunQueue; None where the kernel does not tell."""
        end = self._read()
        if not end:
            return None
        spent = [
            tuple(now - then for now, then in zip(counts, self._start.get(thread, (0, 0))))
            for thread, counts in end.items()
        ]
        return {"waiting_ns": max(each[0] for each in spent), "slices": sum(each[1] for each in spent)}

    @staticmethod
    def _read() -> dict[str, tuple[int, int]]:
        """For each thread the time that it waited for a processor, and how often it got one."""
        found = {}
        for path in Path("/proc/self/task").glob("*/schedstat"):
            numbers = (read(path) or "").split()
            if len(numbers) == 3:
                found[path.parent.name] = (int(numbers[1]), int(numbers[2]))
        return found


def process_age_ns() -> int | None:
    """The time since this process was started, to a tick of 10 ms."""
    stat = read("/proc/self/stat")
    if stat is None or not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    started_ticks = int(stat.rpartition(")")[2].split()[19])
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started_ticks * TICK_NS


def reset_peak_memory() -> None:
    """Let the peak of resident memory start anew, where the kernel permits it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_bytes() -> int:
    """Peak resident memory of this process; an upper bound for a model that was not the first in it."""
    for line in (read("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read(path: str | Path) -> str | None:
    """A small text file without its last line end, or None."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


def read_numbers(folder: Path, pattern: str) -> list[int] | None:
    """The integers in all files that match, in the order of their names; None when there are none."""
    texts = [read(path) for path in sorted(folder.glob(pattern))]
    return [int(text) for text in texts if text and text.lstrip("-").isdigit()] or None
