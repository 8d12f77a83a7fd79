from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from devices.measurement.measurement import PASSING_CODES
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring import OtherLoad
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.history import history_of
from latency_db.store.store import open_store
from latency_db.tables import quiet
from latency_db.tables.table import TableKey
from pipeline.export.base import Format, block_workload, network_workload
from pipeline.progress import Advance
from pipeline.spaces.base import Block
from pipeline.spaces.cost import block_cost
from pipeline.spaces.mobile.config import MobileSpaceConfig, StageConfig
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building import space_table
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.plan import block_names, calibration_plan
from pipeline.tables.building.space_table import (
    SpaceTable,
    build,
    fit_networks,
    load,
    measure_blocks,
    table_workloads,
)
from tests.latency_db.made_up_history import hourly, store_batches, wave
from tests.made_up_measurer import DEVICE, MadeUpMeasurer, adapted, exported_to, latencies_of

TARGET = Target("host", "onnxruntime")
SPACE = MobileSpace.from_config(None, (1, 8, 8), 10)
PROTOCOL = MeasuringProtocol()
BLOCKS = SPACE.distinct_blocks()
NETWORKS = 20


def cost_ns(block: Block) -> float:
    return 5_000 + block_cost(block).macs


PLAN = calibration_plan(SPACE)
LATENCIES = latencies_of(SPACE, cost_ns, Format.ONNX)


