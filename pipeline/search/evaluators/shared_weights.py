"""Evaluates an architecture by its accuracy with weights that all architectures share (1911.13019, ENAS)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.data.base import Dataset
from pipeline.distill.training import accuracy
from pipeline.methods.oracle.supernet import SharedWeights
from pipeline.search.base import Score
from pipeline.spaces.base import Architecture


@dataclass(frozen=True)
class SharedWeightsEvaluator:
    """Validation accuracy of a path through trained shared weights; nothing is trained.

    BatchNorm uses the statistics of each batch of validation images. All candidates see the same images.
    """

    network: SharedWeights
    dataset: Dataset

    def evaluate(self, architecture: Architecture) -> Score:
        """Accuracy in 0..1 with its binomial standard error over the validation images."""
        self.network.architecture = architecture
        share = accuracy(self.network, self.dataset.validation, self.dataset.preprocessing)
        return Score(share, math.sqrt(share * (1 - share) / len(self.dataset.validation)))
