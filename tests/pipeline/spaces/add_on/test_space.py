from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional

from pipeline.spaces.add_on.config import AddOnSpaceConfig
from pipeline.spaces.add_on.layers import AddOn, ResidualBlock, operation_of, wired
from pipeline.spaces.add_on.space import JOINS, NOTHING, SOURCES, AddOnChoice, AddOnSpace
from pipeline.spaces.base import check_architecture
from pipeline.spaces.cost import network_cost
from pipeline.tables.spaces import space_of
from tests.contracts.space import SpaceContract

SMALL = AddOnSpaceConfig(width=4, stages=2, depth=2)


def _space(**changed: Any) -> AddOnSpace:
    return AddOnSpace(SMALL.model_copy(update=changed), (1, 9, 6), 3)


class TestAddOnSpace(SpaceContract):
    @pytest.fixture
    def space(self) -> AddOnSpace:
        return _space()


class TestSpaceOfOneOperation(SpaceContract):
    @pytest.fixture
    def space(self) -> AddOnSpace:
        return _space(operations=("separable5",), depth=1, stem_stride=2)


def test_a_layer_that_keeps_its_shape_has_25_choices_and_one_that_does_not_19() -> None:
    assert _space(depth=1).count() == 25 * 19
    assert _space().count() == 25 * 25 * 19 * 25


def test_the_reference_is_the_bare_backbone_which_nothing_undercuts() -> None:
    space = _space()
    assert space.reference() == space.extreme(lambda block: 1.0)
    assert space.blocks(space.reference()) == (space.stem(), *space.backbone, space.classifier())
    smallest = network_cost(space.blocks(space.reference())).parameters
    generator = random.Random(0)
    for _ in range(50):
        assert network_cost(space.blocks(space.sample(generator))).parameters >= smallest


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_backbone_stays_in_every_member(seed: int) -> None:
    space = _space()
    member = space.sample(random.Random(seed))
    kept = [block for block in space.blocks(member) if block.kind == "residual"]
    assert tuple(kept) == space.backbone
    added = [choice for choice in space.choices(member) if choice != NOTHING]
    assert len(space.blocks(member)) == len(space.backbone) + 2 + len(added)


def test_where_nothing_is_added_wirings_are_one_architecture() -> None:
    space = _space()
    bare = space.reference()
    with pytest.raises(ValueError, match="first choice"):
        check_architecture(space, bare.with_choice("layer1.join", "added"))


@pytest.mark.parametrize(("source", "join"), list(itertools.product(SOURCES, JOINS)))
@pytest.mark.parametrize("operation", ["conv3", "average_pool"])
def test_wirings_are_the_formulas_of_the_documentation(operation: str, source: str, join: str) -> None:
    torch.manual_seed(0)
    block, x = ResidualBlock(4, 4, stride=1).eval(), torch.rand(2, 4, 5, 5)
    add_on = AddOn(4, operation=operation, join=join).eval()
    a = add_on.operation
    f = functional.relu if operation == "conv3" else torch.nn.Identity()
    expected = {
        ("output", "series"): lambda: f(a(block(x))),
        ("output", "added"): lambda: f(block(x) + a(block(x))),
        ("input", "series"): lambda: block(f(a(x))),
        ("input", "added"): lambda: f(block(x) + a(x)),
    }[source, join]()
    assert torch.allclose(wired(block, add_on, x, source=source, join=join), expected)


def test_a_built_network_has_the_parameters_of_its_blocks() -> None:
    space = _space()
    choices = [
        AddOnChoice("conv5"),
        AddOnChoice("max_pool", "input"),
        AddOnChoice("separable3", "output", "added"),
        AddOnChoice("separable5", "input", "added"),
    ]
    member = space.architecture(choices)
    check_architecture(space, member)
    network = space.build(member).eval()
    assert space.choices(member) == tuple(choices)
    assert sum(p.numel() for p in network.parameters()) == network_cost(space.blocks(member)).parameters
    assert network(torch.rand(2, 1, 9, 6)).shape == (2, 3)


def test_no_member_is_below_zero_where_pools_need_no_activation() -> None:
    torch.manual_seed(0)
    for name in ("max_pool", "average_pool"):
        assert (operation_of(name, 4)(torch.rand(2, 4, 3, 3)) >= 0).all()
    with pytest.raises(ValueError, match="no operation 'conv7'"):
        operation_of("conv7", 4)


def test_the_space_is_made_again_from_its_description() -> None:
    assert space_of(_space().description) == _space()


@pytest.mark.parametrize(
    "changed", [{"operations": ()}, {"operations": ("conv3", "conv3")}, {"stages": 0}, {"width": 0}]
)
def test_a_config_without_meaning_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AddOnSpaceConfig(**changed)


@pytest.mark.parametrize(("side", "stages"), [(8, 2), (32, 3), (96, 4)])
def test_defaults_follow_the_size_of_the_images(side: int, stages: int) -> None:
    config = AddOnSpaceConfig.for_input((3, side, side))
    assert config.stages == stages
    space = AddOnSpace(config, (3, side, side), 10)
    assert min(space.classifier().input_shape[1:]) >= 4
