"""How far measurements of one workload on one device differ between batches, days and boots.

A batch of launches takes seconds, and what happens to a machine over hours does not happen within it. So the
interval of a batch says what another batch at the same moment would give. This is the other part: the same
measurement again, today or on another day, on the device as it usually is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from devices.measurement.statistics import Interval, student_t_quantile

CONFIDENCE = 0.95
"""Of what lies between batches; the interval of both parts has that of the batch's own where it is less."""


@dataclass(frozen=True)
class Spread:
    """The standard deviation of a normal distribution as far as it is known.

    Attributes:
        deviation: of the logarithm of a latency, so about a share of it.
        freedom: degrees of freedom behind it, those of the prior included.
        seen: batches, days or boots behind it; 0 where it is the prior alone.
    """

    deviation: float
    freedom: float
    seen: int = 0


UNKNOWN_BOOTS = Spread(0.0, 1.0)
"""Of what was learned before boots were told apart: their changes are among those of days."""


@dataclass(frozen=True)
class BetweenBatches:
    """What is known of a device's changes between batches of launches.

    Attributes:
        batch: between batches of one day.
        day: between days of one boot, beyond that.
        boot: between the times that the device was started, beyond both.
    """

    batch: Spread
    day: Spread
    boot: Spread = UNKNOWN_BOOTS

    @property
    def deviation(self) -> float:
        """Standard deviation of the log latency of a batch at some time about what is usual on the device."""
        return math.hypot(*(level.deviation for level in self._levels))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of ``deviation`` (Satterthwaite, 1946)."""
        parts = [(spread.deviation**2, spread.freedom) for spread in self._levels]
        total = sum(variance for variance, _ in parts)
        return total**2 / max(sum(variance**2 / freedom for variance, freedom in parts), 1e-300)

    @property
    def assumed(self) -> bool:
        """Nothing of it was seen on the device: all is the prior."""
        return not any(level.seen for level in self._levels)

    @property
    def _levels(self) -> tuple[Spread, Spread, Spread]:
        return self.batch, self.day, self.boot

    def margin(self, confidence: float = CONFIDENCE) -> float:
        """How far the log latencies of two batches, days and boots apart, differ, with this confidence."""
        # Both batches are off, this one and the other.
        return student_t_quantile(self.freedom, (1 + confidence) / 2) * math.sqrt(2) * self.deviation

    def around(self, within: Interval) -> Interval:
        """The interval of a batch, widened to hold what the same measurement gives at another time."""
        return replace(within.joined(self.margin()), confidence=min(within.confidence, CONFIDENCE))
