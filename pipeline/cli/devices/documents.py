"""What ``lathe devices`` prints with ``--json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from devices.check import DeviceReport, PoolReport
from devices.inventory import Device, Pool
from latency_db.history import Health, Machine
from pipeline.cli.between import between_json


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


def pool_json(pool: Pool) -> dict[str, Any]:
    """How a pool is defined."""
    return {
        "name": pool.name,
        "members": list(pool.members),
        "file": str(pool.file),
        "fault": None if pool.fault is None else str(pool.fault),
    }


def pool_report_json(report: PoolReport) -> dict[str, Any]:
    """What a check of a pool found; ``ok`` says whether all members measure."""
    return {**asdict(report), "ok": report.ok}


def report_json(report: DeviceReport) -> dict[str, Any]:
    """What a check found; ``ok`` says whether the device can be measured on."""
    return {**asdict(report), "ok": report.ok}


def health_json(machine: Machine, others: Sequence[Machine], health: Health) -> dict[str, Any]:
    """How a device has been; a slowdown is its canary over the usual one."""
    return {
        "machine": asdict(machine.identity),
        "other_machines": [asdict(other.identity) for other in others],
        "batches": [
            {
                "started_at": point.started_at.isoformat(timespec="seconds"),
                "target": point.target,
                "slowdown": point.slowdown,
                "void_share": point.void_share,
                "verdict": point.verdict.value,
            }
            for point in health.points
        ],
        "usual_canary_ns": dict(health.canaries_ns),
        "now": asdict(health.now),
        "by_hour": [asdict(level) for level in health.by_hour],
        "by_day": [asdict(level) for level in health.by_day],
        "launches": health.launches,
        "void_launches": dict(health.void),
        "void_share": health.void_share,
        "invalid_batches": health.invalid,
        "between_batches": between_json(health.between),
        "notes": list(health.notes),
        "recommendation": health.recommendation,
    }
