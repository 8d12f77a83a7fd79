"""Crops and flips of image batches, drawn from a generator so that a seed repeats them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.distill.settings import Augmentation

_LEAST_AREA = 0.08
_RATIOS = (3 / 4, 4 / 3)


def augment(images: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Random crops of a batch, and random horizontal flips.

    ``crop`` shifts each image by up to an eighth of its size; the rest is zero, which is the mean of the
    data. ``crop-flip`` also flips half of them. ``resized-crop`` enlarges a part of 8 % to all of the area,
    with a width of 3/4 to 4/3 of its height, to the whole size, and flips half (1409.4842, section 6).

    Args:
        images: ``(N, C, H, W)``, preprocessed.
        kind: what to do; ``none`` returns the images as they are.
        generator: source of all randomness, on the CPU.
    """
    match kind:
        case "none":
            return images
        case "resized-crop":
            return _resized_crops(images, generator)
        case _:
            return _shifted(images, generator, flip=kind == "crop-flip")


def _shifted(images: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    count, _, height, width = images.shape
    pad = max(1, min(height, width) // 8)
    padded = functional.pad(images, (pad, pad, pad, pad))
    top = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator)
    left = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator)
    columns = left + torch.arange(width)
    if flip:
        flipped = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    rows = (top + torch.arange(height)).to(images.device)
    columns = columns.to(images.device)
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _resized_crops(images: Tensor, generator: torch.Generator) -> Tensor:
    count = len(images)

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    area, ratio = drawn(_LEAST_AREA, 1), drawn(*map(math.log, _RATIOS)).exp()
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    flip = 1 - 2 * (torch.rand(count, generator=generator) < 0.5).float()
    crops = torch.zeros(count, 2, 3)
    crops[:, 0, 0], crops[:, 1, 1] = wide * flip, high
    # In coordinates from -1 to 1 a part may lie as far from the middle as it is smaller than the whole.
    crops[:, 0, 2], crops[:, 1, 2] = (1 - wide) * drawn(-1, 1), (1 - high) * drawn(-1, 1)
    grid = functional.affine_grid(crops.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
