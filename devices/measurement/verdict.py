"""Decides which launches count, whether there are enough of them, and how far a measurement may be trusted.

Nothing here looks at the level of a latency: a launch is void because of what was seen beside it, and
launches are repeated because they disagree, so that no rule favours a fast or a slow value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from devices.measurement.disturbance import best_canary_ns, bounds
from devices.measurement.headline import launch_interval
from devices.measurement.measurement import MIN_LAUNCHES, Launch, Reason, Verdict, counted
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import quantile
from devices.words import count_of

CANARY_DRIFT = 0.05
"""How much slower than the best of its batch the canary may be in a launch before the launch is void."""
WAITING_SHARE = 0.05
"""Share of a launch's time for which it may wait for a processor."""
STOLEN_SHARE = 0.05
"""Share of a launch's time, over all cores, that the hypervisor may give to other machines."""
OTHER_SHARE = 0.05
"""Share of a launch's time, over all cores, that may go to other processes."""
CLOCK_JUMP_SHARE = 0.05
"""How far wall clock and monotonic clock may part, as a share of a launch's time."""
LEAST_NS = 20_000_000
"""What is shorter never voids a launch: the kernel counts processor time in ticks of 10 ms."""

SPREAD_DEGRADED = 0.05
"""Width of the headline's interval over launches, relative to the headline, beyond which it is degraded.

The interval leaves out the extremes where there are launches enough, so a single odd launch does not spoil a
measurement of many."""
SPREAD_INVALID = 0.30
"""The same, beyond which it is invalid."""
TREND_DEGRADED = 0.10
"""Median over launches of the relative change from first to last third, beyond which it is degraded."""
DEGRADING_WARNINGS = frozenset({"unstable", "precision-unused"})
"""Warnings of a runtime after which its times are not what was asked for."""
MIN_SAMPLES = 11
"""Samples per launch: the fewest whose second largest bounds their median with 99 % confidence."""
MIN_SAMPLES_AT_ALL = 3
"""Samples per launch below which nothing can be said."""

Found = Iterator[tuple[Verdict, Reason]]


def mark(launches: Sequence[Launch], protocol: MeasuringProtocol, *, cores: int) -> tuple[Launch, ...]:
    """The same launches of one workload, with those void that were disturbed.

    Args:
        launches: of one batch, in order.
        protocol: its ``headline_quantile`` is also the canary's.
        cores: processors of the device.
    """
    best_ns = best_canary_ns(launches)
    return tuple(
        launch
        if launch.void is not None
        else replace(launch, void=next(_disturbances(launch, best_ns, cores), None))
        for launch in launches
    )


def _disturbances(launch: Launch, best_canary_ns: int, cores: int) -> Iterator[Reason]:
    if launch.canary_ns:
        drift = max(launch.canary_ns) / best_canary_ns - 1
        if drift > CANARY_DRIFT:
            detail = f"the canary ran {drift:.1%} slower than at its best, more than {CANARY_DRIFT:.0%}"
            yield Reason("canary-drift", detail)
    usage = launch.usage
    if usage is None:
        return
    for code, amount_ns, share, capacity_ns, what in (
        ("preempted", usage.waiting_ns, WAITING_SHARE, usage.wall_ns, "it waited for a processor"),
        ("stolen", usage.stolen_ns, STOLEN_SHARE, usage.wall_ns * cores, "the hypervisor ran other machines"),
        ("other-load", usage.other_cpu_ns, OTHER_SHARE, usage.wall_ns * cores, "other processes ran"),
        ("clock-jumped", abs(usage.clock_jump_ns), CLOCK_JUMP_SHARE, usage.wall_ns, "the clock was set"),
    ):
        if amount_ns is not None and amount_ns >= max(LEAST_NS, share * capacity_ns):
            detail = f"{what} for {amount_ns / 1e6:.0f} ms, {amount_ns / capacity_ns:.0%} of the time"
            yield Reason(code, f"{detail}, more than {share:.0%}")


def settled(launches: Sequence[Launch], protocol: MeasuringProtocol) -> bool:
    """Whether enough launches count and they agree, so that further ones are not needed."""
    sound = [launch for launch in launches if launch.void is None]
    return len(sound) >= protocol.launches and not any(_spread(sound, protocol, 1))


