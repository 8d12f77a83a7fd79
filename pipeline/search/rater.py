"""Rates an architecture by what the teacher can teach it in a short time (after AKD, 1911.09074)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from devices.digests import value_digest
from pipeline.data.base import Dataset
from pipeline.distill.settings import TrainingSettings
from pipeline.distill.targets import SoftTargets
from pipeline.distill.training import fit
from pipeline.search.base import Rating
from pipeline.spaces.base import Architecture, Space


@dataclass(frozen=True)
class DistillationRater:
    """Validation accuracy after a short distillation from fresh weights.

    Weights and order of batches follow from ``seed`` and the architecture alone, so a rating does not depend
    on which architectures were rated before. Torch's global generator is left as it was.
    """

    space: Space
    dataset: Dataset
    targets: SoftTargets
    settings: TrainingSettings
    seed: int

    def rate(self, architecture: Architecture) -> Rating:
        """Accuracy in 0..1 with its binomial standard error over the validation slice.

        Raises:
            TrainingDiverged: the loss became NaN or infinite.
        """
        seed = int(value_digest([self.seed, architecture.identity])[:8], 16)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            student = self.space.build(architecture)
            result = fit(student, self.dataset, self.settings, seed=seed, targets=self.targets)
        share = result.best_validation_accuracy
        return Rating(share, math.sqrt(share * (1 - share) / len(self.dataset.validation)))