class Notes:
    """A reporter that keeps notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    @contextmanager
    def task(self, what: str, unit: str) -> Iterator[Advance]:
        yield lambda done, total: None


def identity(block: Block) -> str:
    return block_workload(block, Format.ONNX).identity


def planned(position: int) -> str:
    network = PLAN[position].architecture
    return network_workload(SPACE.description, network, Format.ONNX).identity


@pytest.fixture(name="measurer")
def _measurer() -> MadeUpMeasurer:
    return MadeUpMeasurer(LATENCIES)


@pytest.fixture(name="bench")
def _bench(tmp_path: Path, measurer: MadeUpMeasurer) -> Iterator[Bench]:
    with open_store(str(tmp_path / "latency.db")) as store:
        yield Bench(store, PROTOCOL, Notes(), measurer, partial(exported_to, tmp_path))


def built(bench: Bench, networks: int = NETWORKS) -> SpaceTable:
    return build(SPACE, [TARGET], bench, networks=networks)[TARGET]


def test_build_measures_under_the_protocol_that_the_target_follows_and_load_finds_it(
    bench: Bench, measurer: MadeUpMeasurer
) -> None:
    found = built(bench)
    assert found.table.key == TableKey.of(measurer.probe(TARGET)[0], DEVICE, adapted(PROTOCOL))
    assert len(found.networks) == found.model.fitted_networks == NETWORKS
    assert found.model.with_level(0).upper_factor == pytest.approx(1, abs=1e-3)
    (estimate,) = found.model.estimate([block_names(SPACE, SPACE.reference())])
    total = sum(map(cost_ns, SPACE.blocks(SPACE.reference())))
    assert estimate.value_ns == pytest.approx(0.8 * total + 2000, rel=1e-2)
    assert load(SPACE, TARGET, bench) == found


def test_what_was_built_is_not_measured_again_and_the_parts_of_a_run_find_it(
    bench: Bench, measurer: MadeUpMeasurer
) -> None:
    found = built(bench)
    measurer.measured.clear()
    assert built(bench) == found
    tables, _ = measure_blocks(SPACE, [TARGET], bench, networks=NETWORKS)
    assert fit_networks(SPACE, tables, bench, networks=NETWORKS)[TARGET] == found
    assert measurer.measured == []


def test_network_with_a_block_that_cannot_run_is_infinite_and_never_free(
    bench: Bench, measurer: MadeUpMeasurer
) -> None:
    failing = SPACE.blocks(SPACE.reference())[1]
    measurer.special[identity(failing)] = "unsupported"
    found = built(bench)
    (estimate,) = found.model.estimate([block_names(SPACE, SPACE.reference())])
    assert estimate.low_ns == math.inf
    assert found.table.failed[failing.identity].code == "unsupported"
    assert all(failing not in SPACE.blocks(network) for network in found.architectures)
    assert len(found.networks) == NETWORKS
    assert load(SPACE, TARGET, bench).table == found.table


def test_load_finds_what_was_built_however_many_networks_of_the_plan_cannot_run(
    bench: Bench, measurer: MadeUpMeasurer
) -> None:
    unsupported = {("kernel", 3), ("expansion", 4)}
    failing = [block for block in BLOCKS if unsupported & set(block.arguments)]
    measurer.special = {identity(block): "unsupported" for block in failing}
    can_run = [set(failing).isdisjoint(SPACE.blocks(each.architecture)) for each in PLAN]
    assert can_run.index(True) > 2 * space_table.NETWORKS
    found = built(bench, networks=6)
    assert len(found.networks) == 6
    assert load(SPACE, TARGET, bench) == found


def test_blocks_whose_failures_may_pass_are_missing_now_and_measured_by_the_next_call(
    bench: Bench, measurer: MadeUpMeasurer
) -> None:
    blocks = BLOCKS[9 : 9 + len(PASSING_CODES)]
    for block, code in zip(blocks, PASSING_CODES, strict=True):
        measurer.special[identity(block)] = code
    found = built(bench)
    assert [found.table.missing[block.identity].code for block in blocks] == list(PASSING_CODES)
    assert found.table.failed == {}
    assert all(set(blocks).isdisjoint(SPACE.blocks(network)) for network in found.architectures)
    assert len(found.networks) == NETWORKS
    with pytest.raises(EstimateError, match=f"lacks {len(blocks)} of {len(BLOCKS)} blocks") as caught:
        load(SPACE, TARGET, bench)
    assert str(blocks[0]) in caught.value.why
    measurer.special.clear()
    measurer.measured.clear()
    again = built(bench)
    assert again.table.missing == {}
    assert again.table.rows.keys() == {block.identity for block in BLOCKS}
    assert {identity(block) for block in blocks} <= set(measurer.measured[0])


def test_networks_whose_failures_may_pass_are_replaced_counted_and_measured_by_the_next_call(
    bench: Bench, measurer: MadeUpMeasurer
) -> None:
    measurer.special = {planned(3): "timeout", planned(4): "device-lost"}
    found = built(bench, networks=6)
    assert found.model.fitted_networks == 6
    assert found.left_out == ("timeout", "device-lost")
    assert {planned(6), planned(7)} <= {name for names in measurer.measured for name in names}
    measurer.special.clear()
    assert built(bench, networks=6).left_out == ()
    assert {planned(3), planned(4)} == set(measurer.measured[-1])


def test_disturbed_machine_costs_width_and_not_the_result(
    bench: Bench, measurer: MadeUpMeasurer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.0)
    measurer.special = dict.fromkeys(LATENCIES, "invalid")
    measurer.loads = [OtherLoad(2, 1.5, processes=(("ffmpeg", 1.4),))] * 9
    found = built(bench)
    measured = [name for names in measurer.measured for name in names]
    assert len(measured) == len(set(measured)) == len(BLOCKS) + NETWORKS
    assert set(found.table.disturbed) == {block.identity for block in BLOCKS}
    assert all(network.disturbed for network in found.networks)
    (estimate,) = found.model.estimate([block_names(SPACE, SPACE.reference())])
    quiet_ns = 0.8 * sum(map(cost_ns, SPACE.blocks(SPACE.reference()))) + 2000
    assert estimate.low_ns < quiet_ns < estimate.high_ns
    assert 1.02 < found.model.with_level(0).upper_factor < 1.2
    assert isinstance(bench.reporter, Notes)
    assert any("ffmpeg" in note for note in bench.reporter.notes)
    assert load(SPACE, TARGET, bench).table.disturbed == found.table.disturbed
    measurer.special, measurer.loads = {}, []
    calm = built(bench)
    assert calm.table.disturbed == ()
    assert calm.model.with_level(0).upper_factor == pytest.approx(1, abs=1e-3)


def test_the_intervals_of_a_table_hold_on_the_machine_as_its_history_knows_it(bench: Bench) -> None:
    found = built(bench)
    history = history_of(bench.store, DEVICE)
    assert found.model.level == pytest.approx(history.between.margin(found.model.coverage))
    assert found.model.upper_factor > math.exp(found.model.level)
    store_batches(bench.store, [replace(each, device=DEVICE) for each in hourly(wave(12, 0.3))])
    assert load(SPACE, TARGET, bench).model.level > 2 * found.model.level


def test_load_explains_the_difference_when_the_protocol_is_another(bench: Bench) -> None:
    built(bench)
    with pytest.raises(EstimateError, match="lacks 43 of 43 blocks") as caught:
        load(SPACE, TARGET, replace(bench, protocol=MeasuringProtocol(launches=7)))
    assert str(BLOCKS[0]) in caught.value.why
    assert "the protocol differs" in caught.value.why
    assert "launches" in caught.value.why


def test_load_says_how_many_networks_there_are_and_that_only_others_are_measured(bench: Bench) -> None:
    measure_blocks(SPACE, [TARGET], bench, networks=3)
    with pytest.raises(EstimateError, match="latencies of only 3 whole networks") as caught:
        load(SPACE, TARGET, bench)
    assert "measures only what is missing" in caught.value.fix


def small_space(widths: tuple[int, ...]) -> MobileSpace:
    stage = StageConfig(widths=widths, depths=(1,), kernels=(3,), expansions=(3,), squeeze_excite=(0.0,))
    return MobileSpace.from_config(
        MobileSpaceConfig(stem_width=8, stages=(stage,), head_width=16), (1, 8, 8), 10
    )


@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 24)])
def test_space_with_fewer_networks_than_a_fit_needs_is_measured_whole(
    bench: Bench, measurer: MadeUpMeasurer, widths: tuple[int, ...]
) -> None:
    space = small_space(widths)
    measurer.latencies_ns = latencies_of(space, cost_ns, Format.ONNX)
    found = build(space, [TARGET], bench)[TARGET]
    assert len(found.networks) == found.model.fitted_networks == len(widths) == space.count()
    for network in found.networks:
        (estimate,) = found.model.estimate([block_names(space, network.architecture)])
        assert estimate.low_ns <= network.measured.low_ns < network.measured.high_ns <= estimate.high_ns
        if len(widths) == 1:
            assert estimate.value_ns == pytest.approx(network.measured.value_ns)
    assert load(space, TARGET, bench) == found


def test_small_space_of_which_a_network_is_missing_says_how_many_are_needed(
    bench: Bench, measurer: MadeUpMeasurer
) -> None:
    space = small_space((8, 16, 24))
    measurer.latencies_ns = latencies_of(space, cost_ns, Format.ONNX)
    lost = network_workload(space.description, calibration_plan(space)[1].architecture, Format.ONNX).identity
    measurer.special = {lost: "timeout"}
    with pytest.raises(EstimateError, match="only 2 whole networks, and a latency model needs 3") as caught:
        build(space, [TARGET], bench)
    assert caught.value.why == "timeout: made up: timeout"


def test_build_names_the_failure_when_no_network_gives_a_latency(
    bench: Bench, measurer: MadeUpMeasurer
) -> None:
    measurer.special = {planned(position): "timeout" for position in range(len(PLAN))}
    with pytest.raises(EstimateError, match="latencies of only 0 whole networks") as caught:
        built(bench)
    assert caught.value.why == "timeout: made up: timeout"


def test_build_that_runs_out_of_time_says_which_blocks_are_missing(bench: Bench) -> None:
    with pytest.raises(EstimateError, match="lacks 43 of 43 blocks"):
        build(SPACE, [TARGET], bench, budget_s=0.0)


def test_plan_begins_with_the_reference_has_each_network_once_and_stays_the_same() -> None:
    architectures = [each.architecture for each in PLAN]
    assert architectures[0] == SPACE.reference()
    assert len(set(architectures)) == len(PLAN) <= SPACE.count()
    assert calibration_plan(SPACE) == PLAN


def test_plan_draws_two_of_three_and_chooses_the_smallest_and_the_largest_member_early() -> None:
    assert [each.drawn for each in PLAN[:10]] == [False, True, True] + [False, True, True] * 2 + [False]
    macs = [sum(block_cost(block).macs for block in SPACE.blocks(each.architecture)) for each in PLAN]
    assert {min(macs), max(macs)} <= {macs[0], macs[3], macs[6]}


def test_networks_are_measured_among_the_blocks_or_behind_them() -> None:
    spread, blocks_first = (
        [part.workload.kind for part in table_workloads(SPACE, Format.ONNX, 20, blocks_first=first)]
        for first in (False, True)
    )
    assert [spread[start : start + 21].count("network") for start in (0, 21, 42)] == [7, 6, 7]
    assert blocks_first == ["block"] * 43 + ["network"] * 20
