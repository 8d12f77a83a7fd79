"""Weights that are computed from others, turned into plain ones: nothing else need know of them then."""

from __future__ import annotations

from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def with_plain_weights(network: nn.Module) -> None:
    """Make plain parameters of weights with a weight or spectral norm, any parametrisation, or a mask.

    Otherwise such a weight is no parameter, so that a layer cannot be copied or lose channels.

    Args:
        network: changed in place, and in evaluation mode afterwards; its function stays the same.
    """
    network.eval()  # A spectral norm changes when it is computed in training mode.
    for module in network.modules():
        if parametrize.is_parametrized(module):
            assert isinstance(module.parametrizations, nn.ModuleDict)
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
        for hook in list(module._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
