"""What a measurement is: several launches with raw samples, conditions around them, and a verdict."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from devices.measurement.between import BetweenBatches
from devices.measurement.conditions import Conditions, RunQueue, Usage
from devices.measurement.disturbance import UNBOUNDED, UNEVEN, best_canary_ns, bounds
from devices.measurement.headline import launch_interval
from devices.measurement.inputs import InputUse
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import Interval, quantile


class Verdict(StrEnum):
    """How far a measurement may be trusted."""

    VALID = "valid"
    DEGRADED = "degraded"
    INVALID = "invalid"


@dataclass(frozen=True)
class Reason:
    """Why a verdict is not ``valid``: a machine-readable code and a sentence with the figures."""

    code: str
    detail: str


@dataclass(frozen=True)
class Placed:
    """Operations of a model that one execution provider or delegate took, in so many connected partitions.

    A number is ``None`` where the runtime's tool does not tell it.
    """

    where: str
    nodes: int | None
    partitions: int | None


@dataclass(frozen=True)
class Placement:
    """Where the operations of a model ran, as the runtime reports it.

    Attributes:
        delegate: where the target wants them all.
        parts: where they were.
    """

    delegate: str
    parts: tuple[Placed, ...]

    @property
    def full(self) -> bool:
        """No operation fell back to anything else than the delegate."""
        return all(part.where == self.delegate for part in self.parts)

    def __str__(self) -> str:
        counts = [part.nodes for part in self.parts if part.nodes is not None]
        of_all = f" of {sum(counts)}" if len(counts) == len(self.parts) else ""
        return ", ".join(
            f"{'some' if part.nodes is None else part.nodes}{of_all} operations on {part.where}"
            + (f" in {part.partitions} partitions" if (part.partitions or 1) > 1 else "")
            for part in self.parts
        )


@dataclass(frozen=True)
class Summary:
    """All that a tool which keeps its samples to itself says of them; quantiles as (level, ns) pairs."""

    count: int
    mean_ns: int
    min_ns: int
    max_ns: int
    quantiles_ns: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Launch:
    """One fresh process in which the model was loaded, warmed up and timed.

    The phases are kept apart: process start, load, first inference, steady state (``samples_ns``, one
    integer per inference in the order they ran). An inference is timed from input ready to output ready, both
    in buffers of the runtime. ``None`` stands for a phase that the tool does not report.

    Attributes:
        samples_ns: empty only where ``summary`` stands in for them.
        peak_memory_bytes: of the whole process: interpreter, runtime and model.
        usage: the processors meanwhile.
        queue: the run queue while the samples were taken.
        canary_ns: the canary's latency in the same process: at its start, in its middle, at its end.
        placement: where the operations ran; ``None`` where the runtime does not tell.
        to_device_ns: copies of the inputs to an accelerator, which are in no other time.
        from_device_ns: copies of the outputs back.
        warnings: what the runtime itself found odd.
        inputs: what the model was fed with; empty where the tool does not tell.
        void: why the launch does not count: something disturbed it. Its samples are kept all the same.
    """

    process_start_ns: int | None
    load_ns: int | None
    first_inference_ns: int | None
    samples_ns: tuple[int, ...]
    peak_memory_bytes: int | None
    before: Conditions
    after: Conditions
    usage: Usage | None = None
    queue: RunQueue | None = None
    canary_ns: tuple[int, ...] = ()
    placement: Placement | None = None
    to_device_ns: tuple[int, ...] = ()
    from_device_ns: tuple[int, ...] = ()
    summary: Summary | None = None
    warnings: tuple[Reason, ...] = ()
    inputs: tuple[InputUse, ...] = ()
    void: Reason | None = None

    def quantile_ns(self, level: float) -> float:
        """A quantile of the samples, nanoseconds.

        Raises:
            ValueError: there are no samples, and the summary does not hold this quantile.
        """
        if self.samples_ns:
            return quantile(self.samples_ns, level)
        for known, value_ns in self.summary.quantiles_ns if self.summary is not None else ():
            if known == level:
                return float(value_ns)
        raise ValueError(f"the tool reported neither samples nor the {level:g} quantile")


MIN_LAUNCHES = 3
"""Launches below which their disagreement cannot be seen."""


def counted(launches: Sequence[Launch]) -> tuple[Launch, ...]:
    """The launches that are not void; all of them where fewer than ``MIN_LAUNCHES`` would be left."""
    sound = tuple(launch for launch in launches if launch.void is None)
    return sound if len(sound) >= MIN_LAUNCHES else tuple(launches)


def moved(launches: Sequence[Launch], protocol: MeasuringProtocol) -> tuple[float, ...]:
    """``Measurement.moved`` of some launches of one batch."""
    found = bounds(counted(launches), protocol.headline_quantile, best_canary_ns(launches))
    return tuple(min(each, UNBOUNDED) for each in found)


def latency_of(launches: Sequence[Launch], protocol: MeasuringProtocol) -> Interval:
    """Median of a batch's launches that count, from the least that they may have taken to what they took."""
    took = [launch.quantile_ns(protocol.headline_quantile) for launch in counted(launches)]
    least = [value * math.exp(-each) for value, each in zip(took, moved(launches, protocol), strict=True)]
    return replace(launch_interval(took), low_ns=launch_interval(least).low_ns)


