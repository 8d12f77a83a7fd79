"""A measurer whose outcomes are made up, and which adapts the protocol as native tools do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from devices.measurement import (
    DeviceIdentity,
    Measurement,
    MeasurementFailure,
    MeasuringProtocol,
    Outcome,
    Reason,
    RuntimeIdentity,
    Verdict,
)
from devices.measurement.conditions import Conditions
from devices.measurement.measurement import Launch
from devices.measuring import Job, OtherLoad
from devices.target import Target
from pipeline.export.base import Format, block_workload, network_workload
from pipeline.export.cached_exports import Exportable, Exports
from pipeline.progress import Reporter
from pipeline.spaces.base import Space
from pipeline.tables.building.plan import calibration_plan

DEVICE = DeviceIdentity("x86_64", "made up", 2, "linux", "6.1", "here")
OTHERS_NS = 70_000.0
CANARY_NS = 100_000.0
Cost = Callable[[object], float]


def adapted(protocol: MeasuringProtocol) -> MeasuringProtocol:
    """What the made-up tool makes of a protocol: it measures for whole seconds."""
    return replace(protocol, min_ns=1_000_000_000)


@dataclass
class MadeUpMeasurer:
    """Answers by workload identity; what is not in ``special`` takes ``latencies_ns``.

    Attributes:
        latencies_ns: by workload; others take ``OTHERS_NS``.
        special: ``invalid``, or the code of a failure, by workload; ``otherwise`` for those without one.
        measured: the identities that were asked for, a list each time.
        slowdowns: by how much the machine was slower than usual, canary and all, by workload.
        loads: what the device does besides, one answer after the other; then nothing.
    """

    latencies_ns: Mapping[str, float]
    special: dict[str, str] = field(default_factory=dict)
    otherwise: str = ""
    measured: list[list[str]] = field(default_factory=list)
    slowdowns: dict[str, float] = field(default_factory=dict)
    loads: list[OtherLoad] = field(default_factory=list)

    def probe(self, target: Target) -> tuple[RuntimeIdentity, DeviceIdentity]:
        runtime = RuntimeIdentity(target.runtime, "1", "cd" * 32, target.precision, target.threads)
        return runtime, DEVICE

    def adapted(self, protocol: MeasuringProtocol, target: Target) -> MeasuringProtocol:
        return adapted(protocol)

    def busy_with(self, device: str) -> OtherLoad:
        return self.loads.pop(0) if self.loads else OtherLoad(2, 0.0)

    def measure(
        self,
        jobs: Sequence[Job],
        target: Target,
        protocol: MeasuringProtocol,
        *,
        on_progress: Callable[[int, int], None] | None = None,
        on_outcome: Callable[[str, Outcome], None] | None = None,
    ) -> dict[str, Outcome]:
        assert protocol == adapted(protocol), "what is measured is asked for by the adapted protocol"
        self.measured.append([job.name for job in jobs])
        outcomes = {job.name: self.outcome(job.name, target, protocol) for job in jobs}
        for name, outcome in outcomes.items():
            if on_outcome is not None:
                on_outcome(name, outcome)
        return outcomes

    def outcome(self, identity: str, target: Target, protocol: MeasuringProtocol) -> Outcome:
        code = self.special.get(identity, self.otherwise if identity not in self.latencies_ns else "")
        reason = Reason(code, f"made up: {code}")
        if code not in ("", "invalid"):
            return MeasurementFailure("ab" * 32, str(target), reason)
        slowdown = self.slowdowns.get(identity, 1.0)
        latency_ns = slowdown * self.latencies_ns.get(identity, OTHERS_NS)
        canary_ns = (round(slowdown * CANARY_NS),)
        # Disturbed launches took up to a tenth longer.
        shares = (1.0, 1.05, 1.1) if code else (1.0, 1.0, 1.0)
        launches = [
            Launch(
                1,
                1,
                1,
                (round(latency_ns * share),) * 20,
                None,
                Conditions(),
                Conditions(),
                canary_ns=canary_ns,
            )
            for share in shares
        ]
        return Measurement(
            "ab" * 32,
            str(target),
            *self.probe(target),
            protocol,
            tuple(launches),
            Verdict.INVALID if code else Verdict.VALID,
            (reason,) if code else (),
            "2026-01-01T00:00:00+00:00",
        )


def latencies_of(space: Space, cost: Cost, fmt: Format) -> dict[str, float]:
    """Of every block, and of the planned networks, which take 0.8 of their blocks and 2000 ns."""
    blocks = {block: cost(block) for block in space.distinct_blocks()}
    networks = [each.architecture for each in calibration_plan(space)]
    return {block_workload(block, fmt).identity: latency_ns for block, latency_ns in blocks.items()} | {
        network_workload(space.description, each, fmt).identity: 0.8
        * sum(blocks[block] for block in space.blocks(each))
        + 2_000
        for each in networks
    }


@contextmanager
def exported_to(
    folder: Path, wanted: Mapping[Format, Mapping[str, Exportable]], what: str, reporter: Reporter
) -> Iterator[Exports]:
    """An empty file for each module: nothing reads them."""
    found: Exports = {
        fmt: {name: folder / f"{name}{fmt.suffix}" for name in modules} for fmt, modules in wanted.items()
    }
    for files in found.values():
        for path in files.values():
            assert isinstance(path, Path)
            path.touch()
    yield found
