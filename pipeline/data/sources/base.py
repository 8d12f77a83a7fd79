"""What a source hands over before anything is split, resized or decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.words import count_of
from pipeline.data.base import Decoded
from pipeline.errors import DataError

Index = NDArray[np.int64]
Labels = NDArray[Any]
"""Classes ``(N,)`` int64, or ``(N, K)`` float32."""
CheckLabels = Callable[..., Labels]
"""``check_labels`` or ``check_vectors``."""

LARGEST = float(np.finfo(np.float32).max)
"""Of the numbers that labels may be."""
CHANNELS = (1, 2, 3, 4)
"""How many an array's images may have. One is grey and three are a colour; two and four are what they are."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labels, ``(N,)`` or ``(N, K)``, and a way to read the images of chosen rows.

    Reading is put off, so that images outside a limit are never decoded.
    """

    labels: Labels
    read: Callable[[Index], Decoded]

    @classmethod
    def of_arrays(
        cls, images: Any, labels: Any, *, what: str, check: CheckLabels | None = None
    ) -> LabelledImages:
        """Check and wrap arrays.

        Args:
            images: ``(N, H, W)`` or ``(N, H, W, C)``, C of ``CHANNELS``; uint8, or floating point in 0..1.
            labels: integers ``(N,)`` or ``(N, 1)``.
            what: how to name the split in an error.
            check: of the labels, if it is another than ``check_labels``.

        Raises:
            DataError: another shape or type, NaN, a range other than 0..1, or counts that differ.
        """
        pixels = _pixels(np.asarray(images), what)
        numbers = (check or check_labels)(labels, len(pixels), what=what)
        return cls(numbers, lambda index: Decoded.whole(pixels[index]))

    def take(self, index: Index) -> LabelledImages:
        """The rows at ``index``."""
        return LabelledImages(self.labels[index], lambda inner: self.read(index[inner]))


@dataclass(frozen=True, eq=False)
class Source:
    """Train split, test split if the source has one, and class names (``None``: name them by number).

    ``notes`` say what was left out, a line each.
    """

    train: LabelledImages
    test: LabelledImages | None
    classes: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def check_labels(labels: Any, count: int, *, what: str) -> Index:
    """Labels as int64 ``(N,)``.

    Raises:
        DataError: not integers, or their number is not ``count``.
    """
    numbers = np.asarray(labels)
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise DataError(
            f"the {what} labels are not a list of whole numbers",
            why=f"they have type {numbers.dtype} and shape {numbers.shape}",
            fix=f"store one integer per image, counted from 0{_other_task(numbers)}",
        )
    if len(numbers) != count:
        raise DataError(
            f"the {what} split has {count} images but {len(numbers)} labels",
            fix="store exactly one label per image, in the same order",
        )
    return numbers.astype(np.int64)


def _other_task(labels: NDArray[Any]) -> str:
    """What to do where labels are of another task."""
    if labels.dtype.kind == "f":
        return ', or set data.task = "regression" to learn numbers'
    if labels.ndim == 2 and labels.dtype.kind in "biu":
        return ', or set data.task = "multi-label" for several labels of an image, each 0 or 1'
    return ""


def check_vectors(labels: Any, count: int, *, what: str) -> NDArray[np.float32]:
    """Labels of several numbers as float32 ``(N, K)``; ``(N,)`` stands for one number each.

    Raises:
        DataError: not numbers, not finite, or their number is not ``count``.
    """
    numbers = np.asarray(labels)
    if numbers.ndim == 1:
        numbers = numbers[:, np.newaxis]
    if numbers.ndim != 2 or numbers.dtype.kind not in "biuf" or not numbers.shape[1]:
        raise DataError(
            f"the {what} labels are not a table of numbers",
            why=f"they have type {numbers.dtype} and shape {numbers.shape}, expected (N, K)",
            fix="store a row of numbers for each image",
        )
    if len(numbers) != count:
        raise DataError(
            f"the {what} split has {count} images but {len(numbers)} labels",
            fix="store exactly one label per image, in the same order",
        )
    with np.errstate(over="ignore"):
        found: NDArray[np.float32] = numbers.astype(np.float32)
    if not np.isfinite(found).all():
        raise DataError(
            f"the {what} labels hold NaN or infinity, or a number above {LARGEST:.1e}",
            fix="leave out images whose labels are not known",
        )
    return found


def not_used(split: str, count: int) -> str:
    """The note on a split that nothing takes."""
    return f"{count_of(count, 'image')} of '{split}' {'is' if count == 1 else 'are'} not used"


def missing(path: Path, expected: str) -> DataError:
    """The error for a path that does not hold what it should."""
    if not path.exists():
        return DataError(
            f"data path '{path}' does not exist",
            why=f"expected {expected}",
            fix="correct 'path' in [data]; a relative path starts at the recipe's folder",
        )
    return DataError(
        f"'{path}' does not hold the expected data",
        why=f"expected {expected}",
        fix="correct 'path' or 'kind' in [data]",
    )


def _pixels(images: NDArray[Any], what: str) -> NDArray[np.uint8]:
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in CHANNELS or 0 in images.shape[1:]:
        raise DataError(
            f"the {what} images have shape {images.shape}",
            why="expected (N, height, width) or (N, height, width, channels) of one to four channels",
            fix="move the channels to the last axis, and keep at most four",
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise DataError(
            f"the {what} images have type {images.dtype}",
            why="accepted are uint8 (0 to 255) and floating point (0 to 1)",
            fix="convert them, e.g. images.astype(numpy.uint8)",
        )
    if len(images) and not (images.min() >= 0 and images.max() <= 1):  # NaN fails both comparisons
        found = (
            "NaN or infinity" if not np.isfinite(images).all() else f"{images.min():g} to {images.max():g}"
        )
        raise DataError(
            f"the {what} images hold {found}",
            why="floating point images must lie in 0 to 1",
            fix="store the original bytes as uint8, before any normalisation",
        )
    scaled: NDArray[np.uint8] = np.rint(images * 255).astype(np.uint8)
    return scaled
