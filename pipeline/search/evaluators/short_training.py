"""Evaluates an architecture by a short training: with a teacher (as AKD, 1911.09074) or labels alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from devices.digests import value_digest
from pipeline.data.base import Dataset
from pipeline.distill.settings import DistillationSettings
from pipeline.distill.targets import SoftTargets
from pipeline.distill.training import fit
from pipeline.search.base import Score
from pipeline.spaces.base import Architecture, Space


@dataclass(frozen=True)
class DistillationEvaluator:
    """Validation accuracy after a short distillation from fresh weights, or training with labels alone.

    Weights and order of batches follow from ``seed`` and the architecture alone, so a score does not depend
    on which architectures were evaluated before. Torch's global generator is left as it was.
    """

    space: Space
    dataset: Dataset
    targets: SoftTargets | None
    settings: DistillationSettings
    seed: int

    def evaluate(self, architecture: Architecture) -> Score:
        """The task's metric over the validation slice, of a single label accuracy, with its standard error.

        Raises:
            TrainingDiverged: the loss became NaN or infinite.
        """
        seed = int(value_digest([self.seed, architecture.identity])[:8], 16)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            student = self.space.build(architecture)
            result = fit(student, self.dataset, self.settings, seed=seed, targets=self.targets)
        value = result.best_validation_accuracy
        return Score(value, self.dataset.task.spread(value, len(self.dataset.validation)))
