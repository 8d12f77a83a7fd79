"""Estimates of a target against networks that they were not made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from devices.measurement import Measurement
from latency_db.errors import EstimateError
from latency_db.models import Accuracy, NetworkModel, accuracy_of
from pipeline.spaces.base import Architecture, Space
from pipeline.tables.bench import Bench
from pipeline.tables.networks import measure_networks
from pipeline.tables.plan import block_names, distinct_architectures
from pipeline.tables.transfer.estimating import Transferred
from pipeline.tables.validation import FEWEST, TableVerification, VerifiedNetwork, is_valid


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
    first = measure_networks(bench, space, {model.target: fresh})[model.target]
    second = measure_networks(bench, space, {model.target: fresh}, again=True)[model.target]
    networks: list[VerifiedNetwork] = []
    compared: list[list[str]] = []
    for network, estimate, one, other in zip(fresh, estimates, first, second, strict=True):
        if not (is_valid(one) and is_valid(other)):
            continue
        slowdowns = model.slowdown(one.canary_ns), model.slowdown(other.canary_ns)
        latencies = one.latency.value_ns, other.latency.value_ns
        networks.append(VerifiedNetwork(str(network), estimate, *latencies, *slowdowns))
        compared.append(block_names(space, network))
    if len(networks) < FEWEST:
        raise EstimateError(
            f"only {len(networks)} networks could be compared on {model.target}",
            why=f"{len(fresh)} were drawn that are new; the others have no valid measurement",
            fix="leave the device to the measurement alone and run again, or check in a larger space",
        )
    measured = [each.corrected_ns for each in networks]
    predicted = [each.predicted.value_ns for each in networks]
    intervals = [(each.predicted.low_ns, each.predicted.high_ns) for each in networks]
    return TableVerification(
        str(model.target),
        accuracy_of(measured, predicted, intervals, model.coverage),
        accuracy_of([each.measured_ns for each in networks], predicted, intervals, model.coverage),
        accuracy_of([each.repeated_corrected_ns for each in networks], measured),
        _scaled_sources(space, transferred, sources, compared, measured),
        tuple(networks),
        len(fresh) - len(networks),
        infeasible,
    )


def _scaled_sources(
    space: Space,
    transferred: Transferred,
    sources: Sequence[NetworkModel],
    names: list[list[str]],
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
    found = {}
    for source in sources:
        seen = source.estimate([blocks for blocks, _ in ran])
        factor = median(latency / each.value_ns for (_, latency), each in zip(ran, seen, strict=True))
        predicted = [factor * each.value_ns for each in source.estimate(names)]
        if all(0 < value < math.inf for value in predicted):
            found[f"{source.table.target} scaled"] = accuracy_of(measured_ns, predicted)
    return found
