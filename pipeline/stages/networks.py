"""Whole networks, measured on the targets untrained: latency does not depend on the weights' values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from devices.measurement import Interval, Measurement, Outcome, Verdict
from devices.target import Target
from latency_db.estimate import Estimate
from pipeline.export.base import format_of, network_workload
from pipeline.spaces.base import Architecture, Space
from pipeline.stages.measuring import Part, Workplace, measure_parts


@dataclass(frozen=True)
class SeenNetwork:
    """A whole network that was measured on a target.

    Attributes:
        architecture: of the network.
        target: as text.
        measured: its latency.
        verdict: how far that may be trusted; never invalid.
        canary_ns: how fast the machine was meanwhile (``Measurement.canary_ns``), where that is known.
        batch: when the batch began in which it was measured.
        scored: whether its error counts for the interval of a model: not where it was chosen as an extreme.
    """

    architecture: Architecture
    target: str
    measured: Interval
    verdict: Verdict
    canary_ns: float | None
    batch: str
    scored: bool

    @classmethod
    def of(
        cls, architecture: Architecture, target: Target, outcome: Outcome, *, scored: bool = True
    ) -> Self | None:
        """What an outcome says; ``None`` if the network did not run or its measurement is invalid."""
        if not isinstance(outcome, Measurement) or outcome.verdict is Verdict.INVALID:
            return None
        return cls(
            architecture,
            str(target),
            outcome.latency,
            outcome.verdict,
            outcome.canary_ns,
            outcome.started_at,
            scored,
        )


@dataclass(frozen=True)
class MeasuredNetwork(SeenNetwork):
    """A measured network beside what was predicted for it, before a model had seen it if there was one."""

    predicted: Estimate

    @classmethod
    def beside(cls, seen: SeenNetwork, predicted: Estimate) -> Self:
        """Both together."""
        return cls(**vars(seen), predicted=predicted)


def measure_networks(
    bench: Workplace, space: Space, architectures: Sequence[Architecture], targets: Sequence[Target]
) -> dict[Target, list[Outcome]]:
    """Measure networks on every target; what is in the database is not measured again."""

    def part(architecture: Architecture, target: Target) -> Part:
        workload = network_workload(space.description, architecture, format_of(target))
        return Part(workload, lambda: space.build(architecture), space.input_shape)

    parts = {target: [part(each, target) for each in architectures] for target in targets}
    outcomes = measure_parts(bench, parts, "networks")
    return {
        target: [outcomes[target][part.workload.identity] for part in its_parts]
        for target, its_parts in parts.items()
    }
