"""How candidates are evaluated: by the evaluator that the recipe names, closer for the best ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

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
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, open_teacher, soft_targets
from pipeline.stages.searching.shared import Shared, open_shared
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.stage import StageFolder

_ROUNDING = 1e-9


@dataclass(frozen=True)
class TrainedSupernet:
    """Weights that an evaluator trained for all candidates, and the loss of each epoch."""

    weights: StoredFile
    losses: tuple[float, ...]


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
        supernet: how these are trained, if the evaluator itself does that.
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
    shared: Shared | TrainedSupernet | None = None
    supernet: SupernetSettings | None = None
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
            reward_images=None if shared is None else recipe.oracle.reward_images,
        )

    def by(self, name: str, supernet: SupernetSettings | None = None) -> Evaluation:
        """The same by another evaluator, one that trains no candidates.

        Raises:
            RecipeError: as ``of``.
        """
        settings = supernet if find_evaluator(name).train else None
        return replace(self, name=name, version=evaluator_version(name), shared=None, supernet=settings)

    def at(self, fidelity: float) -> Evaluation:
        """The same with a share of the training: fewer epochs, and fewer images where these are not whole."""
        if fidelity == 1:
            return self
        images = min(self.data.counts[0], self.train_limit or self.data.counts[0])
        epochs = math.ceil(fidelity * self.training.epochs - _ROUNDING)
        limit = max(2, round(fidelity * self.training.epochs * images / epochs))
        training = self.training.model_copy(update={"epochs": epochs})
        return replace(self, training=training, train_limit=min(images, limit))

    @property
    def score(self) -> Literal["accuracy", "number"]:
        """What a score is."""
        return find_evaluator(self.name).score

    def evaluator(self, folder: StageFolder, level: int) -> Evaluator:
        """The evaluator of a fidelity: 0 for all candidates, 1 for the best ones, closer."""
        return find_evaluator(self.name).make(self.task(folder, level))

    def task(self, folder: StageFolder, level: int) -> EvaluationTask:
        """What an evaluator of that fidelity may use."""
        dataset = open_data(self.data, folder)
        if level == 0:
            train, validation = (
                split if limit is None else split.first(limit)
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
            return open_shared(self.shared.weights, folder)

        return EvaluationTask(
            self.plan.open(folder),
            dataset,
            self.training,
            self.seed + level,
            teacher,
            targets,
            self.supernet or SupernetSettings(),
            shared,
        )
