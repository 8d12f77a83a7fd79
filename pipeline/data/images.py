"""Image files and arrays to uint8 pixels of one size."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.data.base import Decoded
from pipeline.errors import DataError
from pipeline.memory import require_room

Pixels = NDArray[np.uint8]

Colour = tuple[int, int, int]

Size = int | tuple[int, int]
"""Side of a square, or height and width."""

WHITE: Colour = (255, 255, 255)

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
)

_GREY_MODES = ("1", "L", "LA", "La")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
"""Others are never tried: Pillow hands PostScript to a program that runs it."""
_MOST_PIXELS = 40_000_000
_LARGE_PIXELS = 4_000_000
_one_large = threading.Lock()
"""Images above that are decoded one at a time, so that memory does not grow with the cores."""


def decode_all(
    encoded: Sequence[Path | bytes],
    names: Sequence[str],
    size: Size | None,
    background: Colour = WHITE,
) -> Decoded:
    """Decode image files to ``(n, H, W, C)``, those that can be; C is 1 if all are grey, else 3.

    Pixels are what a viewer shows: upright, and what is transparent lies over ``background``. Of an animation
    or of several pages the first counts.

    Args:
        encoded: paths, or the bytes of image files.
        names: what to call each image.
        size: resize until both sides have at least this, and crop the centre; needed if the images differ in
            size.
        background: red, green and blue, 0 to 255.

    Raises:
        DataError: sizes differ.
        RecipeError: this machine has not the memory for so many images of this size.
    """
    if size is not None:
        _require_room(len(encoded), size)

    def attempt(source: Path | bytes) -> Pixels | str:
        try:
            return _decode(source, size, background)
        except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, struct.error and others
            return str(error) or type(error).__name__

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(attempt, encoded))
    broken = tuple(f"{name} ({r})" for name, r in zip(names, results, strict=True) if isinstance(r, str))
    found = [(row, result) for row, result in enumerate(results) if not isinstance(result, str)]
    rows, images = np.array([row for row, _ in found], np.int64), [image for _, image in found]
    if not images:
        return Decoded(np.zeros((0, 1, 1, 1), np.uint8), rows, broken)
    for row, image in found:
        if image.shape[:2] != images[0].shape[:2]:
            first, first_size = names[rows[0]], _size(images[0])
            raise DataError(
                "images differ in size",
                why=f"{first} is {first_size}, {names[row]} is {_size(image)} (width x height)",
                fix="set image_size in [data], e.g. image_size = 64",
            )
    channels = max(image.shape[2] for image in images)
    return Decoded(np.stack([with_channels(image, channels) for image in images]), rows, broken)


def resize_all(images: Pixels, size: Size) -> Pixels:
    """``(N, H, W, C)`` to images of a size, as ``decode_all`` does.

    Raises:
        RecipeError: this machine has not the memory for so many images of this size.
    """
    height, width = height_and_width(size)
    if images.shape[1:3] == (height, width):
        return images
    _require_room(len(images), size, images.shape[3])
    # Each channel by itself: of two or four, Pillow would take the last for transparency.
    planes = images.transpose(0, 3, 1, 2).reshape(-1, *images.shape[1:3])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        resized = list(pool.map(lambda plane: np.asarray(_fit(Image.fromarray(plane), size)), planes))
        fitted = np.array(resized, np.uint8).reshape(len(images), images.shape[3], height, width)
        return np.ascontiguousarray(fitted.transpose(0, 2, 3, 1))


def height_and_width(size: Size) -> tuple[int, int]:
    """Both sides of a size."""
    return (size, size) if isinstance(size, int) else size


def _require_room(count: int, size: Size, channels: int = 1) -> None:
    """For the images one by one, and for the array of them."""
    height, width = height_and_width(size)
    require_room(2 * count * height * width * channels, f"to hold {count} images of {width}x{height} pixels")


def with_channels(images: Pixels, channels: int) -> Pixels:
    """Repeat the single channel of grey images ``(..., 1)`` where three are wanted."""
    return np.repeat(images, 3, axis=-1) if channels == 3 and images.shape[-1] == 1 else images


def _decode(source: Path | bytes, size: Size | None, background: Colour) -> Pixels:
    if isinstance(source, Path) and not source.is_file():
        raise ValueError("it is not a file")
    with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=_FORMATS) as opened:
        pixels = opened.width * opened.height
        if pixels > _MOST_PIXELS:
            raise ValueError(f"suspiciously large ({opened.width}x{opened.height} pixels)")
        with _one_large if pixels > _LARGE_PIXELS else nullcontext():
            return _shown(opened, size, background)


def _shown(opened: Image.Image, size: Size | None, background: Colour) -> Pixels:
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16"):  # Pillow clips 16-bit grey instead of scaling it
        image = Image.fromarray((np.asarray(image, np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixel type {image.mode} has no fixed range; save it with 8 bits per channel")
    grey = image.mode in _GREY_MODES
    if image.has_transparency_data:
        seen = Image.new("RGBA", image.size, (*background, 255))
        seen.alpha_composite(image.convert("RGBA"))
        image, grey = seen, grey and len(set(background)) == 1
    image = image.convert("L" if grey else "RGB")
    if size is not None:
        image = _fit(image, size)
    return np.atleast_3d(np.asarray(image))


def _fit(image: Image.Image, size: Size) -> Image.Image:
    height, width = height_and_width(size)
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def _size(image: Pixels) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
