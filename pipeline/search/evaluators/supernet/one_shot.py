"""One-shot rating: accuracy of a member with weights that all members share, trained by distillation."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

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

    Each batch goes through the member with the most parameters, which learns labels and soft targets, and
    through the one with the fewest and some drawn uniformly, which learn what the first one says.

    Raises:
        TrainingDiverged: the loss is not finite.
    """
    weights = SharedWeights(space, seed)
    largest, smallest = (space.extreme(_parameters(space), largest=each) for each in (True, False))
    labels = torch.from_numpy(dataset.train.labels)

    def losses(images: Tensor, rows: Tensor, chance: random.Random) -> Iterator[Tensor]:
        logits = weights.run(weights.placed(largest), images)
        with torch.no_grad():
            taught = teacher(images)
        yield 0.1 * functional.cross_entropy(logits, labels[rows]) + 0.9 * _divergence(logits, taught)
        said = logits.detach()
        for member in (smallest, *(space.sample(chance) for _ in range(_DRAWN))):
            yield _divergence(weights.run(weights.placed(member), images), said)

    history = train(weights, losses, dataset, settings, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch)
    return weights, history


@dataclass(frozen=True)
class OneShotEvaluator:
    """Minus the cross-entropy on images of the validation slice; it tells members apart that are right alike.

    BatchNorm has the statistics of the images that are looked at.
    """

    space: Space
    dataset: Dataset
    settings: SupernetSettings
    weights: SharedWeights

    @cached_property
    def _images(self) -> Tensor:
        images = self.dataset.validation.images[: self.settings.score_images]
        given = to_tensor(images, self.dataset.preprocessing)
        return given.contiguous(memory_format=torch.channels_last)

    def evaluate(self, architecture: Architecture) -> Score:
        """The mean, with one standard error over images."""
        with torch.no_grad():
            logits = self.weights.run(self.weights.placed(architecture), self._images)
        labels = torch.from_numpy(self.dataset.validation.labels[: len(self._images)])
        each = functional.cross_entropy(logits, labels, reduction="none")
        return Score(-float(each.mean()), float(each.std()) / math.sqrt(len(each)))


def _divergence(logits: Tensor, said: Tensor) -> Tensor:
    """Of softened outputs, by the batch, times the square of the temperature."""
    ours, theirs = (functional.log_softmax(each / _TEMPERATURE, dim=1) for each in (logits, said))
    return functional.kl_div(ours, theirs, log_target=True, reduction="batchmean") * _TEMPERATURE**2


def _parameters(space: Space) -> Callable[[Block], float]:
    """What counts the parameters of a block."""
    known: dict[Block, float] = {}

    def count(block: Block) -> float:
        if block not in known:
            known[block] = float(sum(each.numel() for each in space.build_block(block).parameters()))
        return known[block]

    return count
