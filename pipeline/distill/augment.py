"""Augmentation of image batches, drawn from a generator so that a seed repeats it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.distill.settings import Augmentation


def augment(images: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Random crop after padding by an eighth of the size, and a random horizontal flip for ``crop-flip``.

    Args:
        images: ``(N, C, H, W)``, preprocessed; the padding is zero, which is the mean of the data.
        kind: what to do; ``none`` returns the images as they are.
        generator: source of all randomness, on the CPU.
    """
    if kind == "none":
        return images
    count, _, height, width = images.shape
    pad = max(1, min(height, width) // 8)
    padded = functional.pad(images, (pad, pad, pad, pad))
    top = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator)
    left = torch.randint(0, 2 * pad + 1, (count, 1), generator=generator)
    columns = left + torch.arange(width)
    if kind == "crop-flip":
        flipped = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(flipped, columns.flip(1), columns)
    rows = (top + torch.arange(height)).to(images.device)
    columns = columns.to(images.device)
    sample = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
