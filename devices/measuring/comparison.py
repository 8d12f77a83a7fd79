"""Which of two files is faster on a target, from launches in which both ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from devices.connections import Connection
from devices.inputs import NOTHING, Given
from devices.measurement.measurement import MeasurementFailure, Outcome, Ratio, paired_ratio
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.batch import JOB_TIMEOUT_S
from devices.measuring.launch import Job
from devices.measuring.pool import measure
from devices.target import Target

LAUNCHES = 9
"""Launches of a comparison: the interval then leaves out both extremes, with 96 % confidence."""
MIN_CONFIDENCE = 0.95
"""Confidence of the ratio's interval below which nothing is said; six launches reach it."""
PRACTICAL = 0.02
"""Difference below which two latencies count as equal: how closely the protocol repeats itself."""


class Finding(StrEnum):
    """What a comparison says of the first file."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no-difference-shown"
    CANNOT_TELL = "cannot-tell"


@dataclass(frozen=True)
class Comparison:
    """Two files that ran in the same launches, in random order.

    What disturbs a launch disturbs both, so that the ratio can be sure where neither latency is; its interval
    says how far the two may have been moved differently (``paired_ratio``).
    """

    first: Outcome
    second: Outcome
    kind: Literal["comparison"] = field(default="comparison")

    @property
    def ratio(self) -> Ratio | None:
        """The second's latency over the first's; ``None`` where one did not run in every launch."""
        first, second = self.first, self.second
        if isinstance(first, MeasurementFailure) or isinstance(second, MeasurementFailure):
            return None
        return paired_ratio(second, first)

    @property
    def obstacles(self) -> tuple[str, ...]:
        """Why nothing can be said; empty where something can."""
        found = []
        for name, outcome in (("the first", self.first), ("the second", self.second)):
            if isinstance(outcome, MeasurementFailure):
                found.append(f"{name} did not run ({outcome.reason.code})")
        if found:
            return tuple(found)
        ratio = self.ratio
        if ratio is None:
            return ("the two did not run in the same launches",)
        if ratio.confidence < MIN_CONFIDENCE:
            return (f"so few launches give the interval a confidence of {ratio.confidence:.0%} only",)
        return ()

    @property
    def finding(self) -> Finding:
        """The verdict: a difference is shown when its interval leaves out 1 and it exceeds ``PRACTICAL``."""
        ratio = self.ratio
        if self.obstacles or ratio is None:
            return Finding.CANNOT_TELL
        if ratio.low > 1 and ratio.value >= 1 + PRACTICAL:
            return Finding.FASTER
        if ratio.high < 1 and ratio.inverse.value >= 1 + PRACTICAL:
            return Finding.SLOWER
        return Finding.NO_DIFFERENCE

    def describe(self, first: str, second: str) -> str:
        """The verdict in one sentence, with the two files called by these names."""
        ratio = self.ratio
        if self.obstacles or ratio is None:
            return f"cannot tell whether {first} or {second} is faster: {'; '.join(self.obstacles)}"
        match self.finding:
            case Finding.FASTER:
                return f"{first} is faster than {second} by {ratio}"
            case Finding.SLOWER:
                return f"{first} is slower than {second} by {ratio.inverse}"
        if ratio.low > 1 or ratio.high < 1:
            return f"no difference that matters between {first} and {second}: {ratio}, below {PRACTICAL:.0%}"
        return f"no difference shown between {first} and {second}: {ratio}"


def compare(
    first: Path,
    second: Path,
    target: Target,
    protocol: MeasuringProtocol,
    *,
    given: Given = NOTHING,
    on_progress: Callable[[int, int], None] | None = None,
    on_state: Callable[[str], None] | None = None,
    job_timeout_s: float = JOB_TIMEOUT_S,
    connection: Connection | None = None,
) -> Comparison:
    """Time two files in the same launches, each in random order, and compare them launch by launch.

    Args:
        first: a file that the target's runtime loads.
        second: another, or the same one again.
        target: where.
        protocol: how often and how long; ``LAUNCHES`` launches are enough for a verdict.
        given: inputs that both are given.
        on_progress: called with the launches of files that are done, and their total.
        on_state: called with a line whenever a further launch is made, and why.
        job_timeout_s: how long one file may take in one launch, loading included.
        connection: an open connection to use instead of a new one to the target's device; it stays open.

    Raises:
        TargetError, MeasurementError: as ``devices.measuring.batch.measure``.
    """
    outcomes = measure(
        [Job("first", first, given), Job("second", second, given)],
        target,
        protocol,
        paired=True,
        on_progress=on_progress,
        on_state=on_state,
        job_timeout_s=job_timeout_s,
        connection=connection,
    )
    return Comparison(outcomes["first"], outcomes["second"])
