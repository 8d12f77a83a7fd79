from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from pipeline.teachers.plain_weights import with_plain_weights


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def _doubled(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Doubled())


def _masked(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer, "weight", amount=0.5)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize(
    "made",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        weight_norm,
        spectral_norm,
        _doubled,
        _masked,
    ],
)
def test_weights_become_parameters_and_the_function_stays_the_same(
    made: Callable[[nn.Module], nn.Module],
) -> None:
    network = nn.Sequential(made(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = network(images)
    with_plain_weights(network)
    assert {name for name, _ in network.named_parameters()} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert type(network[0]) is nn.Conv2d
    with torch.no_grad():
        assert torch.allclose(copy.deepcopy(network)(images), before, atol=1e-6)
