"""What ``lathe devices`` prints with ``--json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from devices.check import DeviceReport
from devices.inventory import Device


def device_json(device: Device) -> dict[str, Any]:
    """How a device is defined."""
    definition = device.definition
    return {
        "name": device.name,
        "connection": "local" if definition is None else definition.connection,
        "file": None if definition is None else str(definition.file),
        "emulated": device.emulated,
        "has_python": device.has_python,
        "tools": dict(device.tools),
        "table": None if definition is None else dict(definition.table),
        "fault": None if definition is None or definition.fault is None else str(definition.fault),
    }


def report_json(report: DeviceReport) -> dict[str, Any]:
    """What a check found; ``ok`` says whether the device can be measured on."""
    return {**asdict(report), "ok": report.ok}
