"""Block-wise rating (DNA, 1911.13053) for any space: how closely stages imitate the teacher's features."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.data.base import Dataset
from pipeline.data.tensors import batches_of, to_tensor
from pipeline.search.base import Score
from pipeline.search.evaluators.aligned import IMAGE, Size, Stage, TeacherMaps, of_size, stages_of
from pipeline.search.evaluators.supernet.settings import SupernetSettings
from pipeline.search.evaluators.supernet.training import OnEpoch, train
from pipeline.search.evaluators.supernet.weights import Placed, SharedWeights
from pipeline.spaces.base import Architecture, Space

_MAPS_FROM = 2
"""Images with which the teacher's maps are found."""
_MOST_STORED = 2**30
"""Bytes of maps that are kept in memory."""


class Stages:
    """The stages of a space's members, between the teacher's maps, with weights that members share.

    A stage is what lies between the teacher's last maps of two sizes. It is fed the teacher's map of the size
    before. A BatchNorm stands at its end, because later layers would correct the scale of features, and
    where the space has other widths than the teacher, a 1x1 convolution without an activation at either end.
    Members share these, too.

    Args:
        space: whose members are rated.
        teacher: frozen, in eval mode.
        dataset: of its images.
        weights: what members share.
    """

    def __init__(self, space: Space, teacher: nn.Module, dataset: Dataset, weights: SharedWeights) -> None:
        self._space, self._weights = space, weights
        self.maps = TeacherMaps(teacher, to_tensor(dataset.train.images[:_MAPS_FROM], dataset.preprocessing))

    def of(self, architecture: Architecture) -> list[tuple[Stage, tuple[Placed, ...]]]:
        """The stages of a member, with their blocks.

        Raises:
            TeacherError: teacher and member have no maps of one size.
        """
        stages = stages_of(self._space.blocks(architecture), self.maps.sizes)
        placed = self._weights.placed(architecture)
        return [(stage, tuple(placed[stage.blocks])) for stage in stages]

    def imitated(self, stage: Stage, path: Sequence[Placed], features: Mapping[Size, Tensor]) -> Tensor:
        """What a stage makes of the teacher's map before it, in the shape of the teacher's own."""
        channels, *rest = path[0].block.input_shape
        size = (rest[0], rest[1])
        given = of_size(features[stage.before], size)
        if stage.before != IMAGE:
            given = self._as_wide(given, channels, f"into-{stage.size}", size)
        made = self._normal(self._weights.run(path, given), stage.size)
        return self._as_wide(made, features[stage.size].shape[1], f"out-of-{stage.size}", stage.size)

    def _normal(self, features: Tensor, size: Size) -> Tensor:
        channels = features.shape[1]
        widest = max(self._widths.get(size, frozenset()) | {channels})
        scale = self._weights.tensor(f"scale-{size}", lambda: torch.ones(widest))[:channels]
        shift = self._weights.tensor(f"shift-{size}", lambda: torch.zeros(widest))[:channels]
        return functional.batch_norm(features, None, None, scale, shift, training=True)

    def _as_wide(self, features: Tensor, channels: int, name: str, size: Size) -> Tensor:
        widths = self._widths.get(size, frozenset()) | {features.shape[1], channels}
        if len(widths) == 1:
            return features
        widest = max(widths)
        whole = self._weights.tensor(name, lambda: nn.init.orthogonal_(torch.empty(widest, widest)))
        return functional.conv2d(features, whole[:channels, : features.shape[1], None, None])

    @cached_property
    def _widths(self) -> dict[Size, frozenset[int]]:
        """Channels of the maps that the space's blocks take, by their size; images are none."""
        found: dict[Size, set[int]] = {}
        for block in self._space.distinct_blocks():
            if block.input_shape != self._space.input_shape:
                found.setdefault(block.input_shape[1:], set()).add(block.input_shape[0])
        return {size: frozenset(widths) for size, widths in found.items()}


