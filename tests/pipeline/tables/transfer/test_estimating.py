from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from devices.measurement.measurement import Measurement, Reason
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.few_shot.transferred import TransferredModel
from latency_db.models.network_model import NetworkModel
from latency_db.store.store import open_store
from latency_db.tables import quiet
from latency_db.tables.table import TableKey
from pipeline.cli.table.documents import transferred_json
from pipeline.cli.table.text import transferred_text
from pipeline.export.base import Format, block_workload, network_workload
from pipeline.progress import ConsoleReporter
from pipeline.spaces.base import Architecture, Block
from pipeline.tables.building.bench import Bench
from pipeline.tables.building.plan import block_names, calibration_plan
from pipeline.tables.building.space_table import load
from pipeline.tables.transfer.estimating import FEWEST_NETWORKS, transfer
from tests.made_up_measurer import MadeUpMeasurer, exported_to, latencies_of
from tests.made_up_tables import (
    NEW,
    OLD,
    PROTOCOL,
    SPACE,
    keep_blocks,
    keep_networks,
    network_ns,
    new_ns,
    old_ns,
)

PLANNED = calibration_plan(SPACE)
PLAN = [each.architecture for each in PLANNED]
DRAWN = [each.architecture for each in PLANNED[:60] if each.drawn]
BLOCKS = SPACE.distinct_blocks()
SOME = BLOCKS[::3]
SAMPLES = 24


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    with open_store(str(tmp_path / "latency.db")) as store:
        yield Bench(store, PROTOCOL, ConsoleReporter())


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> NetworkModel:
    with open_store(str(tmp_path_factory.mktemp("source") / "latency.db")) as store:
        return source(Bench(store, PROTOCOL, ConsoleReporter()))


def source(bench: Bench, failing: tuple[Block, ...] = (), target: Target = OLD) -> NetworkModel:
    """A whole table, less the networks that cannot run."""
    keep_blocks(bench, target, BLOCKS, old_ns, failing)
    keep_networks(bench, target, feasible(PLAN[:12], failing), old_ns)
    return load(SPACE, target, bench).model


def feasible(networks: list[Architecture], failing: tuple[Block, ...]) -> list[Architecture]:
    return [network for network in networks if not set(failing) & set(SPACE.blocks(network))]


