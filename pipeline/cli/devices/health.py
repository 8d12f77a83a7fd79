"""How a device has been, in words."""

from __future__ import annotations

from collections.abc import Sequence

from devices.words import count_of
from latency_db.history import Health, Level, Machine
from pipeline.cli.between import between_text
from pipeline.cli.profile.text import printable

Facts = list[tuple[str, str]]
MOST = 12
"""Days that are shown, the newest."""


def health_facts(machine: Machine, others: Sequence[Machine], health: Health) -> Facts:
    """Name and text of everything that is told of a device, the recommendation last."""
    identity, points = machine.identity, health.points
    facts = [("machine", f"{identity.cpu}, {count_of(identity.cores, 'core')}, {identity.os}")]
    if others:
        facts.append(
            ("left out", f"{count_of(len(others), 'other machine')} or system of that name, seen longer ago")
        )
    days = count_of(len(health.by_day), "day")
    facts += [
        (
            "history",
            f"{count_of(len(points), 'batch')} with a canary on {days}, "
            f"{points[0].started_at:%Y-%m-%d %H:%M} to {points[-1].started_at:%Y-%m-%d %H:%M} UTC",
        ),
        *(
            ("usual canary", f"{value / 1e6:.4f} ms on {target}")
            for target, value in health.canaries_ns.items()
        ),
        ("now", f"{_slower(health.now)} in its last {count_of(health.now.batches, 'batch')}"),
        ("by hour", _levels(health.by_hour)),
        ("by day", _levels(health.by_day[-MOST:])),
        ("void", _void(health)),
        ("batches differ", between_text(health.between)),
        *(("NOTE", note) for note in health.notes),
        ("recommended", health.recommendation),
    ]
    return facts


def facts_text(name: str, facts: Facts) -> str:
    """The facts as lines."""
    return "\n".join([name, *(f"  {fact:16} {printable(text)}" for fact, text in facts)])


def _slower(level: Level) -> str:
    change = level.slowdown - 1
    return (
        "as usual"
        if abs(change) < 0.005
        else f"{abs(change):.1%} {'slower' if change > 0 else 'faster'} than usual"
    )


def _levels(levels: Sequence[Level]) -> str:
    """The level of each hour or day, against the usual one, with its batches."""
    return ", ".join(f"{level.of}: {level.slowdown - 1:+.1%} ({level.batches})" for level in levels)


def _void(health: Health) -> str:
    if not health.void:
        return f"none of {count_of(health.launches, 'launch')}"
    codes = ", ".join(f"{code} {count}" for code, count in health.void.items())
    invalid = f"; {count_of(health.invalid, 'batch')} invalid" if health.invalid else ""
    return f"{health.void_share:.0%} of {count_of(health.launches, 'launch')} ({codes}){invalid}"
