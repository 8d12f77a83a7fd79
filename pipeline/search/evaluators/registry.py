"""Evaluators by the name that a recipe gives: Lathe's own, and those of other installed distributions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from devices.added import added, loaded, owner_of
from devices.words import nearest
from pipeline.errors import RecipeError
from pipeline.search.base import Evaluator

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from pipeline.data.base import Dataset
    from pipeline.distill.settings import DistillationSettings
    from pipeline.distill.targets import SoftTargets
    from pipeline.search.evaluators.supernet.settings import SupernetSettings
    from pipeline.search.evaluators.supernet.training import OnEpoch
    from pipeline.search.evaluators.supernet.weights import SharedWeights
    from pipeline.spaces.base import Space

SHORT_TRAINING = "short-training"
SHARED_WEIGHTS = "shared-weights"
TRAINED = frozenset({SHORT_TRAINING, SHARED_WEIGHTS})
"""Evaluators that are no ratings: they take too long to be asked for more candidates than are evaluated."""
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
        supernet: how weights that all candidates share are trained, for an evaluator that has some.
        shared: gives these weights, trained.
    """

    space: Space
    dataset: Dataset
    training: DistillationSettings
    seed: int
    teacher: Callable[[], nn.Module]
    targets: Callable[[], SoftTargets | None]
    supernet: SupernetSettings
    shared: Callable[[], Mapping[str, Tensor]]


Trained = tuple["Mapping[str, Tensor]", list[float]]
"""Weights by name, and the loss of each epoch."""

TrainShared = Callable[[EvaluationTask, "Path", "OnEpoch"], Trained]


@dataclass(frozen=True)
class EvaluatorKind:
    """A way to evaluate.

    Attributes:
        make: the evaluator of a task. With more processes than one it travels to them by pickle.
        score: what a score is: an accuracy in 0..1, or a number that only ranks; larger is better.
        images: as a rating, it takes about as long as a training step takes for so many images, or less.
        sees_maps: whether it looks at the teacher's feature maps.
        train: trains the weights that candidates share, once before the search; ``make`` finds them in
            ``task.shared``. It gets a file to write after every epoch and to go on from, and gives the
            weights with the loss of each epoch.
    """

    make: Callable[[EvaluationTask], Evaluator]
    score: Literal["accuracy", "number"] = "number"
    images: int = 128
    sees_maps: bool = False
    train: TrainShared | None = None


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


def _blockwise(task: EvaluationTask) -> Evaluator:
    from pipeline.search.evaluators.supernet.blockwise import BlockwiseEvaluator

    return BlockwiseEvaluator(task.space, task.dataset, task.supernet, task.teacher(), _weights(task))


def _train_blockwise(task: EvaluationTask, checkpoint: Path, on_epoch: OnEpoch) -> Trained:
    from pipeline.search.evaluators.supernet.blockwise import train_blockwise

    return _trained(train_blockwise, task, checkpoint, on_epoch)


def _one_shot(task: EvaluationTask) -> Evaluator:
    from pipeline.search.evaluators.supernet.one_shot import OneShotEvaluator

    return OneShotEvaluator(task.space, task.dataset, task.supernet, task.teacher(), _weights(task))


def _train_one_shot(task: EvaluationTask, checkpoint: Path, on_epoch: OnEpoch) -> Trained:
    from pipeline.search.evaluators.supernet.one_shot import train_one_shot

    return _trained(train_one_shot, task, checkpoint, on_epoch)


def _trained(
    train: Callable[..., tuple[SharedWeights, list[float]]],
    task: EvaluationTask,
    checkpoint: Path,
    on_epoch: OnEpoch,
) -> Trained:
    weights, losses = train(
        task.space,
        task.dataset,
        task.supernet,
        seed=task.seed,
        teacher=task.teacher(),
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    return weights.tensors, losses


def _weights(task: EvaluationTask) -> SharedWeights:
    from pipeline.search.evaluators.supernet.weights import SharedWeights

    weights = SharedWeights(task.space, task.seed)
    weights.load(task.shared())
    weights.freeze()
    return weights


EVALUATORS = {
    SHORT_TRAINING: EvaluatorKind(_short_training, "accuracy"),
    SHARED_WEIGHTS: EvaluatorKind(_shared_weights, "accuracy"),
    "naswot": EvaluatorKind(_naswot, images=64),
    "synflow": EvaluatorKind(_synflow, images=32),
    "relation": EvaluatorKind(_relation, images=64, sees_maps=True),
    "readout": EvaluatorKind(_readout, images=32, sees_maps=True),
    "blockwise": EvaluatorKind(_blockwise, sees_maps=True, train=_train_blockwise),
    "one-shot": EvaluatorKind(_one_shot, train=_train_one_shot),
}


def find_evaluator(name: str) -> EvaluatorKind:
    """The evaluator of a name.

    Raises:
        RecipeError: there is none, or its distribution cannot be used; the known ones are listed.
    """
    return EVALUATORS[name] if name in EVALUATORS else _added(name)[0]


def evaluator_names() -> list[str]:
    """All that there are, Lathe's own and those that distributions add."""
    return sorted({*EVALUATORS, *(entry.name for entry in added(ENTRY_POINTS))})


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
        names = evaluator_names()
        raise RecipeError(
            f"there is no evaluator '{name}'",
            why=f"known ones are {', '.join(names)}{nearest(name, names)}",
            fix="choose one of them, or install the distribution that brings it",
        )
    owner = owner_of(known[name])
    unusable = RecipeError(
        f"the evaluator '{name}' of {owner} cannot be used", fix=f"repair or uninstall {owner}"
    )
    return loaded(known[name], EvaluatorKind, unusable), owner
