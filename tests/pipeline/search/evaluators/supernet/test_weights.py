"""Weights that all members of a space share: which slice a block has, and what trains it."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from pipeline.search.evaluators.supernet.weights import SharedWeights
from pipeline.spaces.base import Architecture
from tests.pipeline.search.search_models import small_space

IMAGES = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def member(**choices: int) -> Architecture:
    """The smallest member with these choices in both stages."""
    found = small_space().extreme(lambda block: float(sum(block.input_shape)))
    for decision in small_space().decisions:
        if (name := decision.name.partition(".")[2]) in choices:
            found = found.with_choice(decision.name, choices[name])
    return found


def logits(weights: SharedWeights, architecture: Architecture) -> Tensor:
    return weights.run(weights.placed(architecture), IMAGES)


def test_a_member_has_the_shapes_of_its_own_network_and_its_outputs_depend_on_the_seed_alone() -> None:
    members = [small_space().sample(random.Random(seed)) for seed in range(5)]
    one, other, another = (SharedWeights(small_space(), seed) for seed in (0, 0, 1))
    first = [logits(one, each) for each in members]
    assert all(each.shape == (8, 3) for each in first)
    # In another order the same.
    assert all(map(torch.equal, first[::-1], [logits(other, each) for each in members[::-1]]))
    assert not torch.equal(first[0], logits(another, members[0]))


def test_a_smaller_block_has_the_first_channels_and_the_middle_of_the_kernel() -> None:
    weights = SharedWeights(small_space(), 0)
    wide = member(width=8, kernel=7, expansion=2, depth=1)
    logits(weights, wide).sum().backward()
    for tensor in weights.tensors.values():
        tensor.grad = None
    logits(weights, wide.with_choice("stage1.kernel", 3)).square().sum().backward()
    depthwise = next(
        tensor for name, tensor in weights.tensors.items() if name.endswith("grouped") and "8x8-4x4" in name
    )
    assert depthwise.shape == (8, 1, 7, 7)
    assert depthwise.grad is not None
    inside = depthwise.grad[:, :, 2:5, 2:5]
    assert inside.abs().sum() > 0
    assert depthwise.grad.abs().sum() == pytest.approx(float(inside.abs().sum()))


def test_a_convolution_of_each_channel_shares_nothing_with_one_of_all() -> None:
    weights = SharedWeights(small_space(), 0)
    logits(weights, member(expansion=1))
    before = dict(weights.tensors)
    logits(weights, member(expansion=2))
    shared = {name for name in before if name.endswith("layers.0.0.weight")}
    assert not shared & {name for name in weights.tensors if name not in before}
    assert any(name.endswith("layers.0.0.weight.grouped") for name in before)
    assert any(name.endswith("layers.0.0.weight") for name in weights.tensors)


def test_what_was_loaded_is_used_and_frozen_weights_have_no_gradients() -> None:
    one, other = SharedWeights(small_space(), 0), SharedWeights(small_space(), 1)
    expected = logits(one, member(depth=2))
    other.load(one.tensors)
    other.freeze()
    found = logits(other, member(depth=2))
    assert torch.equal(found, expected)
    assert not found.requires_grad
    # What was never trained is drawn, and frozen as well.
    assert not logits(other, member(depth=3)).requires_grad


def test_the_global_generator_is_left_as_it_was() -> None:
    state = torch.get_rng_state()
    logits(SharedWeights(small_space(), 0), member(depth=1))
    assert torch.equal(torch.get_rng_state(), state)
