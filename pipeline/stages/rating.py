"""How a run rates candidates: by a short training with the teacher's soft targets, or by labels alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.data.base import Dataset
from pipeline.search.base import Rater
from pipeline.stages.context import Context, training_versions
from pipeline.stages.search import Ratings
from pipeline.stages.space import Task


def ratings_of(context: Context, task: Task) -> Ratings:
    """The recipe's way to rate.

    Level 0 trains on ``search.train_limit`` images, level 1 on all of them and from other weights: the best
    of many short ratings are overestimated, and a second rating is not.
    """
    recipe = context.recipe
    settings = recipe.search

    def rater(dataset: Dataset, seed: int) -> Rater:
        from pipeline.search.rater import DistillationRater

        labels_alone = settings.reward == "labels"
        targets = None if labels_alone else task.teacher.targets(dataset, settings.training.augment)
        return DistillationRater(task.space, dataset, targets, settings.training, seed)

    def make() -> Rater:
        from pipeline.search.rater import Levels

        whole = task.data.dataset
        short = rater(_limited(whole, settings.train_limit), recipe.seed)
        return Levels((short, rater(whole, recipe.seed + 1))) if settings.rerated else short

    return Ratings(
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