def train_blockwise(
    space: Space,
    dataset: Dataset,
    settings: SupernetSettings,
    *,
    seed: int,
    teacher: nn.Module,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[SharedWeights, list[float]]:
    """Train every stage to give the teacher's maps (section 3.1), one member drawn uniformly for each batch.

    The loss of a stage is the squared difference, averaged over the elements. The gradient of one stage
    reaches no other.

    Raises:
        TrainingDiverged: the loss is not finite.
        TeacherError: teacher and members have no maps of one size.
    """
    weights = SharedWeights(space, seed)
    stages = Stages(space, teacher, dataset, weights)

    maps_of = _maps_of(stages.maps, dataset, settings)

    def losses(images: Tensor, rows: Tensor, chance: random.Random) -> Iterator[Tensor]:
        features = maps_of(images, rows)
        for stage, path in stages.of(space.sample(chance)):
            made = stages.imitated(stage, path, features)
            yield functional.mse_loss(made, features[stage.size])

    history = train(weights, losses, dataset, settings, seed=seed, checkpoint=checkpoint, on_epoch=on_epoch)
    return weights, history


def _maps_of(
    maps: TeacherMaps, dataset: Dataset, settings: SupernetSettings
) -> Callable[[Tensor, Tensor], Mapping[Size, Tensor]]:
    """Gives the maps of a batch and its rows: stored ones where images never change and memory suffices."""
    train = dataset.train
    count = min(settings.train_limit or len(train), len(train))
    one = maps(to_tensor(train.images[:1], dataset.preprocessing))
    values = sum(each.numel() for size, each in one.items() if size != IMAGE)
    if settings.augment != "none" or count * values * 2 > _MOST_STORED:
        return lambda images, rows: maps(images)
    kept = {size: torch.empty(count, *one[size].shape[1:], dtype=torch.float16) for size in maps.sizes}
    start = 0
    for batch in batches_of(train.first(count), dataset.preprocessing):
        found = maps(batch.contiguous(memory_format=torch.channels_last))
        for size, values_of in kept.items():
            values_of[start : start + len(batch)] = found[size]
        start += len(batch)

    def stored(images: Tensor, rows: Tensor) -> Mapping[Size, Tensor]:
        found = {size: values_of[rows].float() for size, values_of in kept.items()}
        return {IMAGE: images} | {
            size: each.contiguous(memory_format=torch.channels_last) for size, each in found.items()
        }

    return stored


@dataclass(frozen=True)
class BlockwiseEvaluator:
    """Minus the sum over stages of the mean absolute difference to the teacher's maps, in their deviations.

    That is equation 6. BatchNorm has the statistics of the images that are looked at, so every member has its
    own.
    """

    space: Space
    dataset: Dataset
    settings: SupernetSettings
    teacher: nn.Module
    weights: SharedWeights
    _known: dict[tuple[Placed, ...], Tensor] = field(default_factory=dict, compare=False)

    @cached_property
    def _stages(self) -> Stages:
        return Stages(self.space, self.teacher, self.dataset, self.weights)

    @cached_property
    def _features(self) -> Mapping[Size, Tensor]:
        images = self.dataset.validation.images[: self.settings.score_images]
        given = to_tensor(images, self.dataset.preprocessing)
        return self._stages.maps(given.contiguous(memory_format=torch.channels_last))

    def evaluate(self, architecture: Architecture) -> Score:
        """The sum, with one standard error over images.

        Raises:
            TeacherError: teacher and member have no maps of one size.
        """
        total = torch.zeros(())
        with torch.no_grad():
            for stage, path in self._stages.of(architecture):
                if path not in self._known:
                    self._known[path] = self._difference(stage, path)
                total = total + self._known[path]
        return Score(-float(total.mean()), float(total.std()) / math.sqrt(len(total)))

    def _difference(self, stage: Stage, path: tuple[Placed, ...]) -> Tensor:
        """Of every image."""
        theirs = self._features[stage.size]
        made = self._stages.imitated(stage, path, self._features)
        return (made - theirs).abs().flatten(1).mean(1) / theirs.std().clamp(min=1e-12)
