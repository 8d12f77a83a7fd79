import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.spaces.base import Architecture
from pipeline.spaces.cost import network_cost
from pipeline.spaces.mobile.config import MobileSpaceConfig, StageConfig
from pipeline.spaces.mobile.space import MobileSpace
from tests.contracts.space import SpaceContract


def space_for(side: int, channels: int = 3, classes: int = 10) -> MobileSpace:
    return MobileSpace.from_config(None, (channels, side, side), classes)


def every_architecture(space):
    names = [decision.name for decision in space.decisions]
    for choices in itertools.product(*(decision.choices for decision in space.decisions)):
        yield Architecture(tuple(zip(names, choices, strict=True)))


class TestDefaultSpaceAt8(SpaceContract):
    @pytest.fixture
    def space(self):
        return space_for(8, channels=1)


class TestDefaultSpaceAt32(SpaceContract):
    @pytest.fixture
    def space(self):
        return space_for(32)


class TestSpaceWithoutAnyChoice(SpaceContract):
    @pytest.fixture
    def space(self):
        stage = StageConfig(widths=(8,), depths=(2,), kernels=(7,), expansions=(1,), squeeze_excite=(0.25,))
        config = MobileSpaceConfig(stem_width=8, head_width=16, stages=(stage,))
        return MobileSpace.from_config(config, (3, 9, 5), 2)


small_configs = st.builds(
    MobileSpaceConfig,
    stem_width=st.sampled_from([4, 8]),
    stem_stride=st.sampled_from([1, 2]),
    head_width=st.just(8),
    stages=st.lists(
        st.builds(
            StageConfig,
            widths=st.sampled_from([(4,), (8,), (4, 8), (8, 12)]),
            depths=st.sampled_from([(1,), (1, 2), (3, 1)]),
            stride=st.sampled_from([1, 2]),
            kernels=st.sampled_from([(3,), (3, 5)]),
            expansions=st.sampled_from([(1,), (2,), (1, 2)]),
            squeeze_excite=st.sampled_from([(0.0,), (0.0, 0.25)]),
        ),
        min_size=1,
        max_size=2,
    ),
)


@settings(max_examples=40, deadline=None)
@given(config=small_configs, seed=st.integers(0, 2**32))
def test_extreme_equals_brute_force_when_costs_are_random(config, seed):
    space = MobileSpace.from_config(config, (1, 9, 6), 3)
    generator = random.Random(seed)
    costs = {block: generator.choice([generator.random(), math.inf]) for block in space.distinct_blocks()}
    totals = [sum(costs[b] for b in space.blocks(a)) for a in every_architecture(space)]
    smallest = space.extreme(costs.__getitem__)
    assert sum(costs[b] for b in space.blocks(smallest)) == pytest.approx(min(totals))
    finite = {block: cost for block, cost in costs.items() if cost < math.inf}
    largest = space.extreme(lambda block: finite.get(block, -math.inf), largest=True)
    reachable = [total for total in totals if total < math.inf]
    if reachable:
        assert sum(costs[b] for b in space.blocks(largest)) == pytest.approx(max(reachable))


@settings(max_examples=30, deadline=None)
@given(config=small_configs)
def test_count_and_distinct_blocks_equal_enumeration(config):
    space = MobileSpace.from_config(config, (1, 9, 6), 3)
    architectures = list(every_architecture(space))
    assert space.count() == len(set(architectures))
    used = {block for architecture in architectures for block in space.blocks(architecture)}
    assert set(space.distinct_blocks()) == used
    assert len(space.distinct_blocks()) == len(used)


@pytest.mark.parametrize("side", [8, 28, 32, 96, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_build_works_when_input_is_of_usual_size(side, channels):
    space = space_for(side, channels, classes=7)
    architecture = space.sample(random.Random(side))
    features = torch.randn(1, channels, side, side)
    network = space.build(architecture).eval()
    for block, module in zip(space.blocks(architecture), network, strict=True):
        assert features.shape[1:] == block.input_shape
        features = module(features)
    assert features.shape == (1, 7)


def test_network_is_exactly_the_composition_of_its_blocks():
    space = space_for(8, channels=1)
    architecture = space.reference()
    torch.manual_seed(1)
    network = space.build(architecture).eval()
    torch.manual_seed(1)
    blocks = [space.build_block(block).eval() for block in space.blocks(architecture)]
    images = torch.randn(4, 1, 8, 8)
    features = images
    for block in blocks:
        features = block(features)
    assert torch.equal(network(images), features)


def test_blocks_of_equal_layers_are_equal():
    space = space_for(8, channels=1)
    blocks = space.blocks(space.reference())
    assert len(blocks) == 1 + 3 + 3 + 1
    assert blocks[5] == blocks[6]
    assert blocks[5].identity == blocks[6].identity
    assert blocks[4] != blocks[5]


def test_default_space_at_8_has_few_enough_blocks_for_a_quick_table():
    assert len(space_for(8, channels=1).distinct_blocks()) <= 45


@pytest.mark.parametrize("side", [8, 28, 32, 96, 224])
def test_reference_leaves_room_for_a_budget_of_six_tenths(side):
    space = space_for(side)
    reference = network_cost(space.blocks(space.reference())).macs
    smallest = space.extreme(lambda block: network_cost([block]).macs)
    assert network_cost(space.blocks(smallest)).macs < 0.4 * reference


def test_reference_takes_kernel_5_and_the_largest_of_everything_else():
    reference = space_for(32).reference()
    assert reference["stage3.kernel"] == 5
    assert reference["stage3.width"] == 96
    assert reference["stage3.depth"] == 3
    assert reference["stage3.expansion"] == 6
    assert reference["stage3.squeeze_excite"] == 0.25


def test_sample_is_uniform_over_small_space():
    space = space_for(8, channels=1)
    generator = random.Random(0)
    drawn = [space.sample(generator) for _ in range(4000)]
    for decision in space.decisions:
        for choice in decision.choices:
            share = sum(a[decision.name] == choice for a in drawn) / len(drawn)
            assert share == pytest.approx(1 / len(decision.choices), abs=0.04)


def test_default_initialisation_keeps_the_scale_of_features():
    torch.manual_seed(0)
    space = space_for(32)
    logits = space.build(space.reference()).train()(torch.randn(16, 3, 32, 32))
    assert 1e-3 < float(logits.detach().std()) < 10


@pytest.mark.parametrize(
    "change",
    [
        {"widths": ()},
        {"widths": (8, 8)},
        {"widths": (0,)},
        {"kernels": (4,)},
        {"stride": 3},
        {"squeeze_excite": (1.5,)},
        {"unknown": 1},
    ],
)
def test_stage_config_refuses_choices_that_cannot_be_built(change):
    with pytest.raises(ValidationError):
        StageConfig(**{"widths": (8,), **change})


def test_from_config_refuses_an_empty_input():
    with pytest.raises(ValueError, match="positive"):
        MobileSpace.from_config(None, (1, 0, 8), 10)


def test_build_block_refuses_a_block_of_another_space():
    from pipeline.spaces.base import Block

    with pytest.raises(ValueError, match="no block of kind"):
        space_for(8).build_block(Block("attention", (1, 8, 8), ()))
