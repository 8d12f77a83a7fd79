"""A table's model against networks that it has not seen, and against what repeated measurements can reach."""

from __future__ import annotations

import math

from devices.target import Target
from latency_db.models import Accuracy, accuracy_of, network_properties, straight_line
from pipeline.spaces.base import Architecture, Space
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.networks import runs
from pipeline.tables.building.plan import block_names, distinct_architectures
from pipeline.tables.building.space_table import SpaceTable
from pipeline.tables.validation.verification import TableVerification, measure_twice


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
    slowdown = built.table.slowdown
    verified = measure_twice(bench, space, target, dict(zip(fresh, estimates, strict=True)), slowdown)
    networks = list(verified.values())
    names = [block_names(space, network) for network in verified]
    return TableVerification.of(
        target,
        networks,
        built.model.coverage,
        baselines=_baselines(space, built, names, [each.corrected_ns for each in networks]),
        invalid=len(fresh) - len(networks),
        infeasible=infeasible,
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
