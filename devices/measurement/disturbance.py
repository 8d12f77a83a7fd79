"""How far what was seen beside a launch may have moved its headline, as a share that is a bound.

A disturbance adds time, as a rule. What it can have added follows from what was seen: inferences that nothing
interrupted were not lengthened by waiting, others by at most the time that was waited for; the canary ran
slower by so much. docs/concepts/measuring.md says how the numbers were found, and how often they hold.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devices.measurement.measurement import Launch

CONTENTION = math.log(1.05)
"""What caches and memory that others use add, whatever else was seen; of the logarithm of the headline."""
UNEVEN = 0.01
"""By how much of a ratio that may move one file more than another of the same launch."""
AMPLIFIED = 1.6
"""How much farther than the canary a network may move: 1.0 to 1.6 times, as measured between batches."""
MOST_WAITING = 0.9
"""Share of the time beyond which nothing bounds what waiting added."""
UNBOUNDED = math.log(1 / (1 - MOST_WAITING))
"""What stands for an infinite bound where a number is needed; the verdict is invalid then."""


def bounds(launches: Sequence[Launch], level: float, best_canary_ns: int) -> tuple[float, ...]:
    """``most_moved`` of those of some launches that are void, and 0 of the others."""
    return tuple(
        most_moved(launch, level, best_canary_ns) if launch.void is not None else 0.0 for launch in launches
    )


def best_canary_ns(launches: Sequence[Launch]) -> int:
    """The fastest canary of a batch; 1 where there is none."""
    return max(1, min((value for launch in launches for value in launch.canary_ns), default=1))


def most_moved(launch: Launch, level: float, best_canary_ns: int) -> float:
    """By how much a disturbed launch may be slower than it would have been, of the logarithm of its headline.

    Infinite where what was seen sets no bound.

    Args:
        launch: that something disturbed.
        level: the quantile of its samples that is its headline.
        best_canary_ns: the fastest canary of the batch.
    """
    moved = CONTENTION
    if launch.canary_ns:
        moved += AMPLIFIED * math.log(max(launch.canary_ns) / best_canary_ns)
    if launch.usage is not None and launch.usage.stolen_ns:
        # That may all have been time of the core that mattered.
        moved += _lengthened(launch.usage.stolen_ns / max(launch.usage.wall_ns, 1))
    return moved + _lengthened(_waiting_share(launch, level))


def _waiting_share(launch: Launch, level: float) -> float:
    """The share of its headline that a launch may have waited for a processor.

    Where twice as many samples as lie below the headline were not interrupted, it lies among the faster half
    of these.
    """
    queue, usage, count = launch.queue, launch.usage, len(launch.samples_ns)
    if queue is not None and count:
        if count - queue.slices >= 2 * level * count:
            return 0.0
        return queue.waiting_ns / max(sum(launch.samples_ns), 1)
    if usage is None or usage.waiting_ns is None:
        return 0.0
    return usage.waiting_ns / max(usage.wall_ns, 1)


def _lengthened(share: float) -> float:
    """By how much a time grows of which this share is lost."""
    return -math.log(1 - share) if share <= MOST_WAITING else math.inf
