"""Whole networks that were measured, untrained: latency does not depend on the weights' values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from devices.measurement import Interval, Measurement, Outcome
from devices.target import Target
from latency_db.estimate import Estimate
from latency_db.models import MIN_NETWORKS, NetworkModel
from latency_db.tables import LatencyTable
from pipeline.export.base import Format, format_of, network_workload
from pipeline.spaces.base import Architecture, Space
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.measuring import ModuleWorkload, measure
from pipeline.tables.building.plan import block_names


@dataclass(frozen=True)
class NetworkLatency:
    """What a measurement says of a whole network.

    Attributes:
        measured: its latency.
        disturbed: so that its interval is wide, or the measurement is invalid.
        canary_ns: how fast the machine was meanwhile (``Measurement.canary_ns``), where that is known.
        batch: when the batch began in which it was measured.
        scored: whether its error counts for the interval of a model: not where it was chosen.
    """

    measured: Interval
    disturbed: bool
    canary_ns: float | None
    batch: str
    scored: bool


def latency_of(outcome: Measurement, *, scored: bool) -> NetworkLatency:
    """What a measurement says; see ``NetworkLatency``."""
    return NetworkLatency(outcome.latency, not outcome.sharp, outcome.canary_ns, outcome.started_at, scored)


@dataclass(frozen=True)
class SeenNetwork(NetworkLatency):
    """A whole network of a space that was measured on a target, which is kept as text."""

    architecture: Architecture
    target: str

    @classmethod
    def of(
        cls, architecture: Architecture, target: Target, outcome: Outcome, *, scored: bool = True
    ) -> Self | None:
        """What an outcome says; ``None`` if the network did not run."""
        if not isinstance(outcome, Measurement):
            return None
        latency = latency_of(outcome, scored=scored)
        return cls(**vars(latency), architecture=architecture, target=str(target))

    def judged(self, model: NetworkModel) -> Interval:
        """The latency as its budget judges it.

        A budget in milliseconds holds at another time too: the interval is wider by the model's level. What a
        relative budget refers to takes as long as when the table was measured, and the model has no level:
        the latency is corrected for drift since then.
        """
        if model.level:
            return self.measured.joined(model.level)
        slowdown = model.table.slowdown(self.canary_ns)
        return Interval(
            self.measured.low_ns / slowdown,
            self.measured.value_ns / slowdown,
            self.measured.high_ns / slowdown,
            self.measured.confidence,
        )


@dataclass(frozen=True)
class MeasuredNetwork(SeenNetwork):
    """A measured network beside what was predicted for it, before a model had seen it if there was one."""

    predicted: Estimate

    @classmethod
    def beside(cls, seen: SeenNetwork, predicted: Estimate) -> Self:
        """Both together."""
        return cls(**vars(seen), predicted=predicted)


def fit_model(
    table: LatencyTable, networks: Sequence[Sequence[str]], latencies: Sequence[NetworkLatency]
) -> NetworkModel:
    """The model of one target, fitted on networks that were measured there.

    Args:
        table: of the target.
        networks: identities of blocks, one sequence per network.
        latencies: of these networks.

    Raises:
        EstimateError: too few networks, or one with a block that has no latency.
    """
    scored = [index for index, network in enumerate(latencies) if network.scored]
    return NetworkModel.fit(
        table,
        networks,
        [each.measured.value_ns for each in latencies],
        scored=scored or None,
        canaries_ns=[each.canary_ns for each in latencies],
        batches=[each.batch for each in latencies],
        disturbed={index: each.measured for index, each in enumerate(latencies) if each.disturbed},
    )


def fit_seen(space: Space, table: LatencyTable, networks: Sequence[SeenNetwork]) -> NetworkModel:
    """``fit_model`` on networks of a space; those with a block that has no latency are left out.

    Of a space with fewer networks than a fit needs, all have to be measured (``NetworkModel.of_all``).

    Raises:
        EstimateError: too few networks.
    """
    usable = [each for each in networks if runs(space, table, each.architecture)]
    names = [block_names(space, each.architecture) for each in usable]
    if space.count() < MIN_NETWORKS:
        canaries_ns = [each.canary_ns for each in usable]
        return NetworkModel.of_all(table, names, [each.measured for each in usable], canaries_ns)
    return fit_model(table, names, usable)


def runs(space: Space, table: LatencyTable, network: Architecture) -> bool:
    """Whether each of the network's blocks has a latency in the table."""
    return table.rows.keys() >= set(block_names(space, network))


def network_workloads(space: Space, networks: Sequence[Architecture], fmt: Format) -> list[ModuleWorkload]:
    """Whole networks in a format, to be measured."""
    return [
        ModuleWorkload(
            network_workload(space.description, network, fmt),
            lambda network=network: space.build(network),  # type: ignore[misc]
            space.input_shape,
        )
        for network in networks
    ]


def measure_networks(
    bench: Bench,
    space: Space,
    networks: Mapping[Target, Sequence[Architecture]],
    *,
    known: Mapping[Target, Mapping[str, Outcome]] | None = None,
    again: bool = False,
    deadline_s: float | None = None,
) -> dict[Target, list[Outcome | None]]:
    """Outcomes of networks on each target, in order; ``None`` where the time was up before.

    Args:
        bench: where.
        space: of the networks.
        networks: by target.
        known: outcomes by target and workload identity that are taken as they are, disturbed ones too.
        again: as of ``measuring.measure``.
        deadline_s: as there.

    Raises:
        TargetError, MeasurementError, ExportError: as of ``measuring.measure``.
    """
    wanted = {
        target: network_workloads(space, its_networks, format_of(target))
        for target, its_networks in networks.items()
    }
    found = {target: dict((known or {}).get(target, {})) for target in wanted}
    absent = {
        target: [each for each in its_wanted if each.workload.identity not in found[target]]
        for target, its_wanted in wanted.items()
    }
    due = {target: its_absent for target, its_absent in absent.items() if its_absent}
    for target, outcomes in measure(bench, due, "networks", again=again, deadline_s=deadline_s).items():
        found[target] |= outcomes
    return {
        target: [found[target].get(each.workload.identity) for each in its_wanted]
        for target, its_wanted in wanted.items()
    }
