"""Reads the conditions of a device from what the agent reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from devices.measurement import Conditions

T = TypeVar("T")


def conditions_from_json(report: Mapping[str, Any]) -> Conditions:
    """Conditions from the agent's JSON, where ``null`` stands for what cannot be read.

    Raises:
        KeyError, TypeError, ValueError: the report lacks a field, or a field is not a number.
    """
    frequencies = report["cpu_frequency_khz"]
    temperatures = report["temperature_millicelsius"]
    return Conditions(
        load_1min=_optional(float, report["load_1min"]),
        memory_available_bytes=_optional(int, report["memory_available_bytes"]),
        cpu_frequency_khz=None if frequencies is None else tuple(int(value) for value in frequencies),
        governor=_optional(str, report["governor"]),
        temperature_millicelsius=None
        if temperatures is None
        else tuple(int(value) for value in temperatures),
        throttle_count=_optional(int, report["throttle_count"]),
    )


def _optional(kind: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else kind(value)