@dataclass(frozen=True)
class RuntimeIdentity:
    """The inference engine that ran: its version, the digest of its binary, and the options it was given."""

    name: str
    version: str
    binary_digest: str
    precision: str
    threads: int
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceIdentity:
    """The kind of machine; ``instance`` tells one machine of the kind from another and is kept apart.

    Attributes:
        accelerator: GPU with its driver, where the runtime uses one.
        emulated: the processor is emulated by another kind, so that its times say nothing of a real one.
    """

    machine: str
    cpu: str
    cores: int
    os: str
    kernel: str
    instance: str
    accelerator: str = ""
    emulated: bool = False


WIDE = 1 / 3
"""Width of an interval, relative to its value, beyond which a measurement is repeated where it can be."""


@dataclass(frozen=True)
class Measurement:
    """Something that ran. Never made from an estimate.

    ``latency`` is the headline: the median over the launches that count of each one's headline quantile, with
    a distribution-free interval over these launches that is widened by the protocol's ``drift``. Where
    something disturbed nearly all launches, the interval reaches down by as much as that can have added.
    """

    artifact_digest: str
    target: str
    runtime: RuntimeIdentity
    device: DeviceIdentity
    protocol: MeasuringProtocol
    launches: tuple[Launch, ...]
    verdict: Verdict
    reasons: tuple[Reason, ...]
    started_at: str
    kind: Literal["measurement"] = field(default="measurement")

    @property
    def latency(self) -> Interval:
        """Headline latency in nanoseconds with its interval over launches, widened by the drift.

        What disturbs a launch adds time, as a rule. So the low end is that of what the launches may have
        taken undisturbed (``moved``), and the high end that of what they took. The interval of an invalid
        measurement goes from the least of the former to the slowest launch.
        """
        interval = latency_of(self.launches, self.protocol)
        if self.verdict is Verdict.INVALID:
            least = map(operator.mul, self.headlines_ns, (math.exp(-each) for each in self.moved))
            interval = replace(interval, low_ns=min(least), high_ns=max(self.headlines_ns))
        return interval.widened(self.protocol.drift)

    def on_device(self, between: BetweenBatches | None) -> Interval:
        """The interval that holds at another time too; that of here and now where nothing is known."""
        return self.latency if between is None else between.around(self.latency)

    @property
    def moved(self) -> tuple[float, ...]:
        """For each launch that counts, how far what disturbed it may have moved the log of its headline."""
        return moved(self.launches, self.protocol)

    @property
    def sharp(self) -> bool:
        """It can be used as it is: valid, or degraded with an interval of at most ``WIDE`` of its value."""
        return self.verdict is Verdict.VALID or (
            self.verdict is Verdict.DEGRADED and self.latency.relative_width <= WIDE
        )

    @property
    def counted(self) -> tuple[Launch, ...]:
        """The launches that count, in their order: those not void, or all where too few would be left."""
        return counted(self.launches)

    @property
    def headlines_ns(self) -> tuple[float, ...]:
        """The headline quantile of each launch that counts, nanoseconds, in launch order."""
        return tuple(launch.quantile_ns(self.protocol.headline_quantile) for launch in self.counted)

    @property
    def median_ns(self) -> float:
        """Median over the launches that count of each one's median, nanoseconds."""
        return quantile([launch.quantile_ns(0.5) for launch in self.counted], 0.5)

    @property
    def canary_ns(self) -> float | None:
        """How fast the machine was: median over the launches that count of each one's median canary.

        ``None`` where the runtime has no canary. Latencies of one target taken at different times compare
        better after division by it; docs/concepts/measuring.md has the evidence.
        """
        canaries = [quantile(launch.canary_ns, 0.5) for launch in self.counted if launch.canary_ns]
        return quantile(canaries, 0.5) if canaries else None

    @property
    def inputs(self) -> tuple[InputUse, ...]:
        """The shapes and values for which the latency holds; empty where the runtime does not tell."""
        return self.launches[0].inputs

    @property
    def warnings(self) -> tuple[Reason, ...]:
        """What the runtime found odd in any launch, each once."""
        return tuple({warning.code: warning for each in self.launches for warning in each.warnings}.values())

    @property
    def placement(self) -> Placement | None:
        """Where the operations ran; that of the first launch which fell back, if one did."""
        known = [launch.placement for launch in self.launches if launch.placement is not None]
        return next((placement for placement in known if not placement.full), known[0] if known else None)


