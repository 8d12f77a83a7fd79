"""A space's latency table on several targets, and the network model that is fitted on measured networks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from devices.measurement import Measurement, Outcome, Verdict
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.models import NetworkModel, is_random, order, spread
from latency_db.tables import LatencyTable, stored
from pipeline.export.base import Format, block_workload, format_of, network_workload
from pipeline.spaces.base import Architecture, Block, Space
from pipeline.stages.measuring import Part, measure_parts
from pipeline.tables.block_sizes import sizes_of
from pipeline.tables.request import Bench

NETWORKS = 60
"""Whole networks that are measured beside the blocks."""

_DRAWN, _POOL = 400, 300


@dataclass(frozen=True)
class Built:
    """A table with its network model, and the measured networks behind that with latencies at its pace."""

    table: LatencyTable
    model: NetworkModel
    networks: tuple[tuple[Architecture, float], ...]

    @property
    def architectures(self) -> set[Architecture]:
        """Those that the model has seen."""
        return {architecture for architecture, _ in self.networks}


def build(
    space: Space,
    targets: Sequence[Target],
    bench: Bench,
    *,
    networks: int = NETWORKS,
    budget_s: float | None = None,
) -> dict[Target, Built]:
    """Measure what is not stored yet of every block and of some networks, and fit the models.

    What is measured is stored at once, so that a call that was ended goes on when it is made again; targets
    whose runtimes load one format share the exports.

    Args:
        space: whose blocks and networks.
        targets: where.
        bench: where outcomes are kept.
        networks: how many whole networks, at least 6.
        budget_s: no batch of measurements is begun later than that; blocks then come before networks.

    Raises:
        EstimateError: blocks or networks are missing or invalid: run again.
        TargetError, MeasurementError: a target cannot be reached or measured on.
    """
    deadline_s = None if budget_s is None else time.monotonic() + budget_s
    blocks_first = budget_s is not None
    parts = {
        target: table_parts(space, format_of(target), networks, blocks_first=blocks_first)
        for target in targets
    }
    measure_parts(bench, parts, "blocks and networks", deadline_s=deadline_s)
    return {target: load(space, target, bench) for target in targets}


def load(space: Space, target: Target, bench: Bench) -> Built:
    """The table and model from what is stored for the target as it is now.

    Raises:
        EstimateError: blocks are missing, or too few networks are stored; the difference to what is stored
            is explained.
    """
    table, missing = load_table(space, target, bench)
    if missing:
        from devices.measuring import probe
        from latency_db.store import Key

        key = Key.of(block_workload(missing[0], format_of(target)), *probe(target), bench.protocol)
        raise EstimateError(
            f"the latency table of {target} lacks {len(missing)} of {len(space.distinct_blocks())} blocks",
            why=f"{missing[0]}: {bench.store.explain_miss(key)}",
            fix="run 'lathe table build' for this space and target; it goes on where it was",
        )
    plan = list(enumerate(calibration_plan(space)))
    outcomes = _stored_networks(space, [network for _, network in plan], target, bench)
    ran = [
        (position, network, outcome)
        for (position, network), outcome in zip(plan, outcomes, strict=True)
        if isinstance(outcome, Measurement) and runs(space, table, network)
    ]
    scored = [index for index, (position, *_) in enumerate(ran) if is_random(position)]
    model = NetworkModel.fit(
        table,
        [block_names(space, network) for _, network, _ in ran],
        [outcome.latency.value_ns for *_, outcome in ran],
        scored=scored or None,
        canaries_ns=[outcome.canary_ns for *_, outcome in ran],
        batches=[outcome.started_at for *_, outcome in ran],
    )
    networks = tuple(
        (network, outcome.latency.value_ns / table.slowdown(outcome.canary_ns)) for _, network, outcome in ran
    )
    return Built(table, model, networks)


def load_table(space: Space, target: Target, bench: Bench) -> tuple[LatencyTable, list[Block]]:
    """The table from what is stored, and the blocks without a valid measurement."""
    blocks = space.distinct_blocks()
    workloads = {block: block_workload(block, format_of(target)) for block in blocks}
    found = stored(list(workloads.values()), target, store=bench.store, protocol=bench.protocol)
    outcomes = {
        block.identity: found[workload.identity]
        for block, workload in workloads.items()
        if workload.identity in found
    }
    missing = [block for block in blocks if block.identity not in outcomes]
    return LatencyTable.of(target, outcomes, sizes_of(blocks)), missing


def table_parts(space: Space, fmt: Format, networks: int, *, blocks_first: bool = False) -> list[Part]:
    """What a table of the space needs: every block, and the first networks of the plan among them."""
    blocks = [
        Part(block_workload(block, fmt), lambda block=block: space.build_block(block), block.input_shape)  # type: ignore[misc]
        for block in space.distinct_blocks()
    ]
    planned = network_parts(space, calibration_plan(space)[:networks], fmt)
    return blocks + planned if blocks_first else spread(blocks, planned)


def network_parts(space: Space, networks: Sequence[Architecture], fmt: Format) -> list[Part]:
    """Whole networks, untrained: latency does not depend on the weights' values."""
    return [
        Part(
            network_workload(space.description, network, fmt),
            lambda network=network: space.build(network),  # type: ignore[misc]
            space.input_shape,
        )
        for network in networks
    ]


