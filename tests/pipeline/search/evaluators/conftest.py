import numpy as np
import pytest

from pipeline.data.base import Dataset, Preprocessing, Split


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """Three classes of 8x8 images that differ in where they are bright."""
    generator = np.random.default_rng(0)

    def split(size: int) -> Split:
        labels = generator.integers(0, 3, size)
        images = generator.integers(0, 80, (size, 8, 8, 1))
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 3] += 150
        return Split(images.astype(np.uint8), labels.astype(np.int64))

    return Dataset(
        "bars", split(96), split(64), split(1), ("a", "b", "c"), Preprocessing((0.5,), (0.25,)), "digest"
    )
