from __future__ import annotations

import random

import pytest
import torch

from pipeline.methods.subgraph.structures import find_structures
from pipeline.methods.subgraph.units import OpenTeacherSpace, describe_teacher
from pipeline.spaces.base import Cost
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.tables.prediction.networks import written
from tests.contracts.space import SpaceContract
from tests.pipeline.methods.subgraph.networks import (
    SHAPE,
    fused,
    inverted,
    plain,
    projected,
    resnet,
)

NETWORKS = {
    "plain": plain,
    "inverted": inverted,
    "projected": projected,
    "resnet": resnet,
    "transformer": fused,
}


@pytest.fixture(scope="module", params=NETWORKS)
def opened(request: pytest.FixtureRequest) -> OpenTeacherSpace:
    network = NETWORKS[request.param]()
    config = describe_teacher(network, SHAPE, find_structures(network, SHAPE), most_blocks=80)
    return OpenTeacherSpace(config, SHAPE, 5, lambda: network)


class TestTeacherSpace(SpaceContract):
    @pytest.fixture
    def space(self, opened: OpenTeacherSpace) -> OpenTeacherSpace:
        return opened


def test_a_network_has_the_parameters_and_multiplications_of_its_units(opened: OpenTeacherSpace) -> None:
    generator = random.Random(0)
    for architecture in (opened.reference(), *(opened.sample(generator) for _ in range(5))):
        cost = sum(map(opened.cost, opened.blocks(architecture)), Cost(0, 0))
        network = opened.build(architecture)
        assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_units_run_one_after_the_other_are_the_network(opened: OpenTeacherSpace) -> None:
    """Each unit takes what the one before gives, down to the logits."""
    generator = random.Random(1)
    for architecture in (opened.reference(), opened.sample(generator)):
        images = torch.randn(1, *SHAPE)
        for block, unit in zip(opened.blocks(architecture), opened.units_left(architecture), strict=True):
            images = images[:, None] if unit.tokens else images
            assert tuple(images.shape) == (1, *block.input_shape)
            images = opened.build_block(block).eval()(images)
            assert images.numel() == opened.outputs(block)
        assert tuple(images.shape) == (1, 5)


def test_the_reference_is_the_teacher(opened: OpenTeacherSpace) -> None:
    shapes = {name: value.shape for name, value in opened.network.state_dict().items()}
    network = opened.build(opened.reference())
    assert {name: value.shape for name, value in network.state_dict().items()} == shapes
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_counts_of_an_architecture_give_the_architecture_back(opened: OpenTeacherSpace) -> None:
    generator = random.Random(2)
    for _ in range(20):
        architecture = opened.sample(generator)
        assert opened.architecture(opened.counts(architecture)) == architecture


def test_extremes_are_those_of_all_members(opened: OpenTeacherSpace) -> None:
    def macs(architecture) -> int:
        return sum(opened.cost(block).macs for block in opened.blocks(architecture))

    few = opened.count() <= 2000
    generator = random.Random(3)
    members = opened.members() if few else (opened.sample(generator) for _ in range(2000))
    every = list(map(macs, members))
    smallest, largest = (opened.extreme(lambda b: opened.cost(b).macs, largest=end) for end in (False, True))
    assert macs(smallest) <= min(every)
    assert macs(largest) >= max(every)
    if few:
        assert (macs(smallest), macs(largest)) == (min(every), max(every))
        assert opened.count() == len(every)


def test_a_space_without_its_teacher_says_that_it_cannot_build(opened: OpenTeacherSpace) -> None:
    closed = TeacherSpace(opened.config, opened.input_shape, opened.classes)
    assert closed.blocks(closed.reference()) == opened.blocks(opened.reference())
    with pytest.raises(LookupError, match=r"SpacePlan\.open"):
        closed.build(closed.reference())
    with pytest.raises(LookupError, match=r"SpacePlan\.open"):
        closed.build_block(closed.distinct_blocks()[0])


def test_what_lies_in_a_removed_block_is_not_decided(opened: OpenTeacherSpace) -> None:
    for name, around in opened.config.inside.items():
        counts = {each.name: each.count for each in opened.config.structures} | {around: 0}
        architecture = opened.architecture(counts)
        assert opened.counts(architecture)[name] == 0
        assert architecture == opened.architecture(counts | {name: opened.config.widths[name][0]})


def test_a_width_that_is_not_offered_is_refused(opened: OpenTeacherSpace) -> None:
    whole = {each.name: each.count for each in opened.config.structures}
    name = next(iter(opened.config.widths))
    with pytest.raises(ValueError, match="is no width of"):
        opened.architecture(whole | {name: 1000})


def test_a_block_that_is_removed_is_printed_without_what_was_in_it_and_read_back() -> None:
    network = resnet()
    config = describe_teacher(network, SHAPE, find_structures(network, SHAPE), most_blocks=80)
    space = TeacherSpace(config, SHAPE, 5)
    removed = space.reference().with_choice("layer1.0.kept", False)
    assert str(removed) == "layer1.0(kept=False) layer2.0(conv1=16) layer3.0(conv1=32)"
    assert written(space, str(removed)) == [removed]
