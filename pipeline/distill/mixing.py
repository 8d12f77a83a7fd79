"""Mixup and CutMix: images mixed in pairs, with their labels in the same shares.

The teacher is asked about the mixed images, as the student is (function matching, 2106.05237), so its soft
targets need no mixing and stay right.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mixed(
    images: Tensor, labels: Tensor, generator: np.random.Generator, *, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """A batch mixed with another order of itself; where both are wanted, one of them is drawn for the batch.

    Mixup (1710.09412) adds ``share`` of an image and ``1 - share`` of another; CutMix (1905.04899) puts a
    rectangle of another in its place. The share comes from a Beta distribution.

    Args:
        images: ``(N, C, H, W)``.
        labels: ``(N, K)``, such as probabilities of classes.
        generator: draws which, the share, the order and the rectangle.
        mixup: both parameters of the Beta distribution; 0 for none.
        cutmix: likewise.
    """
    wanted = [name for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha > 0]
    if not wanted:
        return images, labels
    order = torch.from_numpy(generator.permutation(len(images)))
    if wanted[generator.integers(len(wanted))] == "mixup":
        share = float(generator.beta(mixup, mixup))
        images = share * images + (1 - share) * images[order]
    else:
        images, share = _pasted(images, order, float(generator.beta(cutmix, cutmix)), generator)
    return images, share * labels + (1 - share) * labels[order]


def _pasted(
    images: Tensor, order: Tensor, share: float, generator: np.random.Generator
) -> tuple[Tensor, float]:
    """A rectangle of about ``1 - share`` of the area from the others, and the share that is really left."""
    height, width = images.shape[2:]
    side = float(np.sqrt(1 - share))
    middle = generator.integers(height), generator.integers(width)
    (top, bottom), (left, right) = (
        np.clip([round(at - side * size / 2), round(at + side * size / 2)], 0, size)
        for at, size in zip(middle, (height, width), strict=True)
    )
    images = images.clone()
    # The right side is a copy made before anything is changed.
    images[:, :, top:bottom, left:right] = images[order][:, :, top:bottom, left:right]
    return images, float(1 - (bottom - top) * (right - left) / (height * width))
