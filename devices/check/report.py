"""What a check of a device finds, and what makes measurements there less trustworthy than they could be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from devices.locking.lock import LockState
from devices.measurement.conditions import Conditions
from devices.measurement.measurement import DeviceIdentity
from devices.runtimes.capabilities import Capabilities
from devices.words import count_of

_LITTLE_SPACE_BYTES = 200_000_000
_HOT_MILLICELSIUS = 75_000
"""A little below where boards begin to throttle: the Raspberry Pi does at 80 °C (its documentation)."""
_LOW_BATTERY_PERCENT = 30


@dataclass(frozen=True)
class Problem:
    """Something that keeps a device from being measured on: what happened, why, and how to mend it."""

    what: str
    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class RuntimeReport:
    """One runtime on a device.

    Attributes:
        native: its makers' tool, and not Lathe's agent.
        version: ``None`` where it is not installed, which is no problem; ``detail`` says why it seems so.
        smoke_ns: how long an inference of the smoke model took, nanoseconds; no measurement.
        problem: why it is installed and yet cannot be used.
        capabilities: what it can be asked for with the target's own options left out.
    """

    name: str
    native: bool
    version: str | None = None
    detail: str = ""
    smoke_ns: int | None = None
    problem: Problem | None = None
    capabilities: Capabilities = field(default_factory=Capabilities)


@dataclass(frozen=True)
class DeviceReport:
    """What a check of one device found; ``None`` for what it could not find out.

    Attributes:
        python: version of the Python there, and of its numpy.
        folder: where Lathe's files go on the device.
        free_bytes: space left there.
        sensors: temperature sensors with what they read, thousandths of a degree Celsius.
        lock: who has and wants the device, before the check asked for it itself.
        problems: what has to be mended before anything can be measured.
        hints: what makes measurements less trustworthy than they could be.
    """

    name: str
    connection: str
    emulated: bool = False
    identity: DeviceIdentity | None = None
    conditions: Conditions | None = None
    python: str | None = None
    folder: str | None = None
    free_bytes: int | None = None
    memory_bytes: int | None = None
    sensors: tuple[tuple[str, int], ...] = ()
    lock: LockState | None = None
    runtimes: tuple[RuntimeReport, ...] = ()
    problems: tuple[Problem, ...] = ()
    hints: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """It can be measured on."""
        return not self.problems and all(runtime.problem is None for runtime in self.runtimes)


def hints_of(report: DeviceReport, swapping: bool) -> Iterator[str]:
    """What makes measurements on a device less trustworthy than they could be."""
    now = report.conditions or Conditions()
    if report.emulated:
        yield "the processor is emulated: its times say nothing of a real one"
    if now.governor is not None and set(now.governor.split(",")) != {"performance"}:
        yield (
            f"the governor is {now.governor}, so that clocks wander; where you may: "
            "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        )
    if now.battery_percent is not None and now.battery_percent < _LOW_BATTERY_PERCENT:
        yield f"the battery is at {now.battery_percent} %, where phones save energy: charge it first"
    if now.charging:
        yield "the battery is charging, which heats the device: let it fill up, or connect it by network"
    if now.thermal_status:
        yield f"it throttles for heat (thermal status {now.thermal_status}): let it cool"
    elif now.temperature_millicelsius and max(now.temperature_millicelsius) >= _HOT_MILLICELSIUS:
        hottest = max(now.temperature_millicelsius) / 1000
        yield f"it is hot ({hottest:.0f} °C): let it cool, or give it a fan"
    if swapping:
        yield "it is swapping: end what uses its memory"
    if now.load_1min is not None and report.identity and now.load_1min > max(0.5, report.identity.cores / 4):
        cores = count_of(report.identity.cores, "core")
        yield f"it is busy (load {now.load_1min:.2f} on {cores}): end what runs there"
    if (
        report.memory_bytes
        and now.memory_available_bytes is not None
        and now.memory_available_bytes < report.memory_bytes / 10
    ):
        yield f"only {now.memory_available_bytes / 1e6:.0f} MB of memory are free: end what uses it"
    if report.free_bytes is not None and report.free_bytes < _LITTLE_SPACE_BYTES:
        yield f"only {report.free_bytes / 1e6:.0f} MB of disk are free in {report.folder}: make room"
    if report.identity is not None and report.lock is None:
        yield "it has no flock command, so that only this host keeps measurements apart: install util-linux"
