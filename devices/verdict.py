"""Decides how far a measurement may be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from devices.measurement import Launch, MeasuringProtocol, Reason, Verdict
from devices.statistics import launch_interval, quantile

SPREAD_DEGRADED = 0.10
"""Width of the headline's interval over launches, relative to the headline, beyond which it is degraded.

The interval leaves out the extremes where there are launches enough, so a single disturbed launch does not
spoil a measurement of many."""
SPREAD_INVALID = 0.30
"""The same, beyond which it is invalid."""
TREND_DEGRADED = 0.10
"""Median over launches of the relative change from first to last third, beyond which it is degraded."""
MIN_SAMPLES = 11
"""Samples per launch: the fewest whose second largest bounds their median with 99 % confidence."""
MIN_SAMPLES_AT_ALL = 3
"""Samples per launch below which nothing can be said."""
MIN_LAUNCHES = 3
"""Launches below which their disagreement cannot be seen."""


def judge(launches: Sequence[Launch], protocol: MeasuringProtocol) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict on some launches of one workload, with every reason that speaks against them.

    Too few samples or launches, launches that disagree, a trend within launches (heat, or a ramping clock),
    and a throttle counter that moved make a measurement degraded; hardly any samples, or launches that
    disagree by more than ``SPREAD_INVALID``, make it invalid.

    Raises:
        ValueError: no launches.
    """
    if not launches:
        raise ValueError("a verdict needs at least one launch")
    found = [*_counts(launches), *_spread(launches, protocol), *_trend(launches), *_throttling(launches)]
    verdicts = {verdict for verdict, _ in found}
    worst = next((v for v in (Verdict.INVALID, Verdict.DEGRADED) if v in verdicts), Verdict.VALID)
    return worst, tuple(reason for _, reason in found)


def settled(launches: Sequence[Launch], protocol: MeasuringProtocol) -> bool:
    """Whether the launches agree, so that further ones are not needed."""
    return not any(_spread(launches, protocol))


def _counts(launches: Sequence[Launch]) -> Iterator[tuple[Verdict, Reason]]:
    fewest = min(len(launch.samples_ns) for launch in launches)
    if fewest < MIN_SAMPLES:
        verdict = Verdict.INVALID if fewest < MIN_SAMPLES_AT_ALL else Verdict.DEGRADED
        yield verdict, Reason("few-samples", f"a launch has {fewest} samples, fewer than {MIN_SAMPLES}")
    if len(launches) < MIN_LAUNCHES:
        detail = f"{len(launches)} launches, fewer than {MIN_LAUNCHES}"
        yield Verdict.DEGRADED, Reason("few-launches", detail)


def _spread(launches: Sequence[Launch], protocol: MeasuringProtocol) -> Iterator[tuple[Verdict, Reason]]:
    headlines = [quantile(launch.samples_ns, protocol.headline_quantile) for launch in launches]
    interval = launch_interval(headlines)
    spread = (interval.high_ns - interval.low_ns) / interval.value_ns
    if spread > SPREAD_DEGRADED:
        invalid = spread > SPREAD_INVALID
        limit = SPREAD_INVALID if invalid else SPREAD_DEGRADED
        detail = f"launches differ by {spread:.1%} of their median, more than {limit:.0%}"
        yield Verdict.INVALID if invalid else Verdict.DEGRADED, Reason("launches-disagree", detail)


def _trend(launches: Sequence[Launch]) -> Iterator[tuple[Verdict, Reason]]:
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


def _throttling(launches: Sequence[Launch]) -> Iterator[tuple[Verdict, Reason]]:
    events = sum(
        launch.after.throttle_count - launch.before.throttle_count
        for launch in launches
        if launch.before.throttle_count is not None and launch.after.throttle_count is not None
    )
    if events:
        yield Verdict.DEGRADED, Reason("throttled", f"the processor throttled {events} times while timing")
