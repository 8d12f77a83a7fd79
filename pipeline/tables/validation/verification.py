"""Networks that were predicted and then measured twice, and what that says of the predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from devices.measurement import Measurement, Outcome
from devices.target import Target
from devices.words import count_of
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.models import Accuracy, accuracy_of
from latency_db.tables import is_settled
from pipeline.spaces.base import Architecture, Space
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.networks import measure_networks

_FEWEST = 3


@dataclass(frozen=True)
class VerifiedNetwork:
    """A network that the model had not seen: what was predicted, measured, and measured once more.

    Attributes:
        architecture: as text.
        predicted: corrected to the table's canary.
        measured_ns: as measured.
        repeated_ns: as measured the second time.
        slowdown: the canary's latency meanwhile over that of the table; 1 where there is no canary.
        repeated_slowdown: the same of the second time.
    """

    architecture: str
    predicted: Estimate
    measured_ns: float
    repeated_ns: float
    slowdown: float
    repeated_slowdown: float

    @property
    def corrected_ns(self) -> float:
        """The first measurement corrected to the table's canary."""
        return self.measured_ns / self.slowdown

    @property
    def repeated_corrected_ns(self) -> float:
        """The second measurement corrected to the table's canary."""
        return self.repeated_ns / self.repeated_slowdown


@dataclass(frozen=True)
class TableVerification:
    """How the estimates of a target met fresh measurements.

    Attributes:
        target: as text.
        model: the estimates against the measurements, these corrected for drift to the table's canary.
        as_measured: the same with the measurements as they are, so with the machine's drift since the table.
        ceiling: the first measurements as predictions of the second ones, both corrected to the table's
            canary.
        baselines: by name: ``plain sum`` of the blocks, ``sum and line`` (fitted on the networks of the
            model), ``macs and line``.
        networks: one by one.
        invalid: networks without two valid measurements, left out.
        infeasible: networks with a block that cannot run, not measured.
    """

    target: str
    model: Accuracy
    as_measured: Accuracy
    ceiling: Accuracy
    baselines: dict[str, Accuracy]
    networks: tuple[VerifiedNetwork, ...]
    invalid: int
    infeasible: int

    @classmethod
    def of(
        cls,
        target: Target,
        networks: Sequence[VerifiedNetwork],
        coverage: float | None,
        *,
        baselines: dict[str, Accuracy],
        invalid: int,
        infeasible: int,
    ) -> TableVerification:
        """What the networks say of estimates whose intervals claim this coverage."""
        measured = [each.corrected_ns for each in networks]
        predicted = [each.predicted.value_ns for each in networks]
        intervals = [(each.predicted.low_ns, each.predicted.high_ns) for each in networks]
        return cls(
            str(target),
            accuracy_of(measured, predicted, intervals, coverage),
            accuracy_of([each.measured_ns for each in networks], predicted, intervals, coverage),
            accuracy_of([each.repeated_corrected_ns for each in networks], measured),
            baselines,
            tuple(networks),
            invalid,
            infeasible,
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON, latencies in nanoseconds."""
        return {
            "target": self.target,
            "model": self.model.to_json(),
            "as_measured": self.as_measured.to_json(),
            "ceiling": self.ceiling.to_json(),
            "baselines": {name: each.to_json() for name, each in self.baselines.items()},
            "invalid": self.invalid,
            "infeasible": self.infeasible,
            "networks": [
                {
                    "architecture": each.architecture,
                    "predicted_ns": each.predicted.value_ns,
                    "low_ns": each.predicted.low_ns,
                    "high_ns": each.predicted.high_ns,
                    "measured_ns": each.measured_ns,
                    "repeated_ns": each.repeated_ns,
                    "slowdown": each.slowdown,
                    "repeated_slowdown": each.repeated_slowdown,
                }
                for each in self.networks
            ],
        }


def measure_twice(
    bench: Bench,
    space: Space,
    target: Target,
    estimates: Mapping[Architecture, Estimate],
    slowdown: Callable[[float | None], float],
) -> dict[Architecture, VerifiedNetwork]:
    """Measure networks, and once more; those without two valid measurements are left out.

    What is stored of the first measurements is taken from there.

    Args:
        bench: where.
        space: of the networks.
        target: where the estimates hold.
        estimates: by network.
        slowdown: of a canary's latency, over that to which the estimates are corrected.

    Raises:
        EstimateError: too few could be measured.
        TargetError, MeasurementError, ExportError: as of ``measuring.measure``.
    """
    networks = list(estimates)
    first = measure_networks(bench, space, {target: networks})[target]
    second = measure_networks(bench, space, {target: networks}, again=True)[target]
    found = {
        network: VerifiedNetwork(
            str(network),
            estimates[network],
            one.latency.value_ns,
            other.latency.value_ns,
            slowdown(one.canary_ns),
            slowdown(other.canary_ns),
        )
        for network, one, other in zip(networks, first, second, strict=True)
        if _is_valid(one) and _is_valid(other)
    }
    if len(found) < _FEWEST:
        raise EstimateError(
            f"only {count_of(len(found), 'network')} could be compared on {target}",
            why=f"{len(networks)} were drawn that are new; the others have no valid measurement",
            fix="leave the device to the measurement alone and run again, or use a larger space",
        )
    return found


def _is_valid(outcome: Outcome | None) -> TypeGuard[Measurement]:
    """Whether it is a measurement that nothing disturbed: the truth that predictions are compared with."""
    return isinstance(outcome, Measurement) and is_settled(outcome)
