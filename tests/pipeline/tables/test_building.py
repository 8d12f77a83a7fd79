from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devices.measurement.conditions import Conditions
from devices.measurement.measurement import Launch, Measurement, MeasurementFailure, Outcome, Reason, Verdict
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.batch import probe
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.store.keys import Workload
from latency_db.store.store import open_store
from latency_db.tables.table import TableKey
from pipeline.export.base import Format, block_workload, network_workload
from pipeline.progress import ConsoleReporter
from pipeline.spaces.base import Block
from pipeline.spaces.cost import block_cost
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building import block_names, calibration_plan, load, table_parts
from pipeline.tables.request import Bench

TARGET = Target("host", "onnxruntime")
SPACE = MobileSpace.from_config(None, (1, 8, 8), 10)
PROTOCOL = MeasuringProtocol()


def cost_ns(block: Block) -> int:
    return 5_000 + block_cost(block).macs


def ran(latency_ns: int) -> Measurement:
    """A measurement made up for this host, whose runtime and device are asked for."""
    runtime, device = probe(TARGET)
    launch = Launch(1, 1, 1, (latency_ns,) * 20, None, Conditions(), Conditions())
    return Measurement(
        "ab" * 32, str(TARGET), runtime, device, PROTOCOL, (launch,) * 3, Verdict.VALID, (), "2025-01-01"
    )


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    with open_store(str(tmp_path / "latency.db")) as store:
        yield Bench(store, PROTOCOL, ConsoleReporter())


def keep(bench: Bench, workload: Workload, outcome: Outcome) -> None:
    bench.store.add(workload, *probe(TARGET), PROTOCOL, outcome)


def fill(bench: Bench, failing: Block | None = None, networks: int = 20) -> None:
    """Store a whole table, and networks that take 0.8 of their blocks and 2000 ns."""
    for block in SPACE.distinct_blocks():
        failure = MeasurementFailure("", str(TARGET), Reason("unsupported", "no kernel for it"))
        outcome = failure if block == failing else ran(cost_ns(block))
        keep(bench, block_workload(block, Format.ONNX), outcome)
    for network in calibration_plan(SPACE)[:networks]:
        if failing not in SPACE.blocks(network):
            total = sum(map(cost_ns, SPACE.blocks(network)))
            workload = network_workload(SPACE.description, network, Format.ONNX)
            keep(bench, workload, ran(round(0.8 * total) + 2000))


def test_load_gives_table_and_model_of_what_is_stored(bench: Bench) -> None:
    fill(bench)
    built = load(SPACE, TARGET, bench)
    assert len(built.networks) == 20
    assert built.model.upper_factor == pytest.approx(1, abs=1e-3)
    reference = SPACE.reference()
    (estimate,) = built.model.estimate([block_names(SPACE, reference)])
    assert estimate.value_ns == pytest.approx(
        0.8 * sum(map(cost_ns, SPACE.blocks(reference))) + 2000, rel=1e-2
    )
    built.table.require_key(TableKey.of(*probe(TARGET), PROTOCOL))


def test_network_with_a_block_that_cannot_run_is_infinite_and_never_free(bench: Bench) -> None:
    failing = SPACE.blocks(SPACE.reference())[1]
    fill(bench, failing)
    built = load(SPACE, TARGET, bench)
    (estimate,) = built.model.estimate([block_names(SPACE, SPACE.reference())])
    assert estimate.low_ns == math.inf
    assert built.table.failed[failing.identity] == Reason("unsupported", "no kernel for it")
    assert all(failing not in SPACE.blocks(network) for network in built.architectures)


def test_load_explains_the_difference_when_the_protocol_is_another(bench: Bench) -> None:
    fill(bench)
    with pytest.raises(EstimateError, match="lacks 43 of 43 blocks") as caught:
        load(SPACE, TARGET, replace(bench, protocol=MeasuringProtocol(launches=7)))
    assert "the protocol differs" in caught.value.why
    assert "launches" in caught.value.why


def test_load_asks_for_more_networks_when_too_few_are_stored(bench: Bench) -> None:
    fill(bench, networks=3)
    with pytest.raises(EstimateError, match="at least 6"):
        load(SPACE, TARGET, bench)


def test_plan_has_each_network_once_and_stays_the_same() -> None:
    plan = calibration_plan(SPACE)
    assert len(set(plan)) == len(plan) <= SPACE.count()
    assert calibration_plan(SPACE) == plan


def test_networks_are_measured_among_the_blocks_or_behind_them() -> None:
    spread, blocks_first = (
        [part.workload.kind for part in table_parts(SPACE, Format.ONNX, 20, blocks_first=first)]
        for first in (False, True)
    )
    assert [spread[start : start + 21].count("network") for start in (0, 21, 42)] == [7, 6, 7]
    assert blocks_first == ["block"] * 43 + ["network"] * 20
