"""How a machine has been: its level and drift by its canaries, what disturbed it, and what to do about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from devices.measurement import BetweenBatches, Verdict
from devices.words import count_of
from latency_db.errors import StoreError
from latency_db.history.reading import Batch, History

NOW = 3
"""Newest batches that stand for how the machine is now."""
FEW = 10
"""Batches below which little is known."""
LARGE = 0.05
"""Share by which a level is off that is worth a word: what makes a launch void."""
MANY_VOID = 0.3
"""Share of void launches that is worth a word."""
ENOUGH = 3
"""Batches of an hour or a day below which its level is not compared with others."""

_ADVICE = {
    "canary-drift": "its clock or its neighbours slow it for seconds at a time",
    "preempted": "other processes take its processors",
    "stolen": "other machines on the same host take its processors",
    "other-load": "other processes run on it",
    "clock-jumped": "its clock is set while it measures",
}


@dataclass(frozen=True)
class Point:
    """A batch by its canary.

    Attributes:
        target: of the batch.
        slowdown: the canary over the usual one of its runtime, which is the median; 1 is usual.
        void_share: of its launches.
    """

    started_at: datetime
    target: str
    slowdown: float
    void_share: float
    verdict: Verdict


@dataclass(frozen=True)
class Level:
    """The median slowdown of some batches."""

    of: str
    slowdown: float
    batches: int


@dataclass(frozen=True)
class Health:
    """What the database tells of a machine.

    Attributes:
        points: batches with a canary, in the order of their moments.
        canaries_ns: the usual canary of each target, nanoseconds.
        now: the level of the newest batches.
        by_hour: levels by hour of the day, UTC.
        by_day: levels by day, UTC.
        launches: of all batches.
        void: how many of these were void, by what disturbed them, the most frequent first.
        invalid: batches whose measurement is invalid.
        between: how far batches differ, as intervals use it.
        notes: what is odd about the history.
        recommendation: what to do, in a sentence.
    """

    points: tuple[Point, ...]
    canaries_ns: Mapping[str, float]
    now: Level
    by_hour: tuple[Level, ...]
    by_day: tuple[Level, ...]
    launches: int
    void: Mapping[str, int]
    invalid: int
    between: BetweenBatches
    notes: tuple[str, ...]
    recommendation: str

    @property
    def void_share(self) -> float:
        """Void launches as a share of all."""
        return sum(self.void.values()) / self.launches if self.launches else 0.0


def health_of(name: str, history: History, *, now: datetime | None = None) -> Health:
    """Sum up the history of a machine.

    Args:
        name: of the device, for the errors.
        history: of one machine.
        now: the moment after which no batch can have begun.

    Raises:
        StoreError: no batch has a canary.
    """
    with_canary = [batch for batch in history.batches if batch.canary_ns]
    if not with_canary:
        raise StoreError(
            f"no canary of the device '{name}' is stored",
            why=f"{_are(len(history.batches))} stored, by runtimes without one"
            if history.batches
            else "only failures are",
            fix="measure something there with onnxruntime, litert or executorch, whose batches have a canary",
        )
    usual = {runtime: median(values) for runtime, values in _by(with_canary, _runtime).items()}
    points = tuple(
        Point(
            batch.started_at,
            batch.target,
            (batch.canary_ns or 0.0) / usual[batch.runtime],
            sum(batch.void.values()) / batch.launches,
            batch.verdict,
        )
        for batch in with_canary
    )
    void = Counter[str]()
    for batch in history.batches:
        void.update(batch.void)
    by_hour = _levels(points, lambda point: f"{point.started_at:%H}")
    launches = sum(batch.launches for batch in history.batches)
    level = Level("now", median(point.slowdown for point in points[-NOW:]), len(points[-NOW:]))
    return Health(
        points,
        {batch.target: usual[batch.runtime] for batch in with_canary},
        level,
        by_hour,
        _levels(points, lambda point: f"{point.started_at:%Y-%m-%d}"),
        launches,
        dict(void.most_common()),
        sum(batch.verdict is Verdict.INVALID for batch in history.batches),
        history.between,
        tuple(_notes(history, now or datetime.now(UTC))),
        next(_advice(level, by_hour, void, launches, history)),
    )


def _are(batches: int) -> str:
    return f"{count_of(batches, 'batch')} {'is' if batches == 1 else 'are'}"


def _runtime(batch: Batch) -> str:
    return batch.runtime


def _by(batches: Sequence[Batch], key: Callable[[Batch], str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for batch in batches:
        found[key(batch)].append(batch.canary_ns or 0.0)
    return found


def _levels(points: Sequence[Point], key: Callable[[Point], str]) -> tuple[Level, ...]:
    found: dict[str, list[float]] = defaultdict(list)
    for point in points:
        found[key(point)].append(point.slowdown)
    return tuple(Level(name, median(values), len(values)) for name, values in sorted(found.items()))


def _notes(history: History, now: datetime) -> list[str]:
    notes = []
    if history.set_back:
        notes.append(
            f"{history.set_back} of {len(history.batches)} batches began before one that was stored earlier: "
            "the clock was set back between them, or databases were merged; hours and days may be wrong"
        )
    if future := sum(batch.started_at > now for batch in history.batches):
        notes.append(
            f"{future} of {len(history.batches)} batches are dated later than now: the clock was wrong then, "
            "or is now"
        )
    return notes


def _advice(
    now: Level, by_hour: Sequence[Level], void: Counter[str], launches: int, history: History
) -> Iterator[str]:
    """What is worth doing, the most urgent first; there is always something to say."""
    between, batches = history.between, len(history.batches)
    if launches and void.total() > MANY_VOID * launches:
        code, count = void.most_common(1)[0]
        yield (
            f"Find out what disturbs it: {void.total() / launches:.0%} of its launches are void, most often "
            f"by {code} ({count}), that is, {_ADVICE.get(code, 'something disturbs it')}; until then rely on "
            "ratios of models that are measured together."
        )
    if batches < FEW:
        yield (
            f"Measure more before you rely on its intervals: {_are(batches)} stored, and with {FEW} or more, "
            "at different hours, little of what is assumed is left."
        )
    if now.slowdown > 1 + LARGE:
        yield (
            f"Let it cool and look at its clock and power supply: it is {now.slowdown - 1:.0%} slower now "
            "than it usually is."
        )
    hours = [level for level in by_hour if level.batches >= ENOUGH]
    slowest = max(hours, key=lambda level: level.slowdown, default=now)
    fastest = min(hours, key=lambda level: level.slowdown, default=now)
    if slowest.slowdown > (1 + LARGE) * fastest.slowdown:
        yield (
            f"Measure what you compare at the same hour: it is {slowest.slowdown / fastest.slowdown - 1:.0%} "
            f"slower at {slowest.of} than at {fastest.of} UTC."
        )
    if between.deviation > LARGE:
        yield (
            "Compare models in the same launches, with lathe compare and relative budgets: its batches "
            f"differ by {between.deviation:.1%}, so latencies in milliseconds say little."
        )
    if not (between.day.seen or between.boot.seen):
        yield (
            "Nothing speaks against it; measure on another day too, since how days differ is still assumed."
        )
    yield f"Nothing speaks against it: batches, days and boots differ by {between.deviation:.1%}."
