"""How candidates are evaluated: by a short training with the teacher's soft targets, or by labels alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from pipeline.data.base import Dataset
from pipeline.distill.settings import DistillationSettings
from pipeline.search.base import Evaluator
from pipeline.stages.data import DataSummary, open_data
from pipeline.stages.space import SpacePlan
from pipeline.stages.teacher import TeacherSummary, soft_targets
from pipeline.work.canonical import by_digest
from pipeline.work.stage import StageFolder


class Evaluation(Protocol):
    """What an evaluator is made from: a frozen dataclass that holds all that decides its scores."""

    def evaluator(self, folder: StageFolder, level: int) -> Evaluator:
        """The evaluator of a fidelity: 0 for all candidates, 1 for the best ones, closer."""
        ...


@dataclass(frozen=True)
class ShortTraining:
    """Level 0 trains on ``train_limit`` images, level 1 on all of them and from other weights.

    The best of many short scores are overestimated, and a second score is not.

    Attributes:
        teacher: gives soft targets; labels alone are learned without one.
    """

    plan: SpacePlan
    training: DistillationSettings
    train_limit: int | None
    seed: int
    data: DataSummary = by_digest()
    teacher: TeacherSummary | None = by_digest()

    def evaluator(self, folder: StageFolder, level: int) -> Evaluator:
        """The evaluator of a level."""
        from pipeline.search.evaluators.short_training import DistillationEvaluator

        dataset = open_data(self.data, folder)
        if level == 0:
            dataset = _limited(dataset, self.train_limit)
        targets = None
        if self.teacher is not None:
            targets = soft_targets(self.teacher, folder, dataset, self.training)
        return DistillationEvaluator(self.plan.space, dataset, targets, self.training, self.seed + level)


def _limited(dataset: Dataset, limit: int | None) -> Dataset:
    """The first ``limit`` train images; rows come in a random order, so any prefix is a fair sample."""
    if limit is None:
        return dataset
    return replace(dataset, train=dataset.train.take(np.arange(min(limit, len(dataset.train)))))
