from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from pipeline.teachers.convnet import ConvNet
from pipeline.teachers.resnet import resnet_cifar


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([8, 15, 28, 32]), st.sampled_from([1, 3]), st.integers(1, 4), st.integers(1, 2))
def test_conv_net_gives_one_logit_per_class(size: int, channels: int, width: int, depth: int) -> None:
    network = ConvNet(channels, 5, width=width, depth=depth).eval()
    assert network(torch.zeros(2, channels, size, size)).shape == (2, 5)


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (56, 853_018)])
def test_resnet_cifar_has_the_published_number_of_parameters(depth: int, parameters: int) -> None:
    assert sum(value.numel() for value in resnet_cifar(depth).parameters()) == parameters


def test_resnet_cifar_pads_its_shortcuts_with_zeros_on_both_sides() -> None:
    block = resnet_cifar(8).layer2[0].eval()
    with torch.no_grad():
        block.bn2.weight.zero_()  # the residual is gone, the shortcut stays
        images = torch.rand(1, 16, 8, 8)
        expected = functional.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
        assert torch.equal(block(images), expected)


@pytest.mark.parametrize("depth", [2, 18, 21])
def test_resnet_cifar_refuses_a_depth_that_is_not_of_the_family(depth: int) -> None:
    with pytest.raises(ValueError, match="6 n"):
        resnet_cifar(depth)
