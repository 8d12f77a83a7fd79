"""Estimates of a transfer against networks that they were not made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from devices.measurement import Measurement
from latency_db.models import Accuracy, NetworkModel, accuracy_of
from pipeline.spaces.base import Architecture, Space
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.plan import block_names, distinct_architectures
from pipeline.tables.transfer.estimating import Transferred
from pipeline.tables.validation.verification import TableVerification, measure_twice


def check(
    space: Space,
    transferred: Transferred,
    sources: Sequence[NetworkModel],
    bench: Bench,
    *,
    count: int,
    seed: int = 1,
) -> TableVerification:
    """Measure ``count`` random networks that the estimates were not made from, twice, and compare.

    The baselines are the sources' own models, each brought to the target by one factor: the median ratio of
    the networks that were measured there. Networks with a block of which nothing is known are not drawn.

    Raises:
        EstimateError: the space has too few such networks, or too few could be measured.
    """
    model = transferred.model
    seen = {sample.what for sample in transferred.networks}
    fresh: list[Architecture] = []
    infeasible = 0
    for network in distinct_architectures(space, seed):
        if len(fresh) == count:
            break
        names = block_names(space, network)
        if network in seen or not all(name in model.costs_ns or name in model.failed for name in names):
            continue
        if any(name in model.failed for name in names):
            infeasible += 1
        else:
            fresh.append(network)
    estimates = model.estimate([block_names(space, network) for network in fresh])
    verified = measure_twice(
        bench, space, model.target, dict(zip(fresh, estimates, strict=True)), model.slowdown
    )
    networks = list(verified.values())
    measured_ns = [each.corrected_ns for each in networks]
    return TableVerification.of(
        model.target,
        networks,
        model.coverage,
        baselines=_scaled_sources(space, transferred, sources, list(verified), measured_ns),
        invalid=len(fresh) - len(networks),
        infeasible=infeasible,
    )


def _scaled_sources(
    space: Space,
    transferred: Transferred,
    sources: Sequence[NetworkModel],
    networks: Sequence[Architecture],
    measured_ns: list[float],
) -> dict[str, Accuracy]:
    model = transferred.model
    ran = [
        (
            block_names(space, sample.what),
            sample.outcome.latency.value_ns / model.slowdown(sample.outcome.canary_ns),
        )
        for sample in transferred.networks
        if isinstance(sample.outcome, Measurement)
    ]
    names = [block_names(space, network) for network in networks]
    found = {}
    for source in sources:
        seen = source.estimate([blocks for blocks, _ in ran])
        factor = median(latency / each.value_ns for (_, latency), each in zip(ran, seen, strict=True))
        predicted = [factor * each.value_ns for each in source.estimate(names)]
        if all(0 < value < math.inf for value in predicted):
            found[f"{source.table.target} scaled"] = accuracy_of(measured_ns, predicted)
    return found