@dataclass(frozen=True)
class Ratio:
    """Median of ratios taken launch by launch, with its distribution-free interval."""

    low: float
    value: float
    high: float
    confidence: float

    def __str__(self) -> str:
        return f"{self.value:.3f}x [{self.low:.3f}, {self.high:.3f}]"

    @property
    def inverse(self) -> Ratio:
        """The ratio the other way round."""
        return Ratio(1 / self.high, 1 / self.value, 1 / self.low, self.confidence)


def paired_ratio(one: Measurement, other: Measurement) -> Ratio | None:
    """Latency of one over that of another, launch by launch; ``None`` where launches cannot be paired.

    What disturbed a launch disturbed both, but a longer inference is interrupted where a shorter one may not
    be. So the interval holds the ratio as it was seen, and as it were if both had been moved as far as they
    may have been.
    """
    if len(one.headlines_ns) != len(other.headlines_ns):
        return None
    seen = [mine / theirs for mine, theirs in zip(one.headlines_ns, other.headlines_ns, strict=True)]
    moves = zip(one.moved, other.moved, strict=True)
    corrected = [ratio * math.exp(theirs - mine) for ratio, (mine, theirs) in zip(seen, moves, strict=True)]
    interval, undisturbed = launch_interval(seen), launch_interval(corrected)
    uneven = UNEVEN if any((*one.moved, *other.moved)) else 0.0
    return Ratio(
        (1 - uneven) * min(interval.low_ns, undisturbed.low_ns),
        interval.value_ns,
        (1 + uneven) * max(interval.high_ns, undisturbed.high_ns),
        interval.confidence,
    )


PASSING_CODES = (
    "no-file",
    "no-weights",
    "timeout",
    "truncated-output",
    "out-of-memory",
    "device-lost",
    "malformed-answer",
    "not-measured",
    # Signals that others send: a user, the system that shuts down, the kernel that needs memory.
    "crashed-signal-1",
    "crashed-signal-2",
    "crashed-signal-9",
    "crashed-signal-15",
)
"""Codes of failures that say nothing of the workload: no file, or a device too busy, too full or gone."""


@dataclass(frozen=True)
class MeasurementFailure:
    """A workload that could not be run on its target: the reason, and never a time.

    ``artifact_digest`` is empty where there is no file.
    """

    artifact_digest: str
    target: str
    reason: Reason
    kind: Literal["failure"] = field(default="failure")

    @property
    def passing(self) -> bool:
        """It may not come back when the workload is measured again: see ``PASSING_CODES``."""
        return self.reason.code in PASSING_CODES


Outcome = Measurement | MeasurementFailure
