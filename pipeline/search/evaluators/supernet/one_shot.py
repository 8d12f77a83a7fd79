"""One-shot rating: how closely a member says what the teacher says, with weights that all members share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset
from pipeline.data.tensors import to_tensor
from pipeline.search.base import Score
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.search.evaluators.supernet.training import OnEpoch, train
from pipeline.search.evaluators.supernet.weights import SharedWeights
from pipeline.spaces.base import Architecture, Block, Space

_DRAWN, _TEMPERATURE = 2, 4.0


def train_one_shot(
    space: Space,
    dataset: Dataset,
    settings: SupernetSettings,
    *,
    seed: int,
    teacher: nn.Module,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[SharedWeights, list[float]]:
    """Train by the sandwich rule with in-place distillation (BigNAS, 2003.11142, section 3.1).

    Each batch goes through the member with the most parameters, which learns what the teacher says (and not,
    as there, what the labels say), and through the one with the fewest and some drawn uniformly, which learn
    what the first one says.

    Raises:
        TrainingDiverged: the loss is not finite.
    """
    weights = SharedWeights(space, seed)
    largest, smallest = (space.extreme(_parameters(space), largest=each) for each in (True, False))

    def losses(images: Tensor, rows: Tensor, chance: random.Random) -> Iterator[Tensor]:
        with torch.no_grad():
            taught = teacher(images)[None]
        outputs = weights.run(weights.placed(largest), images)
        yield dataset.task.teacher_loss(outputs, taught, _TEMPERATURE)
        said = outputs.detach()[None]
        for member in (smallest, *(space.sample(chance) for _ in range(_DRAWN))):
            found = weights.run(weights.placed(member), images)
            yield dataset.task.teacher_loss(found, said, _TEMPERATURE)

    history = train(weights, losses, dataset, settings, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch)
    return weights, history


@dataclass(frozen=True)
class OneShotEvaluator:
    """Minus the loss against the teacher on images of the validation slice, as the task defines it.

    It tells members apart that are right as often. BatchNorm has the statistics of the images that are looked
    at.
    """

    space: Space
    dataset: Dataset
    settings: SupernetSettings
    teacher: nn.Module
    weights: SharedWeights

    @cached_property
    def _given(self) -> tuple[Tensor, Tensor]:
        """Images, and what the teacher says of them."""
        chosen = self.dataset.validation.images[: self.settings.score_images]
        images = to_tensor(chosen, self.dataset.preprocessing)
        with torch.no_grad():
            return images.contiguous(memory_format=torch.channels_last), self.teacher(images)[None]

    def evaluate(self, architecture: Architecture) -> Score:
        """The mean over images."""
        images, taught = self._given
        with torch.no_grad():
            outputs = self.weights.run(self.weights.placed(architecture), images)
            return Score(-float(self.dataset.task.teacher_loss(outputs, taught, _TEMPERATURE)))


def _parameters(space: Space) -> Callable[[Block], float]:
    """What counts the parameters of a block."""
    known: dict[Block, float] = {}

    def count(block: Block) -> float:
        if block not in known:
            known[block] = float(sum(each.numel() for each in space.build_block(block).parameters()))
        return known[block]

    return count
