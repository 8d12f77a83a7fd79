"""The state of a device around a launch, and what its processors did meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Conditions:
    """The state of a device at one moment; ``None`` where it cannot be read.

    ``charging`` means that the battery takes up charge, which warms the device: a full battery does not, even
    on a charger. ``thermal_status`` is Android's, 0 (none) to 6 (shutdown). The fields of the GPU are of the
    one that the runtime uses; ``gpu_throttle_reasons`` is the driver's own word for why its clock is held
    down. ``boot_id`` is the kernel's random name for the time since the device was started.
    """

    load_1min: float | None = None
    memory_available_bytes: int | None = None
    cpu_frequency_khz: tuple[int, ...] | None = None
    governor: str | None = None
    temperature_millicelsius: tuple[int, ...] | None = None
    throttle_count: int | None = None
    battery_percent: int | None = None
    charging: bool | None = None
    thermal_status: int | None = None
    gpu_frequency_khz: int | None = None
    gpu_temperature_millicelsius: int | None = None
    gpu_throttle_reasons: str | None = None
    boot_id: str | None = None


@dataclass(frozen=True)
class Usage:
    """What the processors did while one model was loaded, warmed up and timed; ``None`` where unreadable.

    Attributes:
        wall_ns: how long that took by the monotonic clock.
        own_cpu_ns: processor time of the measuring process, all its threads.
        waiting_ns: how long its main thread was ready to run and was not let.
        other_cpu_ns: processor time of everything else on the machine, over all cores (the kernel counts
            it in ticks of 10 ms).
        stolen_ns: time that the hypervisor gave to other machines, over all cores.
        clock_jump_ns: by how much the wall clock moved more than the monotonic one.
    """

    wall_ns: int
    own_cpu_ns: int
    waiting_ns: int | None = None
    other_cpu_ns: int | None = None
    stolen_ns: int | None = None
    clock_jump_ns: int = 0


@dataclass(frozen=True)
class RunQueue:
    """How the measuring process got processors while the samples were taken.

    Attributes:
        waiting_ns: how long the thread that waited most was ready to run and was not let.
        slices: how often any of its threads got a processor, so at most so many samples were interrupted.
    """

    waiting_ns: int
    slices: int


def conditions_from_json(report: Mapping[str, Any]) -> Conditions:
    """Conditions from the agent's JSON, where what cannot be read is ``null`` or left out.

    Raises:
        TypeError, ValueError: a field is not a number.
    """
    return Conditions(
        load_1min=_optional(float, report.get("load_1min")),
        memory_available_bytes=_optional(int, report.get("memory_available_bytes")),
        cpu_frequency_khz=_optional(_integers, report.get("cpu_frequency_khz")),
        governor=_optional(str, report.get("governor")),
        temperature_millicelsius=_optional(_integers, report.get("temperature_millicelsius")),
        throttle_count=_optional(int, report.get("throttle_count")),
        battery_percent=_optional(int, report.get("battery_percent")),
        charging=_optional(bool, report.get("charging")),
        thermal_status=_optional(int, report.get("thermal_status")),
        gpu_frequency_khz=_optional(int, report.get("gpu_frequency_khz")),
        gpu_temperature_millicelsius=_optional(int, report.get("gpu_temperature_millicelsius")),
        gpu_throttle_reasons=_optional(str, report.get("gpu_throttle_reasons")),
        boot_id=_optional(str, report.get("boot_id")),
    )


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _optional(kind: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else kind(value)
