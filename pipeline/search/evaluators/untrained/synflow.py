"""SynFlow (2006.05467): how much flows through an untrained network, without any images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from pipeline.data.base import Dataset
from pipeline.search.base import Score
from pipeline.search.evaluators.untrained.networks import drawn, images_of
from pipeline.spaces.base import Architecture, Space


@dataclass(frozen=True)
class SynapticFlow:
    """``log sum |theta * dR/dtheta|``, R the sum of the outputs for an image of ones and absolute weights.

    Norms hand on their input as they are before training: in evaluation mode (equation 1 and section 6).
    """

    space: Space
    dataset: Dataset
    seed: int

    def evaluate(self, architecture: Architecture) -> Score:
        """The logarithm."""
        shape = images_of(self.dataset, 1).shape
        with drawn(self.seed, architecture):
            network = self.space.build(architecture).double().eval().requires_grad_(True)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.abs_()
        flow = network(torch.ones(shape, dtype=torch.float64)).sum()
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(flow, parameters, allow_unused=True)
        total = sum(
            float((parameter.detach() * gradient).abs().sum())
            for parameter, gradient in zip(parameters, gradients, strict=True)
            if gradient is not None
        )
        return Score(math.log(total) if total > 0 else -math.inf)
