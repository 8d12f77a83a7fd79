"""Where the time of an inference goes: one entry for each operation, from a profiled run of its own.

A profiler slows a model down, by a fixed amount per operation rather than in proportion. So shares are of the
operations' own sum, and nothing of such a run ever enters a latency.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from devices.connections import Connection
from devices.errors import MeasurementError
from devices.measurement.measurement import DeviceIdentity, RuntimeIdentity
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import quantile
from devices.requests.single import ask, reason_of
from devices.runtimes.base import ProfileOperations
from devices.target import Target

TIMEOUT_S = 300.0
"""How long a profiled run may take, loading included."""


@dataclass(frozen=True)
class Operation:
    """One operation of a model, in the words of its runtime.

    Attributes:
        name: unique in the model where the runtime makes it so.
        kind: type of operation, e.g. Conv.
        where: execution provider or delegate that ran it.
        samples_ns: one per inference; a tool that keeps them to itself gives its average as the only one.
    """

    name: str
    kind: str
    where: str
    samples_ns: tuple[int, ...]

    @property
    def median_ns(self) -> float:
        """Median over inferences, nanoseconds; 0 where it never ran."""
        return quantile(self.samples_ns, 0.5) if self.samples_ns else 0.0


@dataclass(frozen=True)
class OperationGroup:
    """Operations taken together: how many, the sum of their medians, and its share of all operations."""

    kind: str
    where: str
    count: int
    time_ns: float
    share: float


@dataclass(frozen=True)
class OperationProfile:
    """The operations of one model in order of execution, and whole inferences of the same profiled run.

    Attributes:
        total_ns: whole inferences; empty where the runtime does not tell.
    """

    artifact_digest: str
    target: str
    runtime: RuntimeIdentity
    device: DeviceIdentity
    protocol: MeasuringProtocol
    operations: tuple[Operation, ...]
    total_ns: tuple[int, ...]
    started_at: str
    kind: Literal["operations"] = field(default="operations")

    @property
    def sum_ns(self) -> float:
        """Sum of the operations' medians, nanoseconds."""
        return sum(operation.median_ns for operation in self.operations)

    @property
    def whole_ns(self) -> float | None:
        """Median of a whole inference while profiled, nanoseconds."""
        return quantile(self.total_ns, 0.5) if self.total_ns else None

    def share(self, time_ns: float) -> float:
        """Part of the operations' sum, 0..1."""
        return time_ns / self.sum_ns if self.sum_ns else 0.0

    def by_kind(self) -> tuple[OperationGroup, ...]:
        """Operations grouped by kind and where they ran, the most expensive first."""
        groups: dict[tuple[str, str], list[Operation]] = {}
        for operation in self.operations:
            groups.setdefault((operation.kind, operation.where), []).append(operation)
        sums = {key: sum(operation.median_ns for operation in group) for key, group in groups.items()}
        return tuple(
            OperationGroup(kind, where, len(groups[kind, where]), time_ns, self.share(time_ns))
            for (kind, where), time_ns in sorted(sums.items(), key=lambda entry: -entry[1])
        )


@dataclass(frozen=True)
class _Answer:
    operations: tuple[Operation, ...]
    total_ns: tuple[int, ...]


_ANSWER = TypeAdapter(_Answer)


def profile_operations(
    artifact: Path,
    target: Target,
    protocol: MeasuringProtocol,
    *,
    timeout_s: float = TIMEOUT_S,
    connection: Connection | None = None,
) -> OperationProfile:
    """Profile one file in a fresh process that does nothing else.

    Args:
        artifact: a file that the target's runtime loads.
        target: where.
        protocol: gives the number of inferences (``min_count``) and the seed of the inputs.
        timeout_s: the longest that all of it may take.
        connection: an open connection to use instead of a new one to the target's device; it stays open.

    Raises:
        TargetError: as ``devices.requests.single.ask``.
        MeasurementError: so too; or the runtime has no profiler, or the run failed.
    """
    subject, reply = ask(
        ProfileOperations(artifact, protocol),
        target,
        timeout_s=timeout_s,
        silence_s=timeout_s,
        connection=connection,
    )
    answers = reply.all("operations")
    what = f"the operations of {str(artifact)!r} could not be profiled on '{target}'"
    if not answers:
        reason = reason_of(reply)
        raise MeasurementError(f"{what} ({reason.code})", why=reason.detail)
    try:
        answer = _ANSWER.validate_python(answers[0])
    except ValidationError as error:
        raise MeasurementError(what, why=f"the device's answer is no table of operations: {error}") from error
    if not answer.operations:
        raise MeasurementError(what, why="the runtime's profiler told of no operation")
    return OperationProfile(
        subject.artifact_digest,
        subject.target,
        subject.runtime,
        subject.device,
        subject.protocol,
        answer.operations,
        answer.total_ns,
        subject.started_at,
    )
