from __future__ import annotations

import pytest

from pipeline.methods.subgraph.costs import Costs
from pipeline.methods.subgraph.structures import find_structures
from pipeline.methods.subgraph.units import OpenTeacherSpace, describe_teacher
from pipeline.spaces.base import Architecture
from tests.pipeline.methods.subgraph.networks import SHAPE, plain, resnet


@pytest.fixture(scope="module", name="space")
def _space() -> OpenTeacherSpace:
    network = resnet()
    config = describe_teacher(network, SHAPE, find_structures(network, SHAPE), most_blocks=100)
    return OpenTeacherSpace(config, SHAPE, 5, lambda: network)


def whole(space: OpenTeacherSpace) -> dict[str, int]:
    return {each.name: each.count for each in space.config.structures}


def by_macs(space: OpenTeacherSpace, limit: float) -> Costs:
    def shares(architecture: Architecture) -> dict[str, float]:
        return {"board": sum(space.cost(block).macs for block in space.blocks(architecture)) / limit}

    return Costs(space, shares, lambda block: float(space.cost(block).macs))


def test_numbers_between_two_widths_count_as_the_lower_one(space: OpenTeacherSpace) -> None:
    costs, counts = by_macs(space, 1e6), whole(space)
    name = "layer3.0.conv1"
    assert space.config.widths[name] == (4, 8, 12, 16, 20, 24, 28, 32)
    assert costs.allowed(counts | {name: 13})[name] == 12
    assert costs.allowed(counts | {name: 1})[name] == 4
    assert costs.excess(counts | {name: 13}) == costs.excess(counts | {name: 12})


def test_a_penalty_is_what_a_part_saves_and_their_mean_is_one(space: OpenTeacherSpace) -> None:
    costs, counts = by_macs(space, 1e6), whole(space)
    penalties = costs.penalties(counts)
    mean = sum(penalties[name] * counts[name] for name in counts) / sum(counts.values())
    assert mean == pytest.approx(1.0)
    # Of stage 2: a channel inside is 9 of each of 8 inputs at 8x8 pixels, and 9 for each of 16 outputs.
    of_stage_2, of_stage_3 = (8 + 16) * 9 * 8 * 8, (16 + 32) * 9 * 4 * 4
    assert penalties["layer2.0.conv1"] / penalties["layer3.0.conv1"] == pytest.approx(of_stage_2 / of_stage_3)


def test_a_block_is_penalised_by_all_that_it_costs(space: OpenTeacherSpace) -> None:
    penalties = by_macs(space, 1e6).penalties(whole(space))
    assert penalties["layer1.0"] == pytest.approx(8 * penalties["layer1.0.conv1"])


def test_what_lies_in_a_removed_block_costs_nothing(space: OpenTeacherSpace) -> None:
    penalties = by_macs(space, 1e6).penalties(whole(space) | {"layer1.0": 0})
    assert penalties["layer1.0.conv1"] == 0.0


def test_without_a_price_all_parts_are_penalised_alike(space: OpenTeacherSpace) -> None:
    costs = Costs(space, lambda architecture: {"board": 1.0}, None)
    assert set(costs.penalties(whole(space)).values()) == {1.0}


def test_the_excess_is_that_of_the_worst_target(space: OpenTeacherSpace) -> None:
    costs = Costs(space, lambda architecture: {"board": 0.5, "phone": 1.5}, None)
    assert costs.excess(whole(space)) == 1.5


def test_the_smallest_width_still_has_the_price_of_the_step_before() -> None:
    network = plain()
    config = describe_teacher(network, SHAPE, find_structures(network, SHAPE), most_blocks=100)
    space = OpenTeacherSpace(config, SHAPE, 5, lambda: network)
    counts = {each.name: config.widths[each.name][0] for each in config.structures}
    assert all(value > 0 for value in by_macs(space, 1e6).penalties(counts).values())


def test_what_is_cut_loses_the_least_gates_for_what_it_saves(space: OpenTeacherSpace) -> None:
    counts = whole(space)
    sizes = {name: [1.0] * count for name, count in counts.items()}
    sizes["layer3.0.conv1"] = [1.0] * 28 + [0.001] * 4
    macs = sum(space.cost(block).macs for block in space.blocks(space.reference()))
    assert by_macs(space, 0.99 * macs).cut(counts, sizes) == counts | {"layer3.0.conv1": 28}


def test_what_a_budget_leaves_room_for_comes_back_the_most_worthy_first(space: OpenTeacherSpace) -> None:
    full = whole(space)
    macs = sum(space.cost(block).macs for block in space.blocks(space.reference()))
    counts = full | {name: widths[2] for name, widths in space.config.widths.items()} | {"layer1.0": 0}
    gains = {name: [1.0] * count for name, count in full.items()}
    gains["layer3.0.conv1"] = [1000.0] * 32
    costs = by_macs(space, 0.8 * macs)
    grown = costs.grown(counts, gains)
    assert costs.excess(grown) <= 1
    assert all(grown[name] >= count for name, count in counts.items())
    assert grown["layer3.0.conv1"] == 32
    wider = [
        grown | {name: width}
        for name in grown
        for width in space.config.widths.get(name, (1,))
        if width > grown[name] and (grown["layer1.0"] or name != "layer1.0.conv1")
    ]
    assert wider
    assert all(costs.excess(each) > 1 for each in wider)


def test_a_block_comes_back_where_there_is_room_for_it(space: OpenTeacherSpace) -> None:
    full = whole(space)
    macs = sum(space.cost(block).macs for block in space.blocks(space.reference()))
    gains = {name: [1.0] * count for name, count in full.items()}
    assert by_macs(space, macs).grown(full | {"layer1.0": 0}, gains) == full
    assert by_macs(space, 0.9 * macs).grown(full | {"layer1.0": 0}, gains)["layer1.0"] == 0


def test_channels_that_cost_nothing_come_back(space: OpenTeacherSpace) -> None:
    full = whole(space)
    costs = Costs(space, lambda architecture: {"board": 1.0}, None)
    counts = full | {"layer1.0.conv1": 4}
    assert costs.grown(counts, {name: [1.0] * count for name, count in full.items()}) == full


def test_a_cut_that_cannot_succeed_is_an_error(space: OpenTeacherSpace) -> None:
    counts = whole(space)
    with pytest.raises(ValueError, match="above a budget"):
        by_macs(space, 1.0).cut(counts, {name: [1.0] * count for name, count in counts.items()})
