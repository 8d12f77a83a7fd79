"""How far batches of launches differ on a device, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from devices.measurement import BetweenBatches


def between_json(between: BetweenBatches) -> dict[str, Any]:
    """How far batches differ; deviations are of the logarithm of a latency."""
    return {
        "deviation": between.deviation,
        "freedom": between.freedom,
        "margin": between.margin(),
        "assumed": between.assumed,
        "batch": asdict(between.batch),
        "day": asdict(between.day),
    }


def between_text(between: BetweenBatches) -> str:
    """What the interval on a machine rests on."""
    if between.assumed:
        return f"without a history yet, batches are taken to differ by {between.deviation:.1%}"
    batches = f"{between.batch.deviation:.1%} between batches (of {between.batch.seen})"
    days = f"of {between.day.seen}" if between.day.seen else "assumed, all are of one day"
    return f"{batches}, {between.day.deviation:.1%} between days ({days})"
