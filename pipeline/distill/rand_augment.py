"""RandAugment (1909.13719): a few operations for each image, drawn at random, all of one strength.

The operations are Pillow's: it decodes the images anyway, so there is nothing more to install.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

Colour = tuple[int, ...]
Operation = Callable[[Image.Image, float, Colour], Image.Image]
"""An image, a strength from -1 to 1, and the colour of what lies outside the image."""

_MOST_DEGREES, _MOST_SHEAR, _MOST_SHIFT, _MOST_ENHANCED, _MOST_BITS = 30.0, 0.3, 0.45, 0.9, 4


def rand_augmented(
    images: NDArray[np.uint8],
    count: int,
    magnitude: float,
    generator: np.random.Generator,
    background: Colour,
) -> NDArray[np.uint8]:
    """``count`` operations on each image, each drawn anew.

    Args:
        images: ``(N, H, W, C)``, C 1 or 3.
        count: of operations.
        magnitude: 0 to 10, the strength of all of them.
        generator: draws operations and their directions.
        background: of what comes from outside the image, by channel.
    """
    channels, found = images.shape[3], np.empty_like(images)
    names = list(OPERATIONS)
    for row, pixels in enumerate(images):
        image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
        for _ in range(count):
            operation = OPERATIONS[names[generator.integers(len(names))]]
            strength = magnitude / 10 * generator.choice((-1, 1))
            image = operation(image, strength, background)
        found[row] = np.asarray(image).reshape(pixels.shape)
    return found


def _moved(matrix: Callable[[float, tuple[int, int]], tuple[float, ...]]) -> Operation:
    def move(image: Image.Image, strength: float, background: Colour) -> Image.Image:
        fill = background if len(background) > 1 else background[0]
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            matrix(strength, image.size),
            Image.Resampling.BILINEAR,
            fillcolor=fill,
        )

    return move


def _rotate(image: Image.Image, strength: float, background: Colour) -> Image.Image:
    fill = background if len(background) > 1 else background[0]
    return image.rotate(_MOST_DEGREES * strength, Image.Resampling.BILINEAR, fillcolor=fill)


def _enhanced(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, strength, _: kind(image).enhance(1 + _MOST_ENHANCED * strength)


OPERATIONS: Mapping[str, Operation] = {
    "identity": lambda image, strength, _: image,
    "auto-contrast": lambda image, strength, _: ImageOps.autocontrast(image),
    "equalise": lambda image, strength, _: ImageOps.equalize(image),
    "solarise": lambda image, strength, _: ImageOps.solarize(image, round(256 * (1 - abs(strength)))),
    "posterise": lambda image, strength, _: ImageOps.posterize(image, 8 - round(_MOST_BITS * abs(strength))),
    "rotate": _rotate,
    "shear-x": _moved(lambda s, size: (1, _MOST_SHEAR * s, -_MOST_SHEAR * s * size[1] / 2, 0, 1, 0)),
    "shear-y": _moved(lambda s, size: (1, 0, 0, _MOST_SHEAR * s, 1, -_MOST_SHEAR * s * size[0] / 2)),
    "shift-x": _moved(lambda s, size: (1, 0, _MOST_SHIFT * s * size[0], 0, 1, 0)),
    "shift-y": _moved(lambda s, size: (1, 0, 0, 0, 1, _MOST_SHIFT * s * size[1])),
    "saturation": _enhanced(ImageEnhance.Color),
    "contrast": _enhanced(ImageEnhance.Contrast),
    "brightness": _enhanced(ImageEnhance.Brightness),
    "sharpness": _enhanced(ImageEnhance.Sharpness),
}
"""The fourteen of the paper."""
