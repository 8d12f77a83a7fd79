"""From bytes to tensors: the one place where images become network input for torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.base import Preprocessing, Split

_PIXELS = 256 * 96 * 96
"""In a batch that nothing is learned from."""


def to_tensor(images: NDArray[np.uint8], preprocessing: Preprocessing) -> Tensor:
    """``(N, H, W, C)`` bytes to preprocessed ``(N, C, H, W)`` float32."""
    return torch.from_numpy(np.ascontiguousarray(preprocessing(images).transpose(0, 3, 1, 2)))


def batches_of(split: Split, preprocessing: Preprocessing, size: int = 256) -> Iterator[Tensor]:
    """The whole split in order, as tensors of at most ``size`` images; of large ones, fewer.

    What a network makes of photographs takes gigabytes otherwise.
    """
    height, width = split.images.shape[1:3]
    size = max(1, min(size, _PIXELS // (height * width)))
    for start in range(0, len(split), size):
        yield to_tensor(split.images[start : start + size], preprocessing)
