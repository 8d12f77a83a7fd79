"""Whether a classifier is any better than one that always names the most frequent class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIGNIFICANCE = 0.05


def majority_share(labels: NDArray[np.int64]) -> float:
    """Share of the most frequent class among ``(N,)`` labels: what one gets right who never looks."""
    return float(np.bincount(labels).max() / len(labels))


def better_than_chance(accuracy: float, count: int, share: float) -> bool:
    """Whether so many right answers are unlikely for one who never looks (one-sided binomial test).

    Args:
        accuracy: in 0..1, over ``count`` images.
        count: of images.
        share: of the most frequent class among them.
    """
    from scipy.stats import binom

    right = round(accuracy * count)
    return bool(binom.sf(right - 1, count, share) < SIGNIFICANCE)
