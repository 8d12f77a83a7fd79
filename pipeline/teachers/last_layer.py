"""The scale and shift from the unit of the data, put into the layer that gives the numbers.

A layer that gives hundreds, or thousandths, of what is learned takes steps that are too small or too large by
the square of that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.teachers.outputs import Place, tensor_at

_TOLERANCE = 1e-3


def standardise_last_layer(
    network: nn.Module, images: Tensor, place: Place, mean: Tensor, std: Tensor
) -> bool:
    """Let a network give ``(numbers - mean) / std`` by other weights of its last layer, if that is linear.

    Args:
        network: in evaluation mode; its last layer gets weights of its own, if it shared them.
        images: that it takes, on which both are compared.
        place: of the numbers ``(N, K)`` in what it gives.
        mean: ``(K,)``.
        std: ``(K,)``, above 0.

    Returns:
        Whether it does; if not, it is as it was.
    """
    with torch.no_grad():
        numbers, layer = _numbers_and_layer(network, images, place)
        if layer is None:
            return False
        before = layer.weight, layer.bias
        bias = torch.zeros_like(mean) if layer.bias is None else layer.bias
        layer.weight = nn.Parameter((layer.weight / std[:, None]).to(layer.weight.dtype))
        layer.bias = nn.Parameter(((bias - mean) / std).to(layer.weight.dtype))
        found = tensor_at(network(images), place)
        same = torch.allclose(found.float(), (numbers - mean) / std, rtol=_TOLERANCE, atol=_TOLERANCE)
        if not same:
            layer.weight, layer.bias = before
    return same


def _numbers_and_layer(network: nn.Module, images: Tensor, place: Place) -> tuple[Tensor, nn.Linear | None]:
    """What a network gives, and the linear layer that gives it, if nothing comes behind."""
    given: list[tuple[nn.Module, Tensor]] = []
    linear = [
        module
        for module in network.modules()
        # The weight of a parametrised layer is computed.
        if isinstance(module, nn.Linear) and "weight" in module._parameters
    ]
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: given.append((module, output)))
        for module in linear
    ]
    try:
        numbers = tensor_at(network(images), place)
    finally:
        for hook in hooks:
            hook.remove()
    layer = next((module for module, output in given if output is numbers), None)
    return numbers.float(), layer if isinstance(layer, nn.Linear) else None
