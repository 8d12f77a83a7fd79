"""Distribution-free statistics of latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

_LEAST_NS = 1e-9
_PARTS, _STEPS, _CLOSE = 200, 50, 1e-12


@dataclass(frozen=True)
class Interval:
    """A value in nanoseconds with an interval and the confidence that the interval carries."""

    low_ns: float
    value_ns: float
    high_ns: float
    confidence: float

    def widened(self, share: float) -> Interval:
        """The interval with either end moved outwards by a share of the value."""
        margin_ns = share * self.value_ns
        return replace(self, low_ns=self.low_ns - margin_ns, high_ns=self.high_ns + margin_ns)

    def joined(self, margin: float) -> Interval:
        """The interval with an independent margin, of the logarithm, at either end: their squares add up."""
        if self.value_ns <= 0:
            return self
        low, high = (
            abs(math.log(max(end, _LEAST_NS) / self.value_ns)) for end in (self.low_ns, self.high_ns)
        )
        return replace(
            self,
            low_ns=self.value_ns * math.exp(-math.hypot(low, margin)),
            high_ns=self.value_ns * math.exp(math.hypot(high, margin)),
        )

    @property
    def relative_width(self) -> float:
        """Width of the interval as a share of the value; infinite where the value is 0."""
        if not self.value_ns:
            return math.inf
        return (self.high_ns - self.low_ns) / self.value_ns

    @property
    def ends(self) -> str:
        """Its ends in milliseconds."""
        return f"[{self.low_ns / 1e6:.4f}, {self.high_ns / 1e6:.4f}]"

    def __str__(self) -> str:
        return f"{self.value_ns / 1e6:.4f} ms {self.ends}"


def quantile(samples: Sequence[float], level: float) -> float:
    """Quantile by linear interpolation between order statistics (type 7 of Hyndman and Fan, 1996).

    Raises:
        ValueError: no samples, or a level outside 0..1.
    """
    if not samples:
        raise ValueError("a quantile needs at least one sample")
    if not 0.0 <= level <= 1.0:
        raise ValueError(f"quantile level {level} is outside 0..1")
    ordered = sorted(samples)
    position = level * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def student_t_quantile(freedom: float, level: float) -> float:
    """Quantile of Student's t distribution; not from scipy, whose import takes longer than a short command.

    With ``t = sqrt(freedom) tan(angle)`` the distribution is a smooth integral of powers of ``cos(angle)``,
    and Newton's steps from 0 never go too far. At a level of 0.975 it is exact to some millionths.

    Args:
        freedom: degrees of freedom, any number of at least 1.
        level: from one half to below 1.
    """
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2

    def density(angle: float) -> float:
        return math.exp(log_scale + (freedom - 1) * math.log(math.cos(angle)))

    def up_to(angle: float) -> float:
        """By Simpson's rule."""
        step = angle / _PARTS
        inner = sum((4 if part % 2 else 2) * density(part * step) for part in range(1, _PARTS))
        return (density(0.0) + inner + density(angle)) * step / 3

    angle = 0.0
    for _ in range(_STEPS):
        step = (level - 0.5 - up_to(angle)) / density(angle)
        angle += step
        if step <= _CLOSE * angle:
            break
    return math.sqrt(freedom) * math.tan(angle)


def can_carry(level: float, count: int, confidence: float = 0.99) -> bool:
    """Whether so many samples can carry a percentile.

    They can when their second most extreme one bounds it with ``confidence``, so that a single odd sample
    does not decide: 11 samples for the median, 64 for the 10th or 90th percentile, 662 for the 99th.

    Raises:
        ValueError: a level not strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"percentile level {level} is not between 0 and 1")
    inside = max(level, 1.0 - level)
    return 1.0 - inside**count - count * (1.0 - inside) * inside ** (count - 1) >= confidence
