"""One network with the weights of every member of an add-on space; each candidate is a path through it."""

from __future__ import annotations

import itertools
import random

import torch
from torch import Tensor, nn

from pipeline.spaces.add_on.layers import AddOn, wired
from pipeline.spaces.add_on.space import SOURCES, AddOnChoice, AddOnSpace
from pipeline.spaces.base import Architecture, Block

_SEED_STEP = 1_000_003


class SharedWeights(nn.Module):
    """The backbone, and every operation of every layer once for each source.

    In training each batch goes through a path that is drawn uniformly (single path, as 1904.00420), so that
    no path is favoured before there are scores. In eval mode the path is that of ``architecture``. BatchNorm
    uses the statistics of the batch in both modes: those of one path are wrong for another.

    Args:
        space: whose members are the paths.
        seed: of the paths in training. Weights come from torch's global generator.

    Attributes:
        architecture: the path of the eval mode; at first the bare backbone.
    """

    _steps: Tensor

    def __init__(self, space: AddOnSpace, seed: int) -> None:
        super().__init__()
        self.architecture = space.reference()
        self._space, self._seed = space, seed
        self.stem = space.build_block(space.stem())
        self.layers = nn.ModuleList(_SharedLayer(space, block) for block in space.backbone)
        self.classifier = space.build_block(space.classifier())
        # In the state, so that a training that goes on from a checkpoint draws what it would have drawn.
        self.register_buffer("_steps", torch.zeros((), dtype=torch.int64))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                _use_statistics_of_batch(module)

    def forward(self, images: Tensor) -> Tensor:
        """``(N, C, H, W)`` to logits ``(N, classes)``, by one path."""
        path = self._drawn() if self.training else self.architecture
        # A batch of one may have one value for each channel, of which there are no statistics.
        features = self.stem(images if len(images) > 1 else images.repeat(2, 1, 1, 1))
        for layer, choice in zip(self.layers, self._space.choices(path), strict=True):
            features = layer(features, choice)
        logits: Tensor = self.classifier(features)
        return logits[: len(images)]

    def _drawn(self) -> Architecture:
        path = self._space.sample(random.Random(self._seed * _SEED_STEP + int(self._steps)))
        self._steps += 1
        return path


class _SharedLayer(nn.Module):
    """A block of the backbone, and one set of weights for each operation and source, whatever the join."""

    def __init__(self, space: AddOnSpace, block: Block) -> None:
        super().__init__()
        self.block = space.build_block(block)
        add_ons = {}
        for source, operation in itertools.product(SOURCES, space.config.operations):
            added = space.add_on(block, AddOnChoice(operation, source))
            assert added is not None
            add_ons[f"{operation}-{source}"] = space.build_block(added)
        self.add_ons = nn.ModuleDict(add_ons)

    def forward(self, features: Tensor, choice: AddOnChoice) -> Tensor:
        name = f"{choice.operation}-{choice.source}"
        if name not in self.add_ons:
            result: Tensor = self.block(features)
            return result
        add_on = self.add_ons[name]
        assert isinstance(add_on, AddOn)
        return wired(self.block, add_on, features, source=choice.source, join=choice.join)


def _use_statistics_of_batch(norm: nn.BatchNorm2d) -> None:
    norm.track_running_stats = False
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        norm.register_buffer(name, None)
