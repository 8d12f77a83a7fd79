"""What a block is given and what it is to reproduce, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.methods.dna.cutting import CutTeacher


@dataclass(frozen=True)
class BlockFeatures:
    """Features around one block (counted from 0).

    Attributes:
        teacher: gives what the block is to reproduce, and by default what enters it.
        block: which one; the first takes the images themselves.
        earlier: blocks of the student that give what enters this one instead (the progressive variant).
    """

    teacher: CutTeacher
    block: int
    earlier: Sequence[nn.Module] = ()

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the block and what should leave it, for images ``(N, C, H, W)``; without gradients."""
        *before, target = self.teacher.features(images, self.block + 1)
        if not self.earlier:
            return before[-1] if before else images, target
        features = images
        with torch.no_grad():
            for module in self.earlier:
                features = module.to(images.device)(features)
        return features, target


@dataclass(frozen=True)
class ScoreSet:
    """What all paths of a block are evaluated on; it stays in memory while they are.

    Attributes:
        calibration: what enters the block, of the images from which BatchNorm's statistics are computed.
        inputs: what enters it, of the score images.
        targets: the teacher's features at its end, of the score images.
        sigma: standard deviation of ``targets``, over all elements.
    """

    calibration: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    sigma: float

    @classmethod
    def of(cls, features: BlockFeatures, calibration: Iterable[Tensor], score: Iterable[Tensor]) -> ScoreSet:
        """The features of these batches of images."""
        pairs = [features(images) for images in score]
        targets = tuple(target for _, target in pairs)
        return cls(
            tuple(features(images)[0] for images in calibration),
            tuple(inputs for inputs, _ in pairs),
            targets,
            standard_deviation(targets),
        )


def standard_deviation(batches: Sequence[Tensor]) -> float:
    """Of all elements of all batches, in double precision."""
    count = sum(batch.numel() for batch in batches)
    mean = sum(float(batch.double().sum()) for batch in batches) / count
    squares = sum(float((batch.double() - mean).square().sum()) for batch in batches)
    return float((squares / count) ** 0.5)
