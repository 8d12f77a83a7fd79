"""Brightness, contrast and saturation of images, changed at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def recoloured(
    images: NDArray[np.uint8], strength: float, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Each image's brightness, contrast and, of three channels, saturation times ``1 - strength`` to
    ``1 + strength``, in this order.

    Args:
        images: ``(N, H, W, C)``.
        strength: 0 to 1.
        generator: draws the three factors of each image.
    """
    factors = generator.uniform(1 - strength, 1 + strength, (3, len(images), 1, 1, 1)).astype(np.float32)
    brightness, contrast, saturation = factors
    # Clipped after each step, as bytes are.
    found = np.clip(images * brightness, 0, 255)
    found = np.clip(_blended(found, found.mean(axis=(1, 2, 3), keepdims=True), contrast), 0, 255)
    if images.shape[3] == 3:
        found = np.clip(_blended(found, (found @ _GREY)[..., np.newaxis], saturation), 0, 255)
    pixels: NDArray[np.uint8] = np.rint(found).astype(np.uint8)
    return pixels


def _blended(
    images: NDArray[np.float32], other: NDArray[np.float32], factor: NDArray[np.float32]
) -> NDArray[np.float32]:
    found: NDArray[np.float32] = other + factor * (images - other)
    return found
