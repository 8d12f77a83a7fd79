"""A table's model against networks that it has not seen, and against what repeated measurements can reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeGuard

from devices.measurement import Measurement, Outcome
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.models import Accuracy, accuracy_of, network_properties, straight_line
from latency_db.tables import is_settled
from pipeline.spaces.base import Architecture, Space
from pipeline.tables.bench import Bench
from pipeline.tables.building import SpaceTable
from pipeline.tables.networks import measure_networks, runs
from pipeline.tables.plan import block_names, distinct_architectures

FEWEST = 3


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


def is_valid(outcome: Outcome | None) -> TypeGuard[Measurement]:
    """Whether it is a measurement that nothing disturbed: the truth that predictions are compared with."""
    return isinstance(outcome, Measurement) and is_settled(outcome)


def verify(
    space: Space, target: Target, built: SpaceTable, bench: Bench, *, count: int, seed: int = 1
) -> TableVerification:
    """Measure ``count`` random networks that the model has not seen, twice, and compare.

    The same seed draws the same networks, and what is stored of their first measurements is taken from there.

    Raises:
        EstimateError: the space has too few other networks, or too few could be measured.
    """
    fresh: list[Architecture] = []
    infeasible = 0
    for network in distinct_architectures(space, seed):
        if len(fresh) == count:
            break
        if network in built.architectures:
            continue
        if runs(space, built.table, network):
            fresh.append(network)
        else:
            infeasible += 1
    estimates = built.model.estimate([block_names(space, network) for network in fresh])
    first = measure_networks(bench, space, {target: fresh})[target]
    second = measure_networks(bench, space, {target: fresh}, again=True)[target]
    networks = tuple(
        VerifiedNetwork(
            str(network),
            estimate,
            one.latency.value_ns,
            other.latency.value_ns,
            built.table.slowdown(one.canary_ns),
            built.table.slowdown(other.canary_ns),
        )
        for network, estimate, one, other in zip(fresh, estimates, first, second, strict=True)
        if is_valid(one) and is_valid(other)
    )
    if len(networks) < FEWEST:
        raise EstimateError(
            f"only {len(networks)} networks could be compared on {target}",
            why=f"{len(fresh)} were drawn that the model has not seen; the others have no valid measurement",
            fix="leave the device to the measurement alone and run again, or verify in a larger space",
        )
    measured = [each.corrected_ns for each in networks]
    predicted = [each.predicted.value_ns for each in networks]
    intervals = [(each.predicted.low_ns, each.predicted.high_ns) for each in networks]
    kept = {each.architecture for each in networks}
    names = [block_names(space, network) for network in fresh if str(network) in kept]
    return TableVerification(
        str(target),
        accuracy_of(measured, predicted, intervals, built.model.coverage),
        accuracy_of([each.measured_ns for each in networks], predicted, intervals, built.model.coverage),
        accuracy_of([each.repeated_corrected_ns for each in networks], measured),
        _baselines(space, built, names, measured),
        networks,
        len(fresh) - len(networks),
        infeasible,
    )


def _baselines(
    space: Space, built: SpaceTable, names: list[list[str]], measured: list[float]
) -> dict[str, Accuracy]:
    table = built.table
    seen = [block_names(space, network.architecture) for network in built.networks]
    seen_ns = [built.corrected_ns(network) for network in built.networks]
    sums, seen_sums = (network_properties(table, each)[:, 0].tolist() for each in (names, seen))
    found = {"plain sum": accuracy_of(measured, sums)}
    features = {"sum and line": (sums, seen_sums)}
    if table.sizes.keys() >= table.rows.keys():
        features["macs and line"] = (
            [math.fsum(table.sizes[name].macs for name in network) for network in names],
            [math.fsum(table.sizes[name].macs for name in network) for network in seen],
        )
    for name, (values, seen_values) in features.items():
        slope, offset = straight_line(seen_values, seen_ns)
        predicted = [slope * value + offset for value in values]
        if min(predicted) > 0:
            found[name] = accuracy_of(measured, predicted)
    return found
