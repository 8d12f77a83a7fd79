"""What a compilation found: a row for each variant, the front, and the choice with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from devices.measurement import BetweenBatches, Measurement, Ratio
from devices.measuring import PRACTICAL
from pipeline.compile.quality import Quality
from pipeline.compile.sensitivity import LayerSensitivity
from pipeline.compile.variants import ModelFormat
from pipeline.work.canonical import StoredFile


class Objective(StrEnum):
    """What the choice makes small."""

    LATENCY = "latency"
    SIZE = "size"


class Fate(StrEnum):
    """What became of a variant."""

    MEASURED = "measured"
    STOPPED = "stopped"
    """It is surely slower than another, or larger, so it got no further launches."""
    REJECTED = "rejected"
    """It loses too much accuracy, or its outputs are no numbers."""
    FAILED = "failed"
    """It could not be made or run."""
    LEFT_OUT = "left-out"
    """It was not tried."""


@dataclass(frozen=True)
class Row:
    """One variant on one target.

    Attributes:
        name: of the variant, with what was tried with it: threads, cores, a network that was fine-tuned.
        variant: its name.
        target: as text.
        fate: what became of it.
        why: for every fate but ``measured``; of that, what disturbed the measurement so that its interval
            is wide.
        lossless: it computes what the model does.
        file: what was made.
        notes: how it was made.
        size_bytes: of the file.
        quality: beside the model itself.
        measurement: with raw samples.
        ratio: its latency over the baseline's, round by round.
        rounds: in which it ran.
        peak_memory_bytes: of a process that runs it alone; ``None`` where it was not measured.
        warnings: known traps.
        passing: it could not be made for a reason that may be gone another time.
    """

    name: str
    variant: str
    target: str
    fate: Fate
    why: str = ""
    lossless: bool = False
    file: StoredFile | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int | None = None
    quality: Quality | None = None
    measurement: Measurement | None = None
    ratio: Ratio | None = None
    rounds: int = 0
    peak_memory_bytes: int | None = None
    warnings: tuple[str, ...] = ()
    passing: bool = False

    @property
    def latency_ms(self) -> float | None:
        """Headline, milliseconds."""
        return None if self.measurement is None else self.measurement.latency.value_ns / 1e6

    @property
    def drop(self) -> float:
        """Points of accuracy that it loses; 0 where that is not known."""
        return 0.0 if self.quality is None or self.quality.drop is None else self.quality.drop


@dataclass(frozen=True)
class Raced:
    """What was found on one device.

    Attributes:
        place: as it was asked for.
        rows: the baseline first, then in the order of their latency.
        baseline: name of its row.
        chosen: name of the row that was chosen; ``None`` where none may be.
        reason: of the choice, one sentence.
        front: names of the rows that no other beats in latency, size and accuracy at once.
        keeps_budget: ``None`` without a budget.
        warnings: of the whole.
        sensitivity: of operators to int8, the most sensitive first, by format of the model; of formats whose
            int8 variants were chosen or lost too much.
        between: how far batches differ on the device, by which the budget is judged; ``None`` where nothing
            ran, and in results of earlier versions.
    """

    place: str
    rows: tuple[Row, ...]
    baseline: str
    chosen: str | None
    reason: str
    front: tuple[str, ...]
    keeps_budget: bool | None = None
    warnings: tuple[str, ...] = ()
    sensitivity: Mapping[ModelFormat, tuple[LayerSensitivity, ...]] = field(default_factory=dict)
    between: BetweenBatches | None = None

    def row(self, name: str) -> Row:
        """The row of a name."""
        return next(row for row in self.rows if row.name == name)


def front_of(rows: tuple[Row, ...]) -> tuple[str, ...]:
    """Names of the measured rows that no other is at least as good as in all three respects.

    Latencies that differ by less than ``PRACTICAL`` count as equal.
    """
    known = [row for row in rows if row.fate is Fate.MEASURED and row.measurement is not None]

    def beats(one: Row, other: Row) -> bool:
        assert one.latency_ms is not None
        assert other.latency_ms is not None
        assert one.size_bytes is not None
        assert other.size_bytes is not None
        no_worse = (
            one.latency_ms <= other.latency_ms * (1 + PRACTICAL)
            and one.size_bytes <= other.size_bytes
            and one.drop <= other.drop
        )
        better = (
            one.latency_ms * (1 + PRACTICAL) < other.latency_ms
            or one.size_bytes < other.size_bytes
            or one.drop < other.drop
        )
        return no_worse and better

    return tuple(row.name for row in known if not any(beats(other, row) for other in known))
