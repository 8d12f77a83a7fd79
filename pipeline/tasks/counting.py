"""What tasks share whose metric is a share of images that are right."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.chance import better_than_chance


class CountsImages:
    """A metric that counts images."""

    def spread(self, value: float, count: int) -> float | None:
        """The binomial standard error."""
        return math.sqrt(value * (1 - value) / count)

    def better_than_chance(self, value: float, count: int, chance: float) -> bool:
        """By a one-sided binomial test."""
        return better_than_chance(value, count, chance)


class MeasuresOutputs:
    """A metric of all outputs together: no image is right or wrong by itself."""

    def counts(
        self, outputs: NDArray[np.float32], labels: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """None."""
        return None

    def spread(self, value: float, count: int) -> float | None:
        """Not known."""
        return None

    def better_than_chance(self, value: float, count: int, chance: float) -> bool:
        """Above what chance hardly ever gets."""
        return value > chance


def by_class(right: NDArray[np.bool_], labels: NDArray[np.int64], classes: int) -> Any:
    """Right images and all images of each class."""
    count = max(classes, int(labels.max(initial=0)) + 1)
    return np.bincount(labels[right], minlength=count), np.bincount(labels, minlength=count)