def measure_networks(
    space: Space, networks: Sequence[Architecture], target: Target, bench: Bench, *, again: bool = False
) -> list[Outcome]:
    """Outcomes of whole networks, in order."""
    parts = network_parts(space, networks, format_of(target))
    outcomes = measure_parts(bench, {target: parts}, "networks", again=again)[target]
    return [outcomes[part.workload.identity] for part in parts]


def calibration_plan(space: Space) -> list[Architecture]:
    """Networks in the order in which they are measured; it depends on the space alone."""
    limit = space.count()
    stream = distinct_architectures(space, 0)
    drawn = _take(stream, min(_DRAWN, max(limit // 2, 1)))
    pool = _take(stream, min(_POOL, limit - len(drawn)))
    sizes = sizes_of(space.distinct_blocks())
    features = []
    for network in drawn + pool:
        known = [sizes[name] for name in block_names(space, network) if name in sizes]
        rows = [(size.macs, size.boundary_bytes, size.weight_bytes) for size in known]
        features.append([len(space.blocks(network)), *np.sum(rows, axis=0, initial=0)] if rows else [1.0] * 4)
    ordered = order(np.array(features, np.float64), len(drawn))
    return [(drawn + pool)[index] for index in ordered]


def distinct_architectures(space: Space, seed: int) -> Iterator[Architecture]:
    """Random architectures, none twice; ends when no new one is drawn for long."""
    generator = random.Random(seed)
    seen: set[Architecture] = set()
    idle = 0
    while idle < 1000:
        drawn = space.sample(generator)
        idle += 1
        if drawn not in seen:
            idle = 0
            seen.add(drawn)
            yield drawn


def block_names(space: Space, network: Architecture) -> list[str]:
    """Identities of a network's blocks."""
    return [block.identity for block in space.blocks(network)]


def runs(space: Space, table: LatencyTable, network: Architecture) -> bool:
    """Whether each of the network's blocks has a latency on the table's target."""
    return table.rows.keys() >= set(block_names(space, network))


def is_valid(outcome: Outcome) -> bool:
    """Whether the outcome is a measurement that may be used."""
    return isinstance(outcome, Measurement) and outcome.verdict is not Verdict.INVALID


def _take(stream: Iterator[Architecture], count: int) -> list[Architecture]:
    return [architecture for _, architecture in zip(range(count), stream, strict=False)]


def _stored_networks(
    space: Space, networks: Sequence[Architecture], target: Target, bench: Bench
) -> list[Outcome | None]:
    workloads = [network_workload(space.description, network, format_of(target)) for network in networks]
    found: Mapping[str, Outcome] = stored(workloads, target, store=bench.store, protocol=bench.protocol)
    return [found.get(workload.identity) for workload in workloads]
