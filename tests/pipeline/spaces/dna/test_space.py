import itertools
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import TeacherError
from pipeline.spaces.cost import network_cost
from pipeline.spaces.dna.config import CellConfig, DnaBlockConfig, DnaSpaceConfig
from pipeline.spaces.dna.space import BlockChoice, DnaSpace, LayerOperation
from tests.contracts.space import SpaceContract

CELLS = (CellConfig(depth=1, width=8), CellConfig(depth=2, width=8), CellConfig(depth=2, width=12))
BLOCK = DnaBlockConfig(cells=CELLS, kernels=(3, 5), expansions=(1, 2), squeeze_excite=0.25)


def space_of(*blocks: DnaBlockConfig, stem_stride: int = 1) -> DnaSpace:
    config = DnaSpaceConfig(stem_width=4, stem_stride=stem_stride, head_width=16, blocks=blocks)
    return DnaSpace(config, (1, 9, 6), 3)


class TestSpaceWithOneDepth(SpaceContract):
    @pytest.fixture
    def space(self):
        cells = (CellConfig(depth=2, width=8), CellConfig(depth=2, width=12))
        return space_of(DnaBlockConfig(cells=cells, stride=1), DnaBlockConfig(cells=cells))


class TestSpaceOfTeacher(SpaceContract):
    @pytest.fixture
    def space(self):
        shapes = [(32, 16, 16), (64, 8, 8), (128, 4, 4)]
        return DnaSpace(DnaSpaceConfig.for_teacher(shapes, (3, 16, 16)), (3, 16, 16), 10)


class TestSpaceWithoutAnyChoice(SpaceContract):
    @pytest.fixture
    def space(self):
        block = DnaBlockConfig(cells=(CellConfig(depth=2, width=8),), kernels=(7,), expansions=(3,))
        return space_of(block)


configs = st.lists(
    st.builds(
        DnaBlockConfig,
        cells=st.lists(st.sampled_from(CELLS), min_size=1, unique=True).map(tuple),
        stride=st.sampled_from([1, 2]),
        kernels=st.sampled_from([(3,), (3, 5)]),
        expansions=st.sampled_from([(2,), (1, 2)]),
    ),
    min_size=1,
    max_size=2,
)


@settings(max_examples=25)
@given(blocks=configs, seed=st.integers(0, 2**32))
def test_extreme_and_blocks_equal_enumeration(blocks, seed):
    space = space_of(*blocks)
    members = list(space.members())
    used = {block for member in members for block in space.blocks(member)}
    assert set(space.distinct_blocks()) == used
    assert len(space.distinct_blocks()) == len(used)
    generator = random.Random(seed)
    costs = {block: generator.choice([generator.random(), math.inf]) for block in space.distinct_blocks()}
    totals = [sum(costs[block] for block in space.blocks(member)) for member in members]
    smallest = space.extreme(costs.__getitem__)
    assert sum(costs[block] for block in space.blocks(smallest)) == pytest.approx(min(totals))
    finite = {block: cost for block, cost in costs.items() if cost < math.inf}
    largest = space.extreme(lambda block: finite.get(block, -math.inf), largest=True)
    reachable = [total for total in totals if total < math.inf]
    if reachable:
        assert sum(costs[block] for block in space.blocks(largest)) == pytest.approx(max(reachable))


@settings(max_examples=20)
@given(blocks=configs, seed=st.integers(0, 2**32))
def test_architecture_and_its_choices_by_block_are_the_same(blocks, seed):
    space = space_of(*blocks)
    architecture = space.sample(random.Random(seed))
    assert space.architecture(space.block_choices(architecture)) == architecture


def test_count_is_the_product_over_blocks_of_the_paths_of_their_cells():
    assert space_of(BLOCK, BLOCK).count() == (4 + 16 + 16) ** 2


def test_network_is_the_composition_of_blocks_whose_shapes_fit():
    space = space_of(BLOCK, BLOCK, stem_stride=2)
    architecture = space.sample(random.Random(1))
    features = torch.randn(2, *space.input_shape)
    for block, module in zip(
        space.blocks(architecture), space.build(architecture).eval().children(), strict=True
    ):
        assert features.shape[1:] == block.input_shape
        features = module(features)
    assert features.shape == (2, 3)


def test_interfaces_have_the_students_own_widths():
    space = space_of(BLOCK, BLOCK)
    narrow, wide = CELLS[1], CELLS[2]
    choices = [BlockChoice(cell, (LayerOperation(3, 2), LayerOperation(5, 1))) for cell in (narrow, wide)]
    inputs = [block.input_shape[0] for block in space.blocks(space.architecture(choices))]
    assert inputs == [1, 4, 8, 8, 12, 12]


def test_cost_counts_the_parameters_that_a_built_network_has():
    space = space_of(BLOCK, BLOCK)
    for seed in range(5):
        architecture = space.sample(random.Random(seed))
        parameters = sum(weight.numel() for weight in space.build(architecture).parameters())
        assert network_cost(space.blocks(architecture)).parameters == parameters


@pytest.mark.parametrize(
    ("shapes", "image", "strides"),
    [
        ([(16, 32, 32), (32, 16, 16), (64, 8, 8)], (3, 32, 32), [1, 1, 2, 2]),
        ([(256, 56, 56), (512, 28, 28)], (3, 224, 224), [2, 2, 2]),
        ([(16, 28, 28), (32, 14, 14), (64, 7, 7)], (1, 28, 28), [1, 1, 2, 2]),
        ([(16, 5, 3), (16, 5, 3)], (1, 9, 6), [1, 2, 1]),
    ],
)
def test_for_teacher_takes_over_the_teachers_strides(shapes, image, strides):
    config = DnaSpaceConfig.for_teacher(shapes, image)
    assert [config.stem_stride, *(block.stride for block in config.blocks)] == strides
    space = DnaSpace(config, image, 10)
    assert [space.size_into(block) for block in (1, 2)] == [shape[1:] for shape in shapes[:2]]


@pytest.mark.parametrize("shape", [(16, 4, 4), (16, 9, 9), (16, 40, 40)])
def test_for_teacher_refuses_a_block_that_no_stride_of_the_space_gives(shape):
    with pytest.raises(TeacherError, match="block 2 of the teacher turns features of 16x16 into"):
        DnaSpaceConfig.for_teacher([(8, 16, 16), shape], (3, 16, 16))


@pytest.mark.parametrize(
    "change", [{"cells": ()}, {"cells": (CELLS[0], CELLS[0])}, {"stride": 3}, {"kernels": (4,)}, {"x": 1}]
)
def test_block_config_refuses_choices_that_cannot_be_built(change):
    with pytest.raises(ValidationError):
        DnaBlockConfig(**{"cells": CELLS, **change})


def test_space_refuses_an_empty_input():
    with pytest.raises(ValueError, match="positive"):
        DnaSpace(space_of(BLOCK).config, (1, 0, 6), 3)


def test_build_block_refuses_a_block_of_another_space():
    from pipeline.spaces.base import Block

    with pytest.raises(ValueError, match="no block of kind"):
        space_of(BLOCK).build_block(Block("attention", (1, 8, 8), ()))


def test_operations_are_every_kernel_with_every_expansion():
    names = [operation.name for operation in space_of(BLOCK).operations(0)]
    assert names == [f"k{kernel}e{expansion}" for kernel, expansion in itertools.product((3, 5), (1, 2))]
