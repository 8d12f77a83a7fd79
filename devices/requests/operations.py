"""Where the time of an inference goes: one entry for each operation, from a profiled run of its own.

A profiler slows a model down, by a fixed amount per operation rather than in proportion. So shares are of the
operations' own sum, and nothing of such a run ever enters a latency.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from devices.connections import Connection
from devices.errors import MeasurementError
from devices.inputs import NOTHING, Given
from devices.measurement.measurement import DeviceIdentity, RuntimeIdentity
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import quantile
from devices.requests.single import ask, reason_of
from devices.runtimes.base import ProfileOperations
from devices.target import Target

MOVING = re.compile(
    r"(?<!broad)cast|(?<!conv)transpose(?!_?conv)|reorder|reformat|quanti[sz]e(linear)?($|\W)|memcpy|copy|convert",
    re.IGNORECASE,
)
"""Kinds of operations that compute nothing, in the words of all runtimes."""
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
    def time_ns(self) -> float:
        """Mean over inferences without the fastest and slowest tenth, nanoseconds; 0 where it never ran.

        Profilers count in microseconds: a median would be 0 of all that takes less.
        """
        ordered = sorted(self.samples_ns)
        left_out = len(ordered) // 10
        kept = ordered[left_out : len(ordered) - left_out]
        return sum(kept) / len(kept) if kept else 0.0


@dataclass(frozen=True)
class OperationGroup:
    """Operations taken together: how many, the sum of their times, and its share of all operations."""

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
        """Sum of the operations' times, nanoseconds."""
        return sum(operation.time_ns for operation in self.operations)

    @property
    def whole_ns(self) -> float | None:
        """Median of a whole inference while profiled, nanoseconds."""
        return quantile(self.total_ns, 0.5) if self.total_ns else None

    @property
    def too_coarse(self) -> bool:
        """The profiler counts in microseconds, and operations that take less are most of their sum."""
        if any(sample % 1000 for each in self.operations for sample in each.samples_ns):
            return False
        below_ns = sum(each.time_ns for each in self.operations if each.time_ns < 1000)
        return 2 * below_ns >= self.sum_ns

    @property
    def moving(self) -> OperationGroup | None:
        """What only changes type, layout or place of data, taken together; ``None`` where nothing does."""
        found = [each for each in self.operations if MOVING.search(each.kind)]
        time_ns = sum(each.time_ns for each in found)
        kinds = ", ".join(sorted({each.kind for each in found}))
        return OperationGroup(kinds, "", len(found), time_ns, self.share(time_ns)) if found else None

    def share(self, time_ns: float) -> float:
        """Part of the operations' sum, 0..1."""
        return time_ns / self.sum_ns if self.sum_ns else 0.0

    def by_kind(self) -> tuple[OperationGroup, ...]:
        """Operations grouped by kind and where they ran, the most expensive first."""
        groups: dict[tuple[str, str], list[Operation]] = {}
        for operation in self.operations:
            groups.setdefault((operation.kind, operation.where), []).append(operation)
        sums = {key: sum(operation.time_ns for operation in group) for key, group in groups.items()}
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
    given: Given = NOTHING,
    timeout_s: float = TIMEOUT_S,
    connection: Connection | None = None,
) -> OperationProfile:
    """Profile one file in a fresh process that does nothing else.

    Args:
        artifact: a file that the target's runtime loads.
        target: where.
        protocol: gives the number of inferences (``min_count``) and the seed of the inputs.
        given: inputs that the file is given.
        timeout_s: the longest that all of it may take.
        connection: an open connection to use instead of a new one to the target's device; it stays open.

    Raises:
        TargetError: as ``devices.requests.single.ask``.
        MeasurementError: so too; or the runtime has no profiler, or the run failed.
    """
    subject, reply = ask(
        ProfileOperations(artifact, protocol, given),
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
