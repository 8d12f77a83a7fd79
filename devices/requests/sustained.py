"""One model run without pause for minutes, so that heat and its throttling show.

A record of its own: a sustained run says how a latency develops, and never enters the headline, which is of
short launches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from devices.connections import Connection
from devices.errors import MeasurementError
from devices.inputs import NOTHING, Given
from devices.measurement.conditions import Conditions, conditions_from_json
from devices.measurement.measurement import DeviceIdentity, Reason, RuntimeIdentity
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import quantile
from devices.requests.single import ask, reason_of
from devices.runtimes.base import Event, Sustain
from devices.target import Target

WINDOW_NS = 5_000_000_000
"""Length of a window of time; a short run has at least ``MIN_WINDOWS`` shorter ones."""
MIN_WINDOWS = 12
END_NS = 60_000_000_000
"""The first and the last minute are compared; of a run below three minutes, its first and last third."""
MIN_WINDOWS_PER_END = 3
CHANGE = 0.05
"""Change from first to last minute that is called one."""
GRACE_S = 120.0
"""How long the model may take to load, and a window to come beyond its own length."""


class Pace(StrEnum):
    """How a latency developed."""

    HOLDS = "holds"
    SLOWS_DOWN = "slows-down"
    SPEEDS_UP = "speeds-up"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Window:
    """Some seconds of a sustained run.

    Attributes:
        start_ns: since the first inference.
        samples_ns: of inferences in order; of a fast model evenly chosen ones, so that hours can be kept.
        conditions: of the device when the window ended.
        count: inferences in the window.
    """

    start_ns: int
    samples_ns: tuple[int, ...]
    conditions: Conditions
    count: int

    @property
    def median_ns(self) -> float:
        """Median of the window, nanoseconds: a low quantile would hide throttling that comes and goes."""
        return quantile(self.samples_ns, 0.5)


@dataclass(frozen=True)
class SustainedRun:
    """A model run without pause.

    Attributes:
        duration_ns: what was asked for.
        window_ns: length of a window, but of one in which a single inference took longer.
        ended_early: why the run ended before that; ``None`` for a full one.
    """

    artifact_digest: str
    target: str
    runtime: RuntimeIdentity
    device: DeviceIdentity
    protocol: MeasuringProtocol
    duration_ns: int
    window_ns: int
    windows: tuple[Window, ...]
    started_at: str
    ended_early: Reason | None = None
    kind: Literal["sustained"] = field(default="sustained")

    @property
    def elapsed_ns(self) -> int:
        """How long it ran."""
        return min(self.duration_ns, self.windows[-1].start_ns + self.window_ns)

    @property
    def end_ns(self) -> int:
        """Length of the first and last part that are compared."""
        return min(END_NS, self.elapsed_ns // 3)

    @property
    def first_ns(self) -> tuple[float, ...]:
        """Medians of the windows of the first minute, nanoseconds."""
        return tuple(window.median_ns for window in self.windows if window.start_ns < self.end_ns)

    @property
    def last_ns(self) -> tuple[float, ...]:
        """Medians of the windows of the last minute, nanoseconds."""
        begin = self.elapsed_ns - self.end_ns
        return tuple(window.median_ns for window in self.windows if window.start_ns >= begin)

    @property
    def ratio(self) -> float | None:
        """Latency of the last minute over that of the first; ``None`` for a run that is too short."""
        if min(len(self.first_ns), len(self.last_ns)) < MIN_WINDOWS_PER_END:
            return None
        return quantile(self.last_ns, 0.5) / quantile(self.first_ns, 0.5)

    @property
    def pace(self) -> Pace:
        """The verdict: a change must exceed ``CHANGE``, and the middle halves of the windows lie apart."""
        if self.ratio is None:
            return Pace.UNCLEAR
        if abs(self.ratio - 1) <= CHANGE:
            return Pace.HOLDS
        slower = quantile(self.last_ns, 0.25) > quantile(self.first_ns, 0.75)
        faster = quantile(self.last_ns, 0.75) < quantile(self.first_ns, 0.25)
        if self.ratio > 1:
            return Pace.SLOWS_DOWN if slower else Pace.UNCLEAR
        return Pace.SPEEDS_UP if faster else Pace.UNCLEAR

    @property
    def onset_ns(self) -> int | None:
        """Start of the first three windows in a row that are slower than the first minute by ``CHANGE``."""
        if self.pace is not Pace.SLOWS_DOWN:
            return None
        limit_ns = (1 + CHANGE) * quantile(self.first_ns, 0.5)
        slow = [window.median_ns > limit_ns for window in self.windows]
        starts = (
            window.start_ns
            for number, window in enumerate(self.windows[:-2])
            if all(slow[number : number + 3])
        )
        return next(starts, None)

    def __str__(self) -> str:
        ratio = self.ratio
        if ratio is None:
            return f"ran for {_minutes(self.elapsed_ns)}, too short to tell whether it slows down"
        ends = "minute" if self.end_ns == END_NS else "third"
        seen = f"last {ends} {ratio:.2f}x the first {ends}"
        match self.pace:
            case Pace.HOLDS:
                return f"holds its pace for {_minutes(self.elapsed_ns)}: {seen}"
            case Pace.SLOWS_DOWN:
                since = f" after {_minutes(self.onset_ns)}" if self.onset_ns else ""
                return f"slows down by {ratio - 1:.0%}{since}: {seen}"
            case Pace.SPEEDS_UP:
                return f"gets faster by {1 - ratio:.0%}: {seen}"
            case Pace.UNCLEAR:
                return f"cannot tell: {seen}, but single windows differ as much"


def sustain(
    artifact: Path,
    target: Target,
    protocol: MeasuringProtocol,
    duration_ns: int,
    *,
    given: Given = NOTHING,
    on_progress: Callable[[int, int], None] | None = None,
    connection: Connection | None = None,
) -> SustainedRun:
    """Run one file without pause in a fresh process.

    What was measured before a run ended early, by a crash or because the device went away, is kept.

    Args:
        artifact: a file that the target's runtime loads.
        target: where.
        protocol: gives the seed of the inputs.
        duration_ns: for how long.
        given: inputs that the file is given.
        on_progress: called with the windows that are done, and their total.
        connection: an open connection to use instead of a new one to the target's device; it stays open.

    Raises:
        TargetError: as ``devices.requests.single.ask``.
        MeasurementError: so too; or the run ended before its first window of time.
        ValueError: the duration is not above zero.
    """
    if duration_ns <= 0:
        raise ValueError(f"a run of {duration_ns} ns has no duration")
    window_ns = max(1, min(WINDOW_NS, duration_ns // MIN_WINDOWS))
    total, done = max(1, round(duration_ns / window_ns)), 0

    def count(event: Event) -> None:
        nonlocal done
        if event["event"] == "window" and on_progress is not None:
            done = min(done + 1, total)
            on_progress(done, total)

    subject, reply = ask(
        Sustain(artifact, protocol, duration_ns, window_ns, given),
        target,
        timeout_s=duration_ns / 1e9 + 2 * GRACE_S,
        silence_s=window_ns / 1e9 + GRACE_S,
        on_event=count,
        connection=connection,
    )
    windows, malformed = _windows(reply.all("window"))
    ended_early = malformed or (None if reply.all("finished") else reason_of(reply))
    if not windows:
        reason = ended_early or Reason("truncated-output", "the device told of no window of time")
        raise MeasurementError(
            f"{str(artifact)!r} could not be run on '{target}' ({reason.code})", why=reason.detail
        )
    if on_progress is not None:
        on_progress(total, total)
    return SustainedRun(
        subject.artifact_digest,
        subject.target,
        subject.runtime,
        subject.device,
        subject.protocol,
        duration_ns,
        window_ns,
        windows,
        subject.started_at,
        ended_early,
    )


_SAMPLES = TypeAdapter(tuple[int, ...])


def _windows(events: Sequence[Event]) -> tuple[tuple[Window, ...], Reason | None]:
    """Windows up to the first that cannot be read, and what is wrong with that one."""
    windows: list[Window] = []
    for event in events:
        try:
            samples_ns = _SAMPLES.validate_python(event["samples_ns"])
            conditions = conditions_from_json(event["conditions"])
            start_ns, count = int(event["start_ns"]), int(event["count"])
        except (ValidationError, AttributeError, KeyError, TypeError, ValueError) as error:
            return tuple(windows), Reason("malformed-answer", f"window {len(windows) + 1}: {error}")
        if samples_ns and quantile(samples_ns, 0.5) <= 0:
            detail = "an inference takes less than the tool's clock can tell: its time is given as 0"
            return tuple(windows), Reason("too-fast", detail)
        if samples_ns:
            windows.append(Window(start_ns, samples_ns, conditions, count))
    return tuple(windows), None


def _minutes(nanoseconds: int | None) -> str:
    seconds = (nanoseconds or 0) / 1e9
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
