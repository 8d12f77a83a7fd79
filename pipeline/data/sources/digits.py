"""The handwritten digits that ship with scikit-learn: 1797 real 8x8 images (UCI Optical Recognition)."""

from __future__ import annotations

import numpy as np

from devices.installing import how_to_install
from pipeline.data.sources.base import LabelledImages, Source
from pipeline.errors import DataError


def read() -> Source:
    """All digits, grey, their 17 levels scaled to 0..255; there is no official test split.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digits need scikit-learn, which cannot be imported",
            why=str(error),
            fix=how_to_install("quickstart"),
        ) from error
    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    return Source(LabelledImages.of_arrays(pixels, labels, what="digits"), None, names)
