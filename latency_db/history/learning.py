"""Learns how far batches differ from repeated measurements: a random-effects model of log latency.

    log latency = what is usual for the workload + boot + day + batch + what the batch sees of itself

Days are told apart within a boot, and boots by what days and batches do not explain. Each variance is
found by the method of moments, with what the level below sees of itself taken off and batches that are far
off clipped (Huber's way of a robust scale), and drawn
towards a prior that counts like a few batches (the mean of a scaled inverse chi-square
distribution, conjugate to a normal one; Gelman et al., "Bayesian Data Analysis", 3rd edition, section 2.6).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
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
        boot: since which start of the device; ``None`` where it does not tell.
    """

    series: Hashable
    moment: datetime
    value_ns: float
    error: float = 0.0
    boot: str | None = None


Day = Sequence[Seen]


def learned(values: Iterable[Seen], prior: BetweenBatches = PRIOR) -> BetweenBatches:
    """What repeated measurements tell of a device, drawn towards a prior.

    Series that were measured in the same batches share their changes, so all of them together count as many
    degrees of freedom as there are batches.

    Args:
        values: of any number of series; of one batch at most one in each.
        prior: what is assumed before any of them.
    """
    days: dict[tuple[Hashable, str | None, object], list[Seen]] = defaultdict(list)
    for each in values:
        days[each.series, each.boot, each.moment.date()].append(each)
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


def _between_batches(groups: Sequence[Day], prior: Spread) -> Spread:
    """From days of one series and boot each."""
    repeated = [group for group in groups if len(group) > 1]
    residuals = [_residuals([math.log(each.value_ns) for each in group]) for group in repeated]
    limit = CLIP * 1.4826 * median([abs(each) for group in residuals for each in group] or [0.0])
    squares, freedom = 0.0, 0
    for group, its_residuals in zip(repeated, residuals, strict=True):
        squares += sum(min(abs(each), limit) ** 2 for each in its_residuals)
        squares -= (len(group) - 1) * median([each.error for each in group]) ** 2
        freedom += len(group) - 1
    moments = {each.moment for group in repeated for each in group}
    days = {(each.boot, each.moment.date()) for group in repeated for each in group}
    return _drawn(squares, freedom, min(freedom, len(moments) - len(days)), len(moments), prior)


def _between_days(boots: Sequence[Sequence[Day]], batch: Spread, prior: Spread) -> Spread:
    """From the days of each series and boot."""
    repeated = [days for days in boots if len(days) > 1]
    squares, freedom = 0.0, 0
    for days in repeated:
        squares += _squares([_of_day(day) for day in days])
        squares -= (len(days) - 1) * _mean([_error_of_day(day, batch) for day in days])
        freedom += len(days) - 1
    seen = {(each.boot, each.moment.date()) for days in repeated for day in days for each in day}
    return _drawn(
        squares, freedom, min(freedom, len(seen) - len({boot for boot, _ in seen})), len(seen), prior
    )


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
    return _mean([math.log(each.value_ns) for each in day])


def _error_of_day(day: Day, batch: Spread) -> float:
    """Variance of its mean, which holds a share of the changes between its batches."""
    return (batch.deviation**2 + _mean([each.error**2 for each in day])) / len(day)


def _drawn(squares: float, freedom: int, counted: int, seen: int, prior: Spread) -> Spread:
    """The mean square drawn towards the prior's, as ``counted`` degrees of freedom can."""
    if counted < 1:
        return prior
    mean_square = max(squares, 0.0) / freedom
    total = prior.freedom + counted
    variance = (prior.freedom * prior.deviation**2 + counted * mean_square) / total
    return Spread(math.sqrt(variance), total, seen)


def _residuals(values: Sequence[float]) -> list[float]:
    """Distances from the middle, which a single value does not move far."""
    middle = median(values)
    return [value - middle for value in values]


def _squares(values: Sequence[float]) -> float:
    mean = _mean(values)
    return sum((value - mean) ** 2 for value in values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
