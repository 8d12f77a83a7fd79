"""How candidates are evaluated: by the evaluator that the recipe names, closer for the best ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor, nn

from pipeline.data.base import Split
from pipeline.distill.settings import DistillationSettings
from pipeline.distill.targets import SoftTargets
from pipeline.errors import RecipeError
from pipeline.recipe.loading import Recipe
from pipeline.search.base import Evaluator
from pipeline.search.evaluators.registry import (
    EvaluationTask,
    evaluator_version,
    find_evaluator,
)
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, open_teacher, soft_targets
from pipeline.stages.searching.shared import Shared, open_shared
from pipeline.work.canonical import by_digest
from pipeline.work.stage import StageFolder


@dataclass(frozen=True)
class Evaluation:
    """What an evaluator is made from, all that decides its scores.

    Level 0 looks at ``train_limit`` images, level 1 at all of them and with another seed: the best of many
    scores are overestimated, and a second score is not. Where weights are shared nothing is trained, and the
    levels differ in validation images.

    Attributes:
        name: of the evaluator.
        version: of the distribution that brings it.
        teacher: gives soft targets; ``None`` where labels alone are to be learned.
        shared: weights that all candidates share, if the evaluator uses them.
        reward_images: of the validation slice, at level 0; all of them without.
    """

    name: str
    version: str
    plan: SpacePlan
    training: DistillationSettings
    train_limit: int | None
    seed: int
    data: DataSummary = by_digest()
    teacher: TeacherSummary | None = by_digest()
    shared: Shared | None = None
    reward_images: int | None = None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        plan: SpacePlan,
        data: DataSummary,
        teacher: TeacherSummary,
        shared: Shared | None = None,
    ) -> Evaluation:
        """What a recipe asks for.

        Raises:
            RecipeError: there is no such evaluator, or its distribution cannot be used.
        """
        search = recipe.search
        return cls(
            search.evaluator,
            evaluator_version(search.evaluator),
            plan,
            search.training,
            search.train_limit,
            recipe.seed,
            data,
            None if search.reward == "labels" else teacher,
            shared,
            None if shared is None else recipe.oracle.reward_images,
        )

    def by(self, name: str) -> Evaluation:
        """The same by another evaluator, one that does not train.

        Raises:
            RecipeError: as ``of``.
        """
        return replace(self, name=name, version=evaluator_version(name), shared=None)

    @property
    def score(self) -> Literal["accuracy", "number"]:
        """What a score is."""
        return find_evaluator(self.name).score

    def evaluator(self, folder: StageFolder, level: int) -> Evaluator:
        """The evaluator of a fidelity: 0 for all candidates, 1 for the best ones, closer."""
        dataset = open_data(self.data, folder)
        if level == 0:
            train, validation = (
                _limited(split, limit)
                for split, limit in (
                    (dataset.train, self.train_limit),
                    (dataset.validation, self.reward_images),
                )
            )
            dataset = replace(dataset, train=train, validation=validation)

        def teacher() -> nn.Module:
            if self.teacher is None:
                raise RecipeError(
                    f"the evaluator '{self.name}' asks for the teacher",
                    why="reward = 'labels' evaluates without it",
                    fix="remove search.reward from the recipe",
                )
            return open_teacher(self.teacher, folder).module

        def targets() -> SoftTargets | None:
            if self.teacher is None:
                return None
            return soft_targets(self.teacher, folder, dataset, self.training)

        def shared() -> Mapping[str, Tensor]:
            assert self.shared is not None
            return open_shared(self.shared, folder)

        seed = self.seed + level
        return find_evaluator(self.name).make(
            EvaluationTask(self.plan.open(folder), dataset, self.training, seed, teacher, targets, shared)
        )


def _limited(split: Split, limit: int | None) -> Split:
    """The first ``limit`` images; rows come in a random order, so any prefix is a fair sample."""
    return split if limit is None else split.take(np.arange(min(limit, len(split))))
