"""The headline of a measurement: one figure for each launch, and an interval for all of them.

The quantile ``HEADLINE_QUANTILE`` of its samples represents a launch; the median of its launches represents a
measurement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from devices.measurement.statistics import Interval, quantile

HEADLINE_QUANTILE = 0.1
"""A low quantile, since disturbances only ever add time; docs/concepts/measuring.md has the evidence."""


def launch_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Median of launches with a distribution-free interval from order statistics.

    Of all symmetric pairs of order statistics the narrowest that reaches ``confidence`` is taken; when even
    the extremes do not reach it, the extremes are returned with the confidence that they have
    (1 - 2^(1-n) for n launches: 0.9375 for 5, 0.969 for 6).

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("an interval needs at least one launch")
    ordered = sorted(values)
    count = len(ordered)
    drop, reached = 0, _median_coverage(count, 0)
    while 2 * (drop + 1) < count and _median_coverage(count, drop + 1) >= confidence:
        drop += 1
        reached = _median_coverage(count, drop)
    return Interval(ordered[drop], quantile(ordered, 0.5), ordered[count - 1 - drop], reached)


def _median_coverage(count: int, drop: int) -> float:
    """Probability that the true median lies between the (drop+1)-th smallest and largest of ``count``."""
    below = sum(math.comb(count, smaller) for smaller in range(drop + 1))
    return float(max(0.0, 1.0 - 2.0 * (below / 2**count)))
