from __future__ import annotations

import pytest

from pipeline.methods.subgraph.costs import Costs
from pipeline.methods.subgraph.proposals import proposal
from pipeline.methods.subgraph.settings import PROPOSALS, Proposal
from pipeline.methods.subgraph.structures import find_structures
from pipeline.methods.subgraph.units import OpenTeacherSpace, describe_teacher
from pipeline.spaces.base import Architecture
from pipeline.teachers.resnet import resnet_cifar
from tests.pipeline.methods.subgraph.networks import SHAPE

BLOCKS = ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]


@pytest.fixture(scope="module", name="space")
def _space() -> OpenTeacherSpace:
    network = resnet_cifar(depth=20, classes=5)
    config = describe_teacher(network, SHAPE, find_structures(network, SHAPE), most_blocks=100)
    return OpenTeacherSpace(config, SHAPE, 5, lambda: network)


def macs(space: OpenTeacherSpace, architecture: Architecture) -> int:
    return sum(space.cost(block).macs for block in space.blocks(architecture))


def costs_for(space: OpenTeacherSpace, share: float) -> Costs:
    limit = share * macs(space, space.reference())
    return Costs(space, lambda each: {"board": macs(space, each) / limit}, lambda block: 1.0)


def alike(space: OpenTeacherSpace, **matter: float) -> dict[str, list[float]]:
    """As important as is said, else 1 for each part."""
    return {
        each.name: [matter.get(each.name.replace(".", "_"), 1.0)] * each.count
        for each in space.config.structures
    }


def blocks_of(counts: dict[str, int] | None) -> list[str]:
    assert counts is not None
    return [name for name in BLOCKS if counts[name]]


@pytest.mark.parametrize("kind", [each for each in PROPOSALS if each != "gates"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_proposal_uses_the_budget_and_keeps_it(
    space: OpenTeacherSpace, kind: Proposal, share: float
) -> None:
    costs = costs_for(space, share)
    counts = proposal(kind, costs, alike(space))
    assert counts is not None
    assert 0.6 < costs.excess(counts) <= 1
    space.architecture(counts)


def test_shallower_keeps_whole_layers_and_spreads_the_blocks(space: OpenTeacherSpace) -> None:
    counts = proposal("shallower", costs_for(space, 0.65), alike(space))
    assert blocks_of(counts) == ["layer1.1", "layer2.1", "layer3.1"]
    assert counts is not None
    assert counts["layer1.0.conv1"] == 16


def test_least_blocks_keeps_those_that_matter_most(space: OpenTeacherSpace) -> None:
    matter = alike(space, layer1_1=9.0, layer2_1=8.0, layer3_1=7.0, layer2_2=6.0)
    counts = proposal("least-blocks", costs_for(space, 0.65), matter)
    assert blocks_of(counts) == ["layer1.1", "layer2.1", "layer3.1"]


def test_narrower_keeps_every_block(space: OpenTeacherSpace) -> None:
    counts = proposal("narrower", costs_for(space, 0.5), alike(space))
    assert blocks_of(counts) == BLOCKS
    assert counts is not None
    assert counts["layer1.0.conv1"] < 16


def test_mixed_gives_up_blocks_and_channels(space: OpenTeacherSpace) -> None:
    counts = proposal("mixed", costs_for(space, 0.4), alike(space))
    assert 0 < len(blocks_of(counts)) < len(BLOCKS)
    assert counts is not None
    assert any(0 < counts[f"{name}.conv1"] < 16 for name in blocks_of(counts) if name.startswith("layer1"))


def test_importance_gives_up_what_matters_least(space: OpenTeacherSpace) -> None:
    matter = alike(space, layer3_1=1e-6, layer3_1_conv1=1e-6)
    counts = proposal("importance", costs_for(space, 0.95), matter)
    assert counts is not None
    assert sum(counts[f"{name}.conv1"] for name in BLOCKS if name != "layer3.1") == 3 * 16 + 2 * 32 + 64
    assert counts["layer3.1"] == 0 or counts["layer3.1.conv1"] < 64


def test_a_kind_that_cannot_keep_the_budgets_proposes_nothing(space: OpenTeacherSpace) -> None:
    # The blocks that cannot be removed take more than that, whole.
    costs = costs_for(space, 0.05)
    assert proposal("shallower", costs, alike(space)) is None
    assert proposal("importance", costs_for(space, 1e-6), alike(space)) is None
