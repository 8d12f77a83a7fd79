"""What a measurement is: several launches with raw samples, conditions around them, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from devices.statistics import Interval, launch_interval, quantile


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
class Conditions:
    """The state of a device at one moment; ``None`` where it cannot be read."""

    load_1min: float | None
    memory_available_bytes: int | None
    cpu_frequency_khz: tuple[int, ...] | None
    governor: str | None
    temperature_millicelsius: tuple[int, ...] | None
    throttle_count: int | None


@dataclass(frozen=True)
class Launch:
    """One fresh process in which the model was loaded, warmed up and timed.

    The phases are kept apart: process start, load, first inference, steady state (``samples_ns``, one
    integer per inference in the order they ran). An inference is timed from input ready to output ready, both
    in buffers of the runtime. ``peak_memory_bytes`` is of the whole process: interpreter, runtime and model.
    """

    process_start_ns: int
    load_ns: int
    first_inference_ns: int
    samples_ns: tuple[int, ...]
    peak_memory_bytes: int
    before: Conditions
    after: Conditions


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
    """The kind of machine; ``instance`` tells one machine of the kind from another and is kept apart."""

    machine: str
    cpu: str
    cores: int
    os: str
    kernel: str
    instance: str


@dataclass(frozen=True)
class MeasuringProtocol:
    """How latencies are measured; part of every key, so a change of any number is another protocol.

    Every workload gets ``launches`` launches, and further ones up to ``max_launches`` while its launches
    still disagree. Warm-up ends when both its count and time are reached, or at ``max_ns``. Timing stops when
    both minimum count and time are reached, or at either cap. ``headline_quantile`` is the quantile of a
    launch's samples that stands for the launch; see docs/measuring.md for the evidence.
    """

    version: int = 1
    launches: int = 5
    max_launches: int = 15
    warmup_count: int = 5
    warmup_ns: int = 10_000_000
    min_count: int = 50
    min_ns: int = 25_000_000
    max_count: int = 5_000
    max_ns: int = 2_000_000_000
    headline_quantile: float = 0.1
    input_seed: int = 0


@dataclass(frozen=True)
class Measurement:
    """Something that ran. Never made from an estimate.

    ``latency`` is the headline: the median over launches of each launch's headline quantile, with a
    distribution-free interval over launches.
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
        """Headline latency in nanoseconds with its interval over launches."""
        return launch_interval(self.headlines_ns)

    @property
    def headlines_ns(self) -> tuple[float, ...]:
        """Each launch's headline quantile, nanoseconds, in launch order."""
        level = self.protocol.headline_quantile
        return tuple(quantile(launch.samples_ns, level) for launch in self.launches)

    @property
    def median_ns(self) -> float:
        """Median over launches of each launch's median, nanoseconds."""
        return quantile([quantile(launch.samples_ns, 0.5) for launch in self.launches], 0.5)


@dataclass(frozen=True)
class MeasurementFailure:
    """A workload that could not be run on its target: the reason, and never a time."""

    artifact_digest: str
    target: str
    reason: Reason
    kind: Literal["failure"] = field(default="failure")

    @property
    def passing(self) -> bool:
        """It may not come back: the device was too busy, too full, or lost in the middle."""
        return self.reason.code in ("timeout", "truncated-output", "out-of-memory")


Outcome = Measurement | MeasurementFailure
