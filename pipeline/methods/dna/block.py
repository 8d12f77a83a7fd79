"""One block of DNA as two stages: its supernets are trained, then all their paths are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from devices.digests import value_digest
from pipeline.data.base import Dataset, Split
from pipeline.data.tensors import batches_of
from pipeline.distill.training import training_device
from pipeline.methods.dna.cutting import CutTeacher
from pipeline.methods.dna.features import BlockFeatures, ScoreSet
from pipeline.methods.dna.result import BlockScores, CellScores
from pipeline.methods.dna.scoring import calibrate, score_paths
from pipeline.methods.dna.settings import DnaSettings
from pipeline.methods.dna.supernet import Supernet, block_supernets
from pipeline.methods.dna.train import BlockTraining
from pipeline.spaces.dna.config import CellConfig, DnaBlockConfig
from pipeline.spaces.dna.space import DnaSpace
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.folder import WorkFolder
from pipeline.work.stage import StageFolder, stage

_CHECKPOINT = "checkpoint.safetensors"
_SCORE_ONLY = ("inputs", "measure", "recalibrate", "score_images", "calibration_images")
_NOTHING = DnaBlockConfig(cells=(CellConfig(depth=1, width=1),))


@dataclass(frozen=True)
class BlockInput:
    """All that decides how the supernets of a block are trained.

    Attributes:
        space: the student's, up to this block, which is its last, with all that has a part in it.
        settings: those that have no part in it have their defaults.
        seed: of everything drawn.
        teacher: cut into as many blocks as the whole space has.
        dataset: its train split is used.
    """

    space: DnaSpace
    settings: DnaSettings
    seed: int
    teacher: CutTeacher = by_digest()
    dataset: Dataset = by_digest()

    @property
    def block(self) -> int:
        """Which block, counted from 0."""
        return len(self.space.config.blocks) - 1

    @property
    def progressive(self) -> bool:
        """The best paths of the blocks before it give what enters it."""
        return self.settings.inputs == "student"

    def drawn(self, use: str) -> int:
        """The seed of one use."""
        return int(value_digest([self.seed, self.block, use])[:8], 16)

    def slices(self, score_images: int | None = None) -> tuple[Split, Split]:
        """What is trained on, and what is held out for the scores: the same in all blocks."""
        train = self.dataset.train
        held = min(max(round(self.settings.score_share * len(train)), 1), len(train) - 1)
        return train.after(held), train.first(held if score_images is None else min(held, score_images))


@dataclass(frozen=True)
class BlockScoresInput:
    """All that decides the scores of a block: its training, and how it is evaluated."""

    training: BlockInput
    settings: DnaSettings

    @classmethod
    def of(
        cls,
        space: DnaSpace,
        teacher: CutTeacher,
        dataset: Dataset,
        settings: DnaSettings,
        *,
        seed: int,
        block: int,
    ) -> BlockScoresInput:
        """Of a block of a space, counted from 0; the teacher has as many blocks as the space at least."""
        alone = block == 0 or settings.inputs == "teacher"
        trained = BlockInput(
            _up_to(space, block, alone=alone),
            _of_training(settings) if alone else settings,
            seed,
            teacher,
            dataset,
        )
        return cls(trained, settings)


@dataclass(frozen=True)
class TrainedBlock:
    """The mean loss of every epoch, and the weights of the supernets of all cells."""

    losses: tuple[float, ...]
    weights: StoredFile


@stage("block-training", packages=("torch",))
def train_block(given: BlockInput, folder: StageFolder, work: WorkFolder) -> TrainedBlock:
    """Train the supernets of a block; goes on from the last finished epoch.

    Raises:
        DnaError: training diverged.
        WorkFolderError: the checkpoint is damaged.
    """
    features = BlockFeatures(given.teacher, given.block, _earlier(given, work))
    _, losses = _fitted(given, features, folder / _CHECKPOINT)
    return TrainedBlock(tuple(losses), folder.stored(_CHECKPOINT))


@stage("block-scores", packages=("torch",))
def score_block(given: BlockScoresInput, folder: StageFolder, work: WorkFolder) -> BlockScores:
    """Evaluate all paths of a block, which is trained first.

    Raises:
        DnaError: training diverged.
        TeacherError: the teacher's features do not vary.
    """
    features = BlockFeatures(given.training.teacher, given.training.block, _earlier(given.training, work))
    cells, losses = _trained(given.training, features, work)
    images = _score_set(given, features)
    evaluated = []
    for config, cell in zip(given.training.space.config.blocks[-1].cells, cells, strict=True):
        values = score_paths(
            cell.to(training_device()),
            images,
            measure=given.settings.measure,
            recalibrate=given.settings.recalibrate,
        )
        evaluated.append(CellScores(config.name, tuple(values.ravel().tolist())))
    return BlockScores(images.sigma, losses, tuple(evaluated))


def supernets(given: BlockInput) -> list[Supernet]:
    """Of all cells of the block, as they are before training."""
    shapes = (given.space.input_shape, *given.teacher.shapes)
    inputs, outputs = shapes[given.block : given.block + 2]
    return block_supernets(given.space, given.block, inputs, outputs, given.drawn("weights"))


def training_of(given: BlockInput, epochs: int | None = None) -> BlockTraining:
    """How the block is trained; for as many epochs as its settings say unless given."""
    edge = given.block in (0, len(given.teacher.shapes) - 1)
    rate = given.settings.edge_learning_rate if edge else given.settings.learning_rate
    settings = given.settings.model_copy(update={} if epochs is None else {"epochs": epochs})
    return BlockTraining(settings, rate, given.drawn("training"))


def _up_to(space: DnaSpace, block: int, *, alone: bool) -> DnaSpace:
    """The space without what follows a block and, if it is trained alone, without what comes before it."""
    config = space.config
    own = config.blocks[block]
    cut: dict[str, Any] = {"blocks": config.blocks[: block + 1], "head_width": 1}
    if alone and block:
        cut |= {"blocks": (_NOTHING,) * block + (own,), "stem_width": 1, "stem_stride": 1}
    return DnaSpace(config.model_copy(update=cut), space.input_shape, space.classes)


def _of_training(settings: DnaSettings) -> DnaSettings:
    """Without what has no part in training a block alone: how blocks are evaluated."""
    defaults = {name: DnaSettings.model_fields[name].default for name in _SCORE_ONLY}
    return settings.model_copy(update=defaults)


def _trained(
    given: BlockInput, features: BlockFeatures, work: WorkFolder
) -> tuple[list[Supernet], tuple[float, ...]]:
    """The supernets of all cells, and the losses of training, which is done once."""
    trained = work.run(train_block, given, work)
    # The finished checkpoint gives the weights back without training.
    cells, _ = _fitted(given, features, work.find(trained.weights))
    return cells, trained.losses


def _fitted(
    given: BlockInput, features: BlockFeatures, checkpoint: Path
) -> tuple[list[Supernet], Sequence[float]]:
    cells = supernets(given)
    train, _ = given.slices()
    preprocessing = given.dataset.preprocessing
    losses = training_of(given).run(cells, features, train, preprocessing, checkpoint=checkpoint)
    return cells, losses


def _score_set(given: BlockScoresInput, features: BlockFeatures) -> ScoreSet:
    settings, preprocessing = given.settings, given.training.dataset.preprocessing
    train, held_out = given.training.slices(settings.score_images)
    calibration = train.first(settings.calibration_images)
    device = training_device()
    return ScoreSet.of(
        features,
        # A batch of one has no variance.
        (
            batch.to(device)
            for batch in batches_of(calibration, preprocessing, settings.batch_size)
            if len(batch) > 1
        ),
        (batch.to(device) for batch in batches_of(held_out, preprocessing, settings.batch_size)),
    )


def _earlier(given: BlockInput, work: WorkFolder) -> tuple[nn.Module, ...]:
    """In the progressive variant the best paths of the blocks before this one, frozen; else nothing."""
    if not given.progressive:
        return ()
    before = BlockScoresInput.of(
        given.space, given.teacher, given.dataset, given.settings, seed=given.seed, block=given.block - 1
    )
    earlier = _earlier(before.training, work)
    return (*earlier, *_best_path(before, earlier, work))


def _best_path(given: BlockScoresInput, earlier: tuple[nn.Module, ...], work: WorkFolder) -> list[nn.Module]:
    scores = work.run(score_block, given, work)
    features = BlockFeatures(given.training.teacher, given.training.block, earlier)
    cells, _ = _trained(given.training, features, work)
    best = min(range(len(cells)), key=lambda index: min(scores.cells[index].values))
    values = np.array(scores.cells[best].values)
    place = np.unravel_index(values.argmin(), cells[best].choices)
    supernet = cells[best].to(training_device())
    modules = supernet.path_modules(tuple(int(index) for index in place))
    calibrate(modules, _score_set(given, features).calibration)
    return [module.requires_grad_(False).eval() for module in modules]
