"""NASWOT (2006.04647): how well the activations of an untrained network tell images apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.base import Dataset
from pipeline.search.base import Score
from pipeline.search.evaluators.untrained.networks import (
    Activations,
    drawn,
    images_of,
    without_gradients,
)
from pipeline.spaces.base import Architecture, Space

_IMAGES = 64


@dataclass(frozen=True)
class ActivationCodes:
    """``log |det K|``, where ``K_ij`` counts the activations that are alike in images i and j.

    An activation is on where its input is above zero; counts of all layers are added (section 3).
    """

    space: Space
    dataset: Dataset
    seed: int

    def evaluate(self, architecture: Architecture) -> Score:
        """The logarithm; minus infinity, and so a failure, where some images' codes follow from others'.

        So it is of equal codes, and of networks with fewer activations than there are images.
        """
        images = images_of(self.dataset, _IMAGES)
        kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

        def add(inputs: Tensor) -> None:
            signs = (inputs > 0).flatten(1).float() * 2 - 1
            # Equal signs add one, different ones take one away.
            kernel.add_((signs @ signs.T + signs.shape[1]) / 2)

        with drawn(self.seed, architecture), torch.no_grad():
            network = without_gradients(self.space.build(architecture))
            with Activations(add):
                network(images)
        # Rounding alone would decide the determinant.
        if torch.linalg.matrix_rank(kernel, hermitian=True) < len(images):
            return Score(-math.inf)
        return Score(float(torch.linalg.slogdet(kernel).logabsdet))
