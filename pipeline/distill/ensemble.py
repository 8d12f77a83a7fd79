"""Several networks that answer as one, and the feature maps of them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.distill.feature_maps import FeatureMap, feature_maps
from pipeline.tasks.probabilities import mean_log_probabilities


class Ensemble(nn.Module):
    """Gives the logarithm of the mean of the members' probabilities (1503.02531, section 3)."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, classes)``."""
        return mean_log_probabilities(
            torch.stack([torch.log_softmax(network(images), dim=1) for network in self.networks])
        )


def members_maps(network: nn.Module, images: Tensor) -> tuple[FeatureMap, ...]:
    """The feature maps of a network, or of all members of an ensemble, one member after the other.

    Args:
        network: as of ``feature_maps``.
        images: as there.
    """
    if not isinstance(network, Ensemble):
        return feature_maps(network, images)
    return tuple(
        replace(each, name=f"networks.{number}.{each.name}", member=number)
        for number, member in enumerate(network.networks)
        for each in feature_maps(member, images)
    )
