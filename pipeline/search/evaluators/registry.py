"""Evaluators by the name that a recipe gives: Lathe's own, and those of other installed distributions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from devices.added import added, loaded, owner_of
from pipeline.errors import RecipeError
from pipeline.search.base import Evaluator

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.data.base import Dataset
    from pipeline.distill.settings import DistillationSettings
    from pipeline.distill.targets import SoftTargets
    from pipeline.spaces.base import Space

SHORT_TRAINING = "short-training"
SHARED_WEIGHTS = "shared-weights"
UNTRAINED = ("naswot", "synflow", "relation", "readout")
"""Evaluators that look at untrained networks."""
ENTRY_POINTS = "lathe.evaluators"
"""Group of entry points by which other distributions add evaluators; each names an ``EvaluatorKind``."""


@dataclass(frozen=True)
class EvaluationTask:
    """What an evaluator may use.

    Attributes:
        space: ``space.build(architecture)`` is the untrained candidate.
        dataset: images with labels; of the train split perhaps only a part.
        training: how to train, for an evaluator that does.
        seed: of everything that is drawn.
        teacher: gives the trained teacher, a frozen network from images to logits.
        targets: gives its soft targets on the train split; ``None`` for labels alone.
        shared: gives the weights that all candidates share, with method ``oracle``.
    """

    space: Space
    dataset: Dataset
    training: DistillationSettings
    seed: int
    teacher: Callable[[], nn.Module]
    targets: Callable[[], SoftTargets | None]
    shared: Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True)
class EvaluatorKind:
    """A way to evaluate.

    Attributes:
        make: the evaluator of a task. With more processes than one it travels to them by pickle.
        score: what a score is: an accuracy in 0..1, or a number that only ranks; larger is better.
        images: as a rating, it takes about as long as a training step takes for so many images, or less.
        sees_maps: whether it looks at the teacher's feature maps.
    """

    make: Callable[[EvaluationTask], Evaluator]
    score: Literal["accuracy", "number"] = "number"
    images: int = 128
    sees_maps: bool = False


def _short_training(task: EvaluationTask) -> Evaluator:
    from pipeline.search.evaluators.short_training import DistillationEvaluator

    return DistillationEvaluator(task.space, task.dataset, task.targets(), task.training, task.seed)


def _shared_weights(task: EvaluationTask) -> Evaluator:
    from pipeline.methods.oracle.supernet import SharedWeights
    from pipeline.search.evaluators.shared_weights import SharedWeightsEvaluator
    from pipeline.spaces.add_on.space import AddOnSpace

    assert isinstance(task.space, AddOnSpace)
    network = SharedWeights(task.space, task.seed)
    network.load_state_dict(task.shared())
    return SharedWeightsEvaluator(network, task.dataset)


def _naswot(task: EvaluationTask) -> Evaluator:
    from pipeline.search.evaluators.untrained.naswot import ActivationCodes

    return ActivationCodes(task.space, task.dataset, task.seed)


def _synflow(task: EvaluationTask) -> Evaluator:
    from pipeline.search.evaluators.untrained.synflow import SynapticFlow

    return SynapticFlow(task.space, task.dataset, task.seed)


def _relation(task: EvaluationTask) -> Evaluator:
    from pipeline.search.evaluators.untrained.relation import RelationSimilarity

    return RelationSimilarity(task.space, task.dataset, task.seed, task.teacher())


def _readout(task: EvaluationTask) -> Evaluator:
    from pipeline.search.evaluators.untrained.readout import BlockwiseReadout

    return BlockwiseReadout(task.space, task.dataset, task.seed, task.teacher())


EVALUATORS = {
    SHORT_TRAINING: EvaluatorKind(_short_training, "accuracy"),
    SHARED_WEIGHTS: EvaluatorKind(_shared_weights, "accuracy"),
    "naswot": EvaluatorKind(_naswot, images=64),
    "synflow": EvaluatorKind(_synflow, images=32),
    "relation": EvaluatorKind(_relation, sees_maps=True),
    "readout": EvaluatorKind(_readout, sees_maps=True),
}


def find_evaluator(name: str) -> EvaluatorKind:
    """The evaluator of a name.

    Raises:
        RecipeError: there is none, or its distribution cannot be used; the known ones are listed.
    """
    return EVALUATORS[name] if name in EVALUATORS else _added(name)[0]


def evaluator_version(name: str) -> str:
    """Version of the distribution that added an evaluator; empty for Lathe's own.

    Raises:
        RecipeError: as ``find_evaluator``.
    """
    return "" if name in EVALUATORS else _added(name)[1]


@functools.cache
def _added(name: str) -> tuple[EvaluatorKind, str]:
    known = {entry.name: entry for entry in added(ENTRY_POINTS)}
    if name not in known:
        raise RecipeError(
            f"there is no evaluator '{name}'",
            why=f"known ones are {', '.join(sorted({*EVALUATORS, *known}))}",
            fix="choose one of them, or install the distribution that brings it",
        )
    owner = owner_of(known[name])
    unusable = RecipeError(
        f"the evaluator '{name}' of {owner} cannot be used", fix=f"repair or uninstall {owner}"
    )
    return loaded(known[name], EvaluatorKind, unusable), owner
