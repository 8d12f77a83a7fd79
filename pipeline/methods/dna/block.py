"""One block of DNA: trained, evaluated, and kept in a folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from devices.digests import value_digest
from pipeline.data.base import Dataset, Split
from pipeline.data.splits import stratified_split
from pipeline.data.tensors import batches_of
from pipeline.distill.training import training_device
from pipeline.methods.dna.cutting import CutTeacher
from pipeline.methods.dna.features import BlockFeatures, ScoreSet
from pipeline.methods.dna.result import BlockScores, CellScores
from pipeline.methods.dna.scoring import calibrate, score_paths
from pipeline.methods.dna.settings import DnaSettings
from pipeline.methods.dna.supernet import Supernet, block_supernets
from pipeline.methods.dna.train import BlockTraining
from pipeline.spaces.dna.space import DnaSpace
from pipeline.work.folder import WorkFolder

_SCORE_ONLY = {"measure", "recalibrate", "score_images", "calibration_images"}


@dataclass(frozen=True)
class _Losses:
    by_epoch: tuple[float, ...]


@dataclass(frozen=True)
class BlockTask:
    """All that decides the scores of one block, and where they are kept; travels to other processes.

    Attributes:
        space: of the student.
        teacher: cut into as many blocks.
        dataset: its train split is used.
        settings: of training and score.
        folder: a work folder, absolute.
        seed: of everything drawn.
        block: which one, counted from 0.
    """

    space: DnaSpace
    teacher: CutTeacher
    dataset: Dataset
    settings: DnaSettings
    folder: Path
    seed: int
    block: int

    def scores(self) -> BlockScores:
        """Of all paths; computed if the folder does not hold them, and trained for if it must be."""
        inputs = {"training": self._training_inputs(), "settings": self.settings.model_dump(mode="json")}
        return WorkFolder(self.folder).keep(f"{self._name}-scores", inputs, BlockScores, self._rate).value

    @property
    def _name(self) -> str:
        return f"block{self.block + 1}"

    def _training_inputs(self) -> dict[str, Any]:
        config = self.space.config
        # How a block is evaluated does not change how it is trained, unless the scores of others enter it.
        unused = _SCORE_ONLY if self.settings.inputs == "teacher" or self.block == 0 else set()
        return {
            "teacher": self.teacher.digest,
            "data": self.dataset.digest,
            "settings": self.settings.model_dump(mode="json", exclude=unused),
            "stem": [config.stem_width, config.stem_stride],
            # The blocks before this one count where their features enter it.
            "blocks": [each.model_dump(mode="json") for each in config.blocks[: self.block + 1]],
            "seed": self.seed,
            "torch": torch.__version__,
        }

    def _rate(self, folder: Path) -> BlockScores:
        features = BlockFeatures(self.teacher, self.block, self._earlier())
        cells, losses = self._trained(features)
        images = self._score_set(features)
        evaluated = []
        for config, cell in zip(self.space.config.blocks[self.block].cells, cells, strict=True):
            values = score_paths(
                cell.to(training_device()),
                images,
                measure=self.settings.measure,
                recalibrate=self.settings.recalibrate,
            )
            evaluated.append(CellScores(config.name, tuple(values.ravel().tolist())))
        return BlockScores(images.sigma, losses, tuple(evaluated))

    def _trained(self, features: BlockFeatures) -> tuple[list[Supernet], tuple[float, ...]]:
        """The supernets of all cells, and the losses of training, which is done once."""
        work, name = WorkFolder(self.folder), f"{self._name}-training"
        train = partial(self._train, features)
        kept = work.keep(name, self._training_inputs(), _Losses, lambda folder: _Losses(train(folder)[1]))
        # The finished checkpoint gives the weights back without training.
        return train(kept.folder)[0], kept.value.by_epoch

    def _train(self, features: BlockFeatures, folder: Path) -> tuple[list[Supernet], tuple[float, ...]]:
        shapes = (self.space.input_shape, *self.teacher.shapes)
        inputs, outputs = shapes[self.block : self.block + 2]
        cells = block_supernets(self.space, self.block, inputs, outputs, self._seed("weights"))
        edge = self.block in (0, len(self.teacher.shapes) - 1)
        rate = self.settings.edge_learning_rate if edge else self.settings.learning_rate
        losses = BlockTraining(self.settings, rate, self._seed("training")).run(
            cells,
            features,
            self._slices()[0],
            self.dataset.preprocessing,
            checkpoint=folder / "checkpoint.safetensors",
        )
        return cells, tuple(losses)

    def _score_set(self, features: BlockFeatures) -> ScoreSet:
        train, held_out = self._slices()
        calibration = train.take(np.arange(min(len(train), self.settings.calibration_images)))
        size, preprocessing = self.settings.batch_size, self.dataset.preprocessing
        device = training_device()
        return ScoreSet.of(
            features,
            # A batch of one has no variance.
            (batch.to(device) for batch in batches_of(calibration, preprocessing, size) if len(batch) > 1),
            (batch.to(device) for batch in batches_of(held_out, preprocessing, size)),
        )

    def _slices(self) -> tuple[Split, Split]:
        """What is trained on, and what is held out for the scores: the same in all blocks."""
        train = self.dataset.train
        kept, held = stratified_split(
            train.labels, self.settings.score_share, self.dataset.classes, seed=self.seed
        )
        return train.take(kept), train.take(held[: self.settings.score_images])

    def _earlier(self) -> tuple[nn.Module, ...]:
        """In the progressive variant the best paths of the blocks before this one, frozen; else nothing."""
        if self.settings.inputs == "teacher" or self.block == 0:
            return ()
        before = replace(self, block=self.block - 1)
        earlier = before._earlier()
        return (*earlier, *before._best_path(earlier))

    def _best_path(self, earlier: tuple[nn.Module, ...]) -> list[nn.Module]:
        scores = self.scores()
        features = BlockFeatures(self.teacher, self.block, earlier)
        cells, _ = self._trained(features)
        best = min(range(len(cells)), key=lambda index: min(scores.cells[index].values))
        values = np.array(scores.cells[best].values)
        place = np.unravel_index(values.argmin(), cells[best].choices)
        supernet = cells[best].to(training_device())
        modules = supernet.path_modules(tuple(int(index) for index in place))
        calibrate(modules, self._score_set(features).calibration)
        return [module.requires_grad_(False).eval() for module in modules]

    def _seed(self, use: str) -> int:
        return int(value_digest([self.seed, self.block, use])[:8], 16)
