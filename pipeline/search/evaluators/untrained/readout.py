"""Block-wise linear readout: what linear maps of untrained blocks do not explain of a teacher's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset
from pipeline.search.base import Score
from pipeline.search.evaluators.aligned import Size, TeacherMaps, of_size, stages_of
from pipeline.search.evaluators.untrained.networks import drawn, images_of, without_gradients
from pipeline.spaces.base import Architecture, Space

_IMAGES, _PIXELS, _RIDGE = 32, 4096, 0.01


@dataclass(frozen=True)
class BlockwiseReadout:
    """The share of variance that ridge regression leaves over, summed over stages.

    A stage is what lies between the teacher's last maps of two sizes. It is fed the map of the size before;
    where the teacher has other channels than the student, a random orthogonal map of them. Its outputs are
    regressed on the teacher's last map of its own size, per pixel, on one half of the pixels; the residual is
    that of the other half, over the variance, mean over channels.

    More left over was better in the spaces looked at, against expectation (docs/results/raters.md): it tells
    how strongly a random stage mixes. So the value is a number to learn from, not a goal.
    """

    space: Space
    dataset: Dataset
    seed: int
    teacher: nn.Module

    @cached_property
    def _features(self) -> Mapping[Size, Tensor]:
        """The images, and the teacher's last map of every size."""
        images = images_of(self.dataset, _IMAGES)
        return TeacherMaps(self.teacher, images)(images)

    def evaluate(self, architecture: Architecture) -> Score:
        """The sum over all stages whose size the teacher has.

        Raises:
            TeacherError: there is none.
        """
        found, features = 0.0, self._features
        with drawn(self.seed, architecture), torch.no_grad():
            blocks = self.space.blocks(architecture)
            for stage in stages_of(blocks, features.keys()):
                own = blocks[stage.blocks]
                given = _as_wide(features[stage.before], own[0].input_shape)
                for block in own:
                    given = without_gradients(self.space.build_block(block))(given)
                found += left_over(given, features[stage.size], self.seed)
        return Score(found)


def _as_wide(features: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The features with so many channels, and as high and wide as a block expects them."""
    channels, height, width = shape
    if features.shape[1] != channels:
        wide = max(channels, features.shape[1])
        rotation = torch.linalg.qr(torch.randn(wide, wide))[0][:channels, : features.shape[1]]
        features = torch.einsum("oc,nchw->nohw", rotation, features)
    return of_size(features, (height, width))


def left_over(ours: Tensor, theirs: Tensor, seed: int) -> float:
    """Residual variance of a ridge regression from ``ours`` to ``theirs``, ``(N, channels, H, W)`` each.

    The ridge is ``_RIDGE`` times the number of pixels, over features that are standardised after a ReLU.
    """
    inputs, targets = (each.movedim(1, -1).flatten(0, 2).double() for each in (ours.relu(), theirs))
    chosen = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))[:_PIXELS]
    inputs, targets = inputs[chosen], targets[chosen]
    inputs = (inputs - inputs.mean(0)) / inputs.std(0).clamp(min=1e-6)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1, dtype=inputs.dtype)], dim=1)
    half = len(inputs) // 2
    known, asked = inputs[:half], inputs[half:]
    ridge = _RIDGE * half * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    weights = torch.linalg.solve(known.T @ known + ridge, known.T @ targets[:half])
    residual = (targets[half:] - asked @ weights).var(0)
    return float((residual / targets[half:].var(0).clamp(min=1e-12)).mean())
