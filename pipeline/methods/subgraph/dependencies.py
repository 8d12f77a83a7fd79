"""torch-pruning's dependency graph, for layers with groups too: of these, whole groups are removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch_pruning import BasePruningFunc, DependencyGraph
from torch_pruning.pruner import function


def channels_of_group(layer: nn.Module) -> int:
    """How many channels of a layer can only be removed together: those of a group; 1 without groups."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels // layer.num_groups
    return layer.out_channels // layer.groups if _has_groups(layer) else 1


def _has_groups(layer: nn.Module) -> TypeGuard[_ConvNd]:
    """Whether a convolution leads each of several groups of channels into one of the same size."""
    return (
        isinstance(layer, _ConvNd)
        and 1 < layer.groups < layer.out_channels
        and layer.in_channels == layer.out_channels
    )


class _GroupedConvolutions(function.ConvPruner):  # type: ignore[misc]
    """Removes whole groups, which are input and output at once."""

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> nn.Module:
        each, gone = channels_of_group(layer), set(idxs)
        kept = [channel for channel in range(layer.out_channels) if channel not in gone]
        layer.groups = len(kept) // each
        layer.in_channels = layer.out_channels = len(kept)
        layer.weight = self._prune_parameter_and_grad(layer.weight, kept, 0)
        if layer.bias is not None:
            layer.bias = self._prune_parameter_and_grad(layer.bias, kept, 0)
        return layer  # type: ignore[no-any-return]

    prune_in_channels = prune_out_channels


class _GroupNorms(function.GroupNormPruner):  # type: ignore[misc]
    """Removes whole groups, so that the statistics of the others stay as they are."""

    def prune_out_channels(self, layer: Any, idxs: Sequence[int]) -> nn.Module:
        each = channels_of_group(layer)
        super().prune_out_channels(layer, list(idxs))
        layer.num_groups = layer.num_channels // each
        return layer  # type: ignore[no-any-return]

    prune_in_channels = prune_out_channels


class GroupedDependencyGraph(DependencyGraph):  # type: ignore[misc]
    """In which grouped convolutions and group norms lose whole groups."""

    def __init__(self) -> None:
        super().__init__()
        self._convolutions, self._norms = _GroupedConvolutions(), _GroupNorms()
        for pruner in (self._convolutions, self._norms):
            # By a class that no layer has: which layers are meant, the next method says.
            self.register_customized_layer(type(pruner), pruner)

    def get_pruner_of_module(self, module: nn.Module) -> BasePruningFunc:
        """What removes channels of a layer."""
        if isinstance(module, nn.GroupNorm):
            return self._norms
        return self._convolutions if _has_groups(module) else super().get_pruner_of_module(module)
