"""Measurements made up for targets of this host, and stored like real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from devices.measurement.conditions import Conditions
from devices.measurement.measurement import Launch, Measurement, MeasurementFailure, Outcome, Reason, Verdict
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.batch import probe
from devices.target import Target
from latency_db.store.keys import Workload
from pipeline.export.base import block_workload, format_of, network_workload
from pipeline.spaces.base import Architecture, Block
from pipeline.spaces.cost import block_cost
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.plan import calibration_plan

SPACE = MobileSpace.from_config(None, (1, 8, 8), 10)
PROTOCOL = MeasuringProtocol()
OLD = Target("host", "onnxruntime")
NEW = Target("host", "onnxruntime", threads=2)

Cost = Callable[[Block], float]


def old_ns(block: Block) -> float:
    return 5_000 + block_cost(block).macs


def new_ns(block: Block) -> float:
    """Another constant, another rate, and one that depends on the kernel."""
    kernel = dict(block.arguments).get("kernel", 3)
    return 9_000 + (0.5 + 0.05 * float(kernel)) * block_cost(block).macs


def planned(count: int) -> list[Architecture]:
    """The first networks of the calibration plan."""
    return [each.architecture for each in calibration_plan(SPACE)[:count]]


def network_ns(network: Architecture, cost: Cost) -> float:
    return 0.8 * sum(map(cost, SPACE.blocks(network))) + 2_000


def ran(target: Target, latency_ns: float) -> Measurement:
    """A measurement on this host, whose runtime and device are asked for."""
    runtime, device = probe(target)
    launch = Launch(1, 1, 1, (round(latency_ns),) * 20, None, Conditions(), Conditions())
    return Measurement(
        "ab" * 32, str(target), runtime, device, PROTOCOL, (launch,) * 3, Verdict.VALID, (), "2025-01-01"
    )


def failed(target: Target) -> MeasurementFailure:
    return MeasurementFailure("", str(target), Reason("unsupported", "no kernel for it"))


def keep_blocks(
    bench: Bench, target: Target, blocks: Iterable[Block], cost: Cost, failing: Iterable[Block] = ()
) -> None:
    refused = set(failing)
    for block in blocks:
        outcome = failed(target) if block in refused else ran(target, cost(block))
        _keep(bench, target, block_workload(block, format_of(target)), outcome)


def keep_networks(bench: Bench, target: Target, networks: Iterable[Architecture], cost: Cost) -> None:
    for network in networks:
        workload = network_workload(SPACE.description, network, format_of(target))
        _keep(bench, target, workload, ran(target, network_ns(network, cost)))


def _keep(bench: Bench, target: Target, workload: Workload, outcome: Outcome) -> None:
    bench.store.add(workload, *probe(target), PROTOCOL, outcome)