def judge(launches: Sequence[Launch], protocol: MeasuringProtocol) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict on some marked launches of one workload, with every reason that speaks against them.

    Invalid is a measurement that nothing bounds: one with hardly any samples, with launches that disagree by
    more than ``SPREAD_INVALID`` beyond what disturbed them can have added, or of which most launches waited
    for a processor nearly all the time. Degraded is one with too few samples or launches, with disturbances
    in all but a few launches, with launches that still disagree after ``max_launches``, with a trend within
    launches (heat, or a ramping clock), with a throttle counter that moved, without a canary, or with one of
    ``DEGRADING_WARNINGS``.

    Raises:
        ValueError: no launches.
    """
    if not launches:
        raise ValueError("a verdict needs at least one launch")
    basis = counted(launches)
    found = [
        *_void(launches),
        *_counts(basis),
        *_spread(basis, protocol, best_canary_ns(launches)),
        *_trend(basis),
        *_throttling(basis),
        *_canary(basis),
        *_warnings(basis),
    ]
    verdicts = {verdict for verdict, _ in found}
    worst = next((v for v in (Verdict.INVALID, Verdict.DEGRADED) if v in verdicts), Verdict.VALID)
    return worst, tuple(reason for _, reason in found)


def _void(launches: Sequence[Launch]) -> Found:
    reasons = [launch.void for launch in launches if launch.void is not None]
    if reasons and len(launches) - len(reasons) < MIN_LAUNCHES:
        for code in dict.fromkeys(reason.code for reason in reasons):
            details = [reason.detail for reason in reasons if reason.code == code]
            detail = f"in {len(details)} of {len(launches)} launches: {details[0]}"
            yield Verdict.DEGRADED, Reason(code, detail)


def _counts(launches: Sequence[Launch]) -> Found:
    fewest = min(launch.summary.count if launch.summary else len(launch.samples_ns) for launch in launches)
    if fewest < MIN_SAMPLES:
        verdict = Verdict.INVALID if fewest < MIN_SAMPLES_AT_ALL else Verdict.DEGRADED
        yield (
            verdict,
            Reason("few-samples", f"a launch has {count_of(fewest, 'sample')}, fewer than {MIN_SAMPLES}"),
        )
    if len(launches) < MIN_LAUNCHES:
        detail = f"{count_of(len(launches), 'launch')}, fewer than {MIN_LAUNCHES}"
        yield Verdict.DEGRADED, Reason("few-launches", detail)


def _spread(launches: Sequence[Launch], protocol: MeasuringProtocol, best_ns: int) -> Found:
    level = protocol.headline_quantile
    moved = bounds(launches, level, best_ns)
    if 2 * sum(each == math.inf for each in moved) > len(moved):
        yield (
            Verdict.INVALID,
            Reason("unbounded", "most launches waited for a processor nearly all the time"),
        )
    took = [launch.quantile_ns(level) for launch in launches]
    interval = launch_interval(took)
    spread = (interval.high_ns - interval.low_ns) / interval.value_ns
    if spread > SPREAD_DEGRADED:
        least = [value * math.exp(-each) for value, each in zip(took, moved, strict=True)]
        unexplained = (launch_interval(least).high_ns - interval.low_ns) / interval.value_ns
        invalid = unexplained > SPREAD_INVALID
        limit = SPREAD_INVALID if invalid else SPREAD_DEGRADED
        detail = f"did not stabilise: launches differ by {spread:.1%} of their median, more than {limit:.0%}"
        yield Verdict.INVALID if invalid else Verdict.DEGRADED, Reason("launches-disagree", detail)


def _trend(launches: Sequence[Launch]) -> Found:
    changes = []
    for launch in launches:
        third = len(launch.samples_ns) // 3
        if third >= 1:
            first = quantile(launch.samples_ns[:third], 0.5)
            changes.append((quantile(launch.samples_ns[-third:], 0.5) - first) / first)
    change = quantile(changes, 0.5) if changes else 0.0
    if abs(change) > TREND_DEGRADED:
        detail = f"within launches, latency moved by {change:+.1%}, more than {TREND_DEGRADED:.0%}"
        yield Verdict.DEGRADED, Reason("trend", detail)


def _throttling(launches: Sequence[Launch]) -> Found:
    events = sum(
        launch.after.throttle_count - launch.before.throttle_count
        for launch in launches
        if launch.before.throttle_count is not None and launch.after.throttle_count is not None
    )
    if events:
        yield Verdict.DEGRADED, Reason("throttled", f"the processor throttled {events} times while timing")


def _canary(launches: Sequence[Launch]) -> Found:
    missing = sum(not launch.canary_ns for launch in launches)
    if missing:
        detail = f"{missing} of {len(launches)} launches have no canary to compare their conditions by"
        yield Verdict.DEGRADED, Reason("no-canary", detail)


def _warnings(launches: Sequence[Launch]) -> Found:
    found = {warning.code: warning for launch in launches for warning in launch.warnings}
    for code in sorted(found.keys() & DEGRADING_WARNINGS):
        yield Verdict.DEGRADED, found[code]
