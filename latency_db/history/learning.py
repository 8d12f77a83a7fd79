"""Learns how far batches differ from repeated measurements: a random-effects model of log latency.

    log latency = what is usual for the workload + boot + day + batch + what the batch sees of itself

Days are told apart within a boot, and boots by what days and batches do not explain. Each variance is
found by the method of moments with given weights (DerSimonian and Kacker, "Random-effects model for
meta-analysis of clinical trials", 2007, equation 6), with what the level below sees of itself taken off and
batches that are far off clipped (Huber's way of a robust scale). It is drawn towards a prior that counts like
a few batches (the mean of a scaled inverse chi-square distribution, conjugate to a normal one; Gelman et al.,
"Bayesian Data Analysis", 3rd edition, section 2.6).

A batch with a wider interval than is usual on the machine was disturbed, and counts less.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from statistics import median

from devices.measurement import BetweenBatches, Spread

PRIOR = BetweenBatches(batch=Spread(0.02, 3.0), day=Spread(0.01, 3.0), boot=Spread(0.01, 3.0))
"""What is assumed of a device without history; docs/concepts/measuring.md says where the numbers are from."""


CLIP = 3.0
"""Robust deviations beyond which a batch counts as off by that much: what happens once is not usual."""


@dataclass(frozen=True)
class Seen:
    """What one batch gave for something that other batches measured too.

    Attributes:
        series: what was measured.
        moment: when the batch began.
        value_ns: what it took.
        error: standard error of its logarithm, as seen within the batch.
        width: how far its interval reaches to the farther side, as a logarithm; a disturbance widens it.
        boot: since which start of the device; ``None`` where it does not tell.
    """

    series: Hashable
    moment: datetime
    value_ns: float
    error: float = 0.0
    width: float = 0.0
    boot: str | None = None


@dataclass(frozen=True)
class _Weighed:
    """The logarithm of what a batch gave, and how much it counts: at most 1."""

    log: float
    error: float
    weight: float
    boot: str | None
    moment: datetime

    @property
    def day(self) -> Hashable:
        return self.boot, self.moment.date()


Day = Sequence[_Weighed]


def learned(values: Iterable[Seen], prior: BetweenBatches = PRIOR) -> BetweenBatches:
    """What repeated measurements tell of a device, drawn towards a prior.

    Series that were measured in the same batches share their changes, so all of them together count as many
    degrees of freedom as there are batches.

    Args:
        values: of any number of series; of one batch at most one in each.
        prior: what is assumed before any of them.
    """
    given = list(values)
    usual = median([each.width for each in given] or [0.0])
    days: dict[tuple[Hashable, str | None, object], list[_Weighed]] = defaultdict(list)
    for each in given:
        weighed = _weighed(each, usual, prior.batch)
        days[each.series, each.boot, each.moment.date()].append(weighed)
    boots: dict[tuple[Hashable, str | None], list[Day]] = defaultdict(list)
    for (series, boot, _), group in days.items():
        boots[series, boot].append(group)
    known: dict[Hashable, list[Sequence[Day]]] = defaultdict(list)
    for (series, boot), its_days in boots.items():
        if boot is not None:
            known[series].append(its_days)
    batch = _between_batches(list(days.values()), prior.batch)
    day = _between_days(list(boots.values()), batch, prior.day)
    return BetweenBatches(batch, day, _between_boots(list(known.values()), batch, day, prior.boot))


def _weighed(seen: Seen, usual: float, prior: Spread) -> _Weighed:
    """By the inverse variance that is expected of it; where most batches are disturbed, all count alike."""
    expected = prior.deviation**2
    weight = min(1.0, (expected + usual**2) / (expected + seen.width**2))
    return _Weighed(math.log(seen.value_ns), seen.error, weight, seen.boot, seen.moment)


def _between_batches(groups: Sequence[Day], prior: Spread) -> Spread:
    """From days of one series and boot each."""
    repeated = [group for group in groups if len(group) > 1]
    residuals = [_residuals(group) for group in repeated]
    weights = [each.weight for group in repeated for each in group]
    limit = CLIP * 1.4826 * _middle([abs(each) for each in chain.from_iterable(residuals)], weights)
    squares, freedom = 0.0, 0.0
    of_moment: dict[Hashable, float] = {}
    for group, its_residuals in zip(repeated, residuals, strict=True):
        total = sum(each.weight for each in group)
        for each, residual in zip(group, its_residuals, strict=True):
            its_freedom = each.weight * (1 - each.weight / total)
            squares += each.weight * min(abs(residual), limit) ** 2 - its_freedom * each.error**2
            freedom += its_freedom
            of_moment[each.day, each.moment] = max(each.weight, of_moment.get((each.day, each.moment), 0.0))
    days = {each.day for group in repeated for each in group}
    counted = min(freedom, sum(of_moment.values()) - len(days))
    return _drawn(squares, freedom, counted, len(of_moment), prior)


def _between_days(boots: Sequence[Sequence[Day]], batch: Spread, prior: Spread) -> Spread:
    """From the days of each series and boot."""
    repeated = [days for days in boots if len(days) > 1]
    squares, freedom = 0.0, 0
    for days in repeated:
        squares += _squares([_of_day(day) for day in days])
        squares -= (len(days) - 1) * _mean([_error_of_day(day, batch) for day in days])
        freedom += len(days) - 1
    seen = {each.day for days in repeated for day in days for each in day}
    known = {each.boot for days in repeated for day in days for each in day}
    return _drawn(squares, freedom, min(freedom, len(seen) - len(known)), len(seen), prior)


def _between_boots(
    series: Sequence[Sequence[Sequence[Day]]], batch: Spread, day: Spread, prior: Spread
) -> Spread:
    """From the days of each boot, for each series."""
    repeated = [boots for boots in series if len(boots) > 1]
    squares, freedom = 0.0, 0
    for boots in repeated:
        squares += _squares([_mean([_of_day(each) for each in days]) for days in boots])
        of_means = [
            (day.deviation**2 + _mean([_error_of_day(each, batch) for each in days])) / len(days)
            for days in boots
        ]
        squares -= (len(boots) - 1) * _mean(of_means)
        freedom += len(boots) - 1
    seen = {each.boot for boots in repeated for days in boots for each_day in days for each in each_day}
    return _drawn(squares, freedom, min(freedom, len(seen) - 1), len(seen), prior)


def _of_day(day: Day) -> float:
    return sum(each.weight * each.log for each in day) / sum(each.weight for each in day)


def _error_of_day(day: Day, batch: Spread) -> float:
    """Variance of its mean, which holds a share of the changes between its batches."""
    total = sum(each.weight for each in day)
    return sum(each.weight**2 * (batch.deviation**2 + each.error**2) for each in day) / total**2


def _drawn(squares: float, freedom: float, counted: float, seen: int, prior: Spread) -> Spread:
    """The mean square drawn towards the prior's, as ``counted`` degrees of freedom can."""
    if counted <= 0:
        return prior
    mean_square = max(squares, 0.0) / freedom
    total = prior.freedom + counted
    variance = (prior.freedom * prior.deviation**2 + counted * mean_square) / total
    return Spread(math.sqrt(variance), total, seen)


def _residuals(group: Day) -> list[float]:
    """Distances from the middle, which a single value does not move far."""
    middle = _middle([each.log for each in group], [each.weight for each in group])
    return [each.log - middle for each in group]


def _middle(values: Sequence[float], weights: Sequence[float]) -> float:
    """The weighted median: half of the weight lies on either side; 0 of nothing."""
    half, before, last = sum(weights) / 2, 0.0, None
    for value, weight in sorted(zip(values, weights, strict=True)):
        if last is not None:
            return (last + value) / 2
        before += weight
        if math.isclose(before, half):
            last = value
        elif before > half:
            return value
    return last or 0.0


def _squares(values: Sequence[float]) -> float:
    mean = _mean(values)
    return sum((value - mean) ** 2 for value in values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
