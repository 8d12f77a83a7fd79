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
        "boot": asdict(between.boot),
    }


def between_text(between: BetweenBatches) -> str:
    """What the interval on a machine rests on."""
    if between.assumed:
        return f"without a history yet, batches are taken to differ by {between.deviation:.1%}"
    levels = (("batches", between.batch), ("days", between.day), ("boots", between.boot))
    return ", ".join(
        f"{level.deviation:.1%} between {name} ({f'of {level.seen}' if level.seen else 'assumed'})"
        for name, level in levels
    )
