"""Reads the conditions of a device from what the agent reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from devices.measurement.measurement import Conditions

T = TypeVar("T")


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
    )


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _optional(kind: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else kind(value)
