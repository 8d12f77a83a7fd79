"""Whether a latency keeps a limit, from as many launches as it takes to tell.

After each look at the interval, more launches are made while it straddles the limit. Looking several times
would find an excess by chance more often than looking once, so each look has its share of the error
(Bonferroni's inequality): whatever is compared, all looks together call an excess that is none with a
probability of at most half of ``ERROR``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from devices.connections import Connection
from devices.measurement.between import BetweenBatches
from devices.measurement.headline import launch_interval
from devices.measurement.measurement import Measurement, MeasurementFailure, Outcome, Verdict
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import Interval
from devices.measuring.comparison import compare
from devices.measuring.launch import Job
from devices.measuring.pool import measure, member_of
from devices.target import Target
from devices.words import count_of

LOOKS = (9, 9, 18, 36)
"""Launches that are added for each look: 9, 18, 36 and 72 in all."""
ERROR = 0.05
"""Probability that an interval of any look leaves out the true value; it is on either side in equal parts."""

Observed = tuple[Sequence[float], tuple[str, ...]]


class LimitFinding(StrEnum):
    """What is known of a latency and its limit."""

    KEPT = "kept"
    EXCEEDED = "exceeded"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not-measured"


@dataclass(frozen=True)
class Bounds:
    """A value, and the interval that holds it with this confidence."""

    low: float
    value: float
    high: float
    confidence: float


@dataclass(frozen=True)
class AgainstLimit:
    """A latency in nanoseconds, or a ratio of two, against a limit in the same unit.

    Attributes:
        interval: over the launches that count, with the confidence of one look; ``None`` if nothing counts.
        limit: the largest value that is allowed.
        launches: that count.
        obstacles: why launches do not count, or nothing could be run.
    """

    interval: Bounds | None
    limit: float
    launches: int
    obstacles: tuple[str, ...]

    @property
    def finding(self) -> LimitFinding:
        """Exceeded if the whole interval is above the limit, kept if none of it is."""
        if self.interval is None:
            return LimitFinding.NOT_MEASURED
        if self.interval.low > self.limit:
            return LimitFinding.EXCEEDED
        return LimitFinding.KEPT if self.interval.high <= self.limit else LimitFinding.UNDECIDED


def latency_against_limit(
    artifact: Path,
    limit_ns: float,
    target: Target,
    protocol: MeasuringProtocol,
    *,
    between: BetweenBatches | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_state: Callable[[str], None] | None = None,
    connection: Connection | None = None,
) -> AgainstLimit:
    """Measure a file until its latency is known to keep a limit or to exceed it, for at most all ``LOOKS``.

    Args:
        artifact: a file that the target's runtime loads.
        limit_ns: what it may take.
        target: where.
        protocol: how long a launch is; the looks say how many there are.
        between: how far batches differ on the device. The interval then holds at another time too, and no
            more launches are made when only that keeps it from telling.
        on_progress: called with the launches of the look that are done, and their total.
        on_state: called with a line before each further look.
        connection: an open connection to use instead of a new one to the target's device; it stays open.

    Raises:
        TargetError, MeasurementError: as ``devices.measuring.batch.measure``.
    """

    where = target if connection is not None else member_of(target)

    def look(launches: int) -> Observed:
        limited = _with_launches(protocol, launches)
        job = Job("the file", artifact)
        return _observed(measure([job], where, limited, on_progress=on_progress, connection=connection))

    return _decide(look, limit_ns, protocol.drift, on_state, between)


def ratio_against_limit(
    old: Path,
    new: Path,
    limit: float,
    target: Target,
    protocol: MeasuringProtocol,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    on_state: Callable[[str], None] | None = None,
    connection: Connection | None = None,
) -> AgainstLimit:
    """Measure two files in the same launches until the new one's latency over the old one's is known to keep
    a limit or to exceed it, for at most all ``LOOKS``.

    Args:
        old: a file that the target's runtime loads.
        new: another.
        limit: what the ratio may be, such as 1.03.
        target: where.
        protocol: how long a launch is; the looks say how many there are.
        on_progress: called with the launches of files of the look that are done, and their total.
        on_state: called with a line before each further look.
        connection: an open connection to use instead of a new one to the target's device; it stays open.

    Raises:
        TargetError, MeasurementError: as ``devices.measuring.batch.measure``.
    """

    where = target if connection is not None else member_of(target)

    def look(launches: int) -> Observed:
        limited = _with_launches(protocol, launches)
        pair = compare(old, new, where, limited, on_progress=on_progress, connection=connection)
        return _observed({"the old file": pair.first, "the new file": pair.second})

    return _decide(look, limit, 0.0, on_state)


def _decide(
    look: Callable[[int], Observed],
    limit: float,
    drift: float,
    on_state: Callable[[str], None] | None,
    between: BetweenBatches | None = None,
) -> AgainstLimit:
    confidence = 1 - ERROR / len(LOOKS)
    values: list[float] = []
    obstacles: list[str] = []
    found = AgainstLimit(None, limit, 0, ())
    for number, launches in enumerate(LOOKS):
        if number and on_state is not None:
            on_state(f"{count_of(len(values), 'launch')} cannot tell yet, measuring {launches} more times")
        observed, reasons = look(launches)
        values += observed
        obstacles += [reason for reason in reasons if reason not in obstacles]
        seen = launch_interval(values, confidence).widened(drift) if values else None
        if seen is None or seen.confidence < confidence:
            few = f"only {count_of(len(values), 'launch')} can be used"
            found = AgainstLimit(None, limit, len(values), (*obstacles, few))
            continue
        here = AgainstLimit(_bounds(seen), limit, len(values), tuple(obstacles))
        found = here if between is None else replace(here, interval=_bounds(between.around(seen)))
        if here.finding is not LimitFinding.UNDECIDED:
            break
    return found


def _bounds(seen: Interval) -> Bounds:
    return Bounds(seen.low_ns, seen.value_ns, seen.high_ns, seen.confidence)


def _with_launches(protocol: MeasuringProtocol, launches: int) -> MeasuringProtocol:
    return replace(protocol, launches=launches, max_launches=launches)


def _observed(outcomes: Mapping[str, Outcome]) -> Observed:
    """Latencies of one file, or of two the second's over the first's; or why they cannot be used."""
    if obstacles := tuple(_obstacles(outcomes)):
        return (), obstacles
    before, *after = (each.headlines_ns for each in outcomes.values() if isinstance(each, Measurement))
    if not after:
        return before, ()
    if len(before) != len(after[0]):
        return (), ("the two did not run in the same launches",)
    return [mine / theirs for mine, theirs in zip(after[0], before, strict=True)], ()


def _obstacles(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    for name, outcome in outcomes.items():
        if isinstance(outcome, MeasurementFailure):
            yield f"{name} did not run ({outcome.reason.code}: {outcome.reason.detail})"
        elif not outcome.sharp:
            why = "; ".join(reason.detail for reason in outcome.reasons)
            word = "invalid" if outcome.verdict is Verdict.INVALID else f"too wide, {outcome.latency}"
            yield f"the measurement of {name} is {word}: {why}"