def keep_samples(bench: Bench, failing: tuple[Block, ...] = (), absent: tuple[Block, ...] = ()) -> None:
    """Store what ``SAMPLES`` asks for: blocks of the new target, and the first random networks."""
    keep_blocks(bench, NEW, [block for block in SOME if block not in absent], new_ns, failing)
    keep_networks(bench, NEW, feasible(DRAWN, failing + absent)[: SAMPLES // 2], new_ns)


def test_blocks_and_networks_are_estimated_from_few_stored_samples_and_nothing_is_measured(
    bench: Bench, model: NetworkModel
) -> None:
    keep_samples(bench)
    before = bench.store.count()
    found = transfer(SPACE, NEW, [model], bench, samples=SAMPLES)
    assert bench.store.count() == before
    assert {sample.what for sample in found.blocks} == set(SOME)
    assert [sample.what for sample in found.networks] == DRAWN[:12]
    assert all(sample.drawn for sample in found.networks)
    estimated = found.model.estimated
    assert estimated.keys() == {block.identity for block in BLOCKS} - {block.identity for block in SOME}
    errors = [estimated[block.identity].value_ns / new_ns(block) - 1 for block in BLOCKS if block not in SOME]
    assert max(map(abs, errors)) < 0.15
    others = [network for network in PLAN if network not in DRAWN[:12]]
    estimates = found.model.estimate([block_names(SPACE, network) for network in others])
    errors = [
        each.value_ns / network_ns(network, new_ns) - 1
        for each, network in zip(estimates, others, strict=True)
    ]
    assert max(map(abs, errors)) < 0.05


def test_measured_blocks_keep_their_measurement_and_estimates_are_of_another_type(
    bench: Bench, model: NetworkModel
) -> None:
    keep_samples(bench)
    found = transfer(SPACE, NEW, [model], bench, samples=SAMPLES)
    for sample in found.blocks:
        assert isinstance(sample.outcome, Measurement)
        assert found.model.measured[sample.what.identity] == sample.outcome.latency
    assert {estimate.kind for estimate in found.model.estimated.values()} == {"estimate"}
    assert all(each.kind == "estimate" for _, each in found.others)
    assert not found.model.measured.keys() & found.model.estimated.keys()


def test_model_names_its_sources_and_the_key_of_its_own_measurements(
    bench: Bench, model: NetworkModel
) -> None:
    keep_samples(bench)
    found = transfer(SPACE, NEW, [model], bench, samples=SAMPLES).model
    assert found.sources == (OLD,)
    assert found.target == NEW
    assert model.table.key is not None
    assert found.key != model.table.key
    assert isinstance(found.key, TableKey)


def test_interval_states_the_coverage_that_its_networks_give(bench: Bench, model: NetworkModel) -> None:
    keep_blocks(bench, NEW, SOME, new_ns)
    keep_networks(bench, NEW, DRAWN[:5], new_ns)
    found = transfer(SPACE, NEW, [model], bench, samples=10).model
    assert found.fitted_networks == 5
    assert found.coverage == pytest.approx(5 / 6)


def test_chosen_networks_take_part_in_the_fit_and_not_in_the_interval(
    bench: Bench, model: NetworkModel
) -> None:
    keep_blocks(bench, NEW, SOME, new_ns)
    keep_networks(bench, NEW, PLAN[:9], new_ns)
    found = transfer(SPACE, NEW, [model], bench, samples=10).model
    assert found.fitted_networks == 9
    assert found.coverage == pytest.approx(6 / 7)


def test_block_that_failed_on_a_source_only_is_estimated(bench: Bench, model: NetworkModel) -> None:
    failing = (SPACE.blocks(SPACE.reference())[1],)
    sources = [model, source(bench, failing, Target("host", "onnxruntime", threads=3))]
    keep_blocks(bench, NEW, [block for block in SOME if block not in failing], new_ns)
    keep_networks(bench, NEW, DRAWN[: SAMPLES // 2], new_ns)
    found = transfer(SPACE, NEW, sources, bench, samples=SAMPLES)
    assert not found.unknown
    assert found.model.estimated[failing[0].identity].value_ns == pytest.approx(new_ns(failing[0]), rel=0.3)
    (estimate,) = found.model.estimate([block_names(SPACE, SPACE.reference())])
    assert math.isfinite(estimate.high_ns)


def test_block_that_cannot_run_on_the_new_target_makes_its_networks_infinite(
    bench: Bench, model: NetworkModel
) -> None:
    failing = SOME[1]
    keep_samples(bench, (failing,))
    found = transfer(SPACE, NEW, [model], bench, samples=SAMPLES).model
    assert found.failed == {failing.identity: Reason("unsupported", "no kernel for it")}
    assert failing.identity not in found.estimated.keys() | found.measured.keys() | found.costs_ns.keys()
    holder = next(network for network in PLAN if failing in SPACE.blocks(network))
    (estimate,) = found.estimate([block_names(SPACE, holder)])
    assert estimate.low_ns == math.inf


def test_nothing_is_said_of_a_block_that_ran_on_no_source(bench: Bench) -> None:
    strange = next(block for block in BLOCKS if block not in SOME and block.kind == "mbconv")
    keep_samples(bench, absent=(strange,))
    found = transfer(SPACE, NEW, [source(bench, (strange,))], bench, samples=SAMPLES)
    assert found.unknown == (strange,)
    assert all(strange not in SPACE.blocks(network) for network, _ in found.others)
    holder = next(network for network in PLAN if strange in SPACE.blocks(network))
    with pytest.raises(EstimateError, match="nothing is known") as caught:
        found.model.estimate([block_names(SPACE, holder)])
    assert "lathe table build" in caught.value.fix


def test_too_few_networks_that_ran_are_an_error_that_says_why(bench: Bench, model: NetworkModel) -> None:
    keep_blocks(bench, NEW, BLOCKS[:30], new_ns, BLOCKS[:2])
    with pytest.raises(EstimateError, match="0 random networks") as caught:
        transfer(SPACE, NEW, [model], bench, samples=FEWEST_NETWORKS - 2)
    assert "no kernel for it" in caught.value.why


@pytest.fixture(name="measuring")
def _measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Bench, MadeUpMeasurer]]:
    """A bench whose measurer knows the new target's latencies."""
    monkeypatch.setattr(quiet, "PATIENCE_S", 0.0)
    measurer = MadeUpMeasurer(latencies_of(SPACE, new_ns, Format.ONNX))
    with open_store(str(tmp_path / "measured.db")) as store:
        yield Bench(store, PROTOCOL, ConsoleReporter(), measurer, partial(exported_to, tmp_path)), measurer


def identity(block: Block) -> str:
    return block_workload(block, Format.ONNX).identity


def network_identity(network: Architecture) -> str:
    return network_workload(SPACE.description, network, Format.ONNX).identity


def errors_of(model: TransferredModel, networks: list[Architecture]) -> list[float]:
    estimates = model.estimate([block_names(SPACE, network) for network in networks])
    return [
        abs(each.value_ns / network_ns(network, new_ns) - 1)
        for each, network in zip(estimates, networks, strict=True)
    ]


def test_disturbed_samples_do_not_take_part_where_enough_others_do_and_are_marked(
    measuring: tuple[Bench, MadeUpMeasurer], model: NetworkModel
) -> None:
    bench, measurer = measuring
    disturbed = [*map(network_identity, DRAWN[:3]), *map(identity, BLOCKS[::5])]
    measurer.latencies_ns = {**measurer.latencies_ns, **dict.fromkeys(disturbed, 3e6)}
    measurer.special = dict.fromkeys(disturbed, "invalid")
    found = transfer(SPACE, NEW, [model], bench, samples=SAMPLES)
    tried = [sample.what for sample in found.blocks]
    marked = [block for block in tried if block in BLOCKS[::5]]
    assert marked
    assert found.model.disturbed == tuple(block.identity for block in marked)
    assert found.model.measured.keys() == {block.identity for block in tried}
    assert found.model.fitted_networks == len(found.networks) - 3
    assert max(errors_of(found.model, PLAN[60:120])) < 0.1
    text, document = transferred_text(found, names := block_texts()), transferred_json(found, names)
    assert text.count("  disturbed: [") == len(marked)
    assert f"measured {len(tried)} blocks, {len(marked)} of them disturbed\n" in text
    assert f"measured {len(found.networks)} networks, 3 of them disturbed\n" in text
    assert [row["what"] for row in document["measured_blocks"] if row["disturbed"]] == list(map(str, marked))
    assert sum(row["disturbed"] for row in document["measured_networks"]) == 3


def test_where_all_samples_are_disturbed_the_interval_reaches_to_their_farther_ends(
    measuring: tuple[Bench, MadeUpMeasurer], model: NetworkModel
) -> None:
    bench, measurer = measuring
    measurer.special = dict.fromkeys(measurer.latencies_ns, "invalid")
    disturbed = transfer(SPACE, NEW, [model], bench, samples=SAMPLES)
    tried = [*disturbed.blocks, *disturbed.networks]
    assert len(disturbed.model.disturbed) == len(disturbed.blocks)
    assert disturbed.model.fitted_networks == len(disturbed.networks)
    measurer.special = {}
    calm = transfer(SPACE, NEW, [model], bench, samples=len(tried))
    assert calm.model.disturbed == ()
    # The level of the machine, which both include, is wider than what disturbed launches took longer.
    assert disturbed.model.upper_factor > 1.015 * calm.model.upper_factor


def test_failures_that_may_pass_are_missing_and_not_said_to_be_unable(
    measuring: tuple[Bench, MadeUpMeasurer], model: NetworkModel
) -> None:
    bench, measurer = measuring
    lost, failing = network_identity(DRAWN[0]), network_identity(DRAWN[1])
    measurer.special = {lost: "timeout", failing: "unsupported"}
    found = transfer(SPACE, NEW, [model], bench, samples=SAMPLES)
    text, document = transferred_text(found, block_texts()), transferred_json(found, block_texts())
    ran = len(found.networks) - 2
    assert f"measured {ran} networks, 1 cannot run, 1 missing: run again to measure them\n" in text
    kinds = {row["what"]: row.keys() & {"failed", "missing"} for row in document["measured_networks"]}
    assert kinds[str(DRAWN[0])] == {"missing"}
    assert kinds[str(DRAWN[1])] == {"failed"}


def test_where_nothing_ran_the_failure_that_may_pass_is_named(
    measuring: tuple[Bench, MadeUpMeasurer], model: NetworkModel
) -> None:
    bench, measurer = measuring
    measurer.special = dict.fromkeys(measurer.latencies_ns, "device-lost")
    with pytest.raises(EstimateError, match="only 0 blocks and 0 random networks ran") as caught:
        transfer(SPACE, NEW, [model], bench, samples=SAMPLES)
    assert caught.value.why == "device-lost: made up: device-lost"


def strange_ns(block: Block) -> float:
    """What no size or kind of a block tells."""
    return new_ns(block) * (1 + 5 * (int(block.identity[:8], 16) % 2))


def test_sources_that_explain_the_samples_ask_for_no_more(bench: Bench, model: NetworkModel) -> None:
    keep_samples(bench)
    found = transfer(SPACE, NEW, [model], bench, samples=SAMPLES)
    assert found.explanation.is_good
    assert found.wanted_samples is None
    assert found.untried > 0


def test_a_stranger_is_told_and_more_samples_are_asked_for(bench: Bench, model: NetworkModel) -> None:
    keep_blocks(bench, NEW, SOME, strange_ns)
    keep_networks(bench, NEW, DRAWN[: SAMPLES // 2], strange_ns)
    found = transfer(SPACE, NEW, [model], bench, samples=SAMPLES)
    tried = len(found.blocks) + len(found.networks)
    assert not found.explanation.is_good
    assert found.wanted_samples == 2 * tried
    text, document = transferred_text(found, names := block_texts()), transferred_json(found, names)
    assert f"{NEW} is unlike what was transferred from\n{found.untried} more can be measured" in text
    assert f"--samples {2 * tried}" in text
    assert document["explained"]["well"] is False
    assert document["explained"]["wanted_samples"] == 2 * tried


def test_where_nothing_is_left_to_try_the_whole_table_is_advised(bench: Bench, model: NetworkModel) -> None:
    keep_blocks(bench, NEW, SOME, strange_ns)
    keep_networks(bench, NEW, DRAWN[: SAMPLES // 2], strange_ns)
    found = replace(transfer(SPACE, NEW, [model], bench, samples=SAMPLES), untried=0)
    assert found.wanted_samples is None
    assert f"lathe table build --target {NEW}" in transferred_text(found, block_texts())


def block_texts() -> dict[str, str]:
    return {block.identity: str(block) for block in BLOCKS}
