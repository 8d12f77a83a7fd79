import random

import pytest
import torch
from torch import nn

from pipeline.spaces.add_on.config import AddOnSpaceConfig
from pipeline.spaces.add_on.space import AddOnSpace
from pipeline.spaces.base import Block, Cost
from pipeline.spaces.cost import block_cost, network_cost
from pipeline.spaces.mobile.config import SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace


def counted(module: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """Multiply-accumulates by hooks, parameters by torch."""
    macs = 0

    def count(layer, inputs, output):
        nonlocal macs
        if isinstance(layer, nn.Conv2d):
            macs += layer.weight[0].numel() * output.numel()
        else:
            macs += layer.weight.numel()

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    module.eval()(torch.randn(1, *shape))
    return Cost(macs, sum(parameter.numel() for parameter in module.parameters()))


@pytest.mark.parametrize("preset", ["mobile", "akd"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7)])
def test_block_cost_equals_what_hooks_count_on_every_block(preset, shape):
    space = MobileSpace.from_config(SpaceConfig(preset=preset), shape, 10)
    for block in space.distinct_blocks():
        assert block_cost(block) == counted(space.build_block(block), block.input_shape)


@pytest.mark.parametrize("preset", ["mobile", "akd"])
def test_network_cost_equals_what_hooks_count_on_whole_networks(preset):
    space = MobileSpace.from_config(SpaceConfig(preset=preset), (3, 32, 32), 10)
    for seed in range(3):
        architecture = space.sample(random.Random(seed))
        assert network_cost(space.blocks(architecture)) == counted(
            space.build(architecture), space.input_shape
        )


def test_cost_of_the_add_on_space_equals_what_hooks_count():
    space = AddOnSpace(AddOnSpaceConfig(width=4, stages=2, depth=2), (1, 9, 7), 10)
    for block in space.distinct_blocks():
        assert block_cost(block) == counted(space.build_block(block), block.input_shape)
    for seed in range(5):
        member = space.sample(random.Random(seed))
        assert network_cost(space.blocks(member)) == counted(space.build(member), space.input_shape)


def test_block_cost_refuses_a_block_of_another_space():
    with pytest.raises(ValueError, match="no space has a block of kind"):
        block_cost(Block("attention", (1, 8, 8), ()))
