"""How a run evaluates candidates: by a short training with the teacher's soft targets, or by labels alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.data.base import Dataset
from pipeline.search.base import Evaluator
from pipeline.stages.context import Context, training_versions
from pipeline.stages.search import Scores
from pipeline.stages.space import Task


def scores_of(context: Context, task: Task) -> Scores:
    """The recipe's way to evaluate.

    Level 0 trains on ``search.train_limit`` images, level 1 on all of them and from other weights: the best
    of many short scores are overestimated, and a second score is not.
    """
    recipe = context.recipe
    settings = recipe.search

    def evaluator(dataset: Dataset, seed: int) -> Evaluator:
        from pipeline.search.evaluators.short_training import DistillationEvaluator

        labels_alone = settings.reward == "labels"
        targets = None if labels_alone else task.teacher.targets(dataset, settings.training.augment)
        return DistillationEvaluator(task.space, dataset, targets, settings.training, seed)

    def make() -> Evaluator:
        from pipeline.search.evaluators.short_training import Levels

        whole = task.data.dataset
        short = evaluator(_limited(whole, settings.train_limit), recipe.seed)
        return Levels((short, evaluator(whole, recipe.seed + 1))) if settings.reevaluated else short

    return Scores(
        make,
        {
            "data": task.data.summary.digest,
            "teacher": task.teacher.summary.digest,
            "versions": training_versions(),
        },
    )


def _limited(dataset: Dataset, limit: int | None) -> Dataset:
    """The first ``limit`` train images; rows come in a random order, so any prefix is a fair sample."""
    if limit is None:
        return dataset
    return replace(dataset, train=dataset.train.take(np.arange(min(limit, len(dataset.train)))))
