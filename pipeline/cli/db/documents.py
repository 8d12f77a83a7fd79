"""Rows as ``lathe db query --json`` prints them."""

from __future__ import annotations

from typing import Any

from latency_db.store import Record


def row_json(record: Record) -> dict[str, Any]:
    """A measurement or a failure, without its samples; nanoseconds."""
    low, value, high = record.latency_ns or (None, None, None)
    columns = record.columns
    return {
        "id": record.id,
        "started_at": columns["started_at"],
        "target": columns["target"],
        "emulated": record.emulated,
        "workload": record.parts["workload"].get("description", ""),
        "verdict": columns["verdict"],
        "latency_ns": value,
        "latency_low_ns": low,
        "latency_high_ns": high,
        "reasons": columns["reasons"],
        "runtime": record.parts["runtime"],
        "device": record.parts["device"],
        "instance": columns["instance"],
        "digest": columns["digest"],
    }
