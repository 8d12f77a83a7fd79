"""How much of a model's outputs is left of what quantisation does to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_DB = 200.0


def signal_to_noise_db(expected: Sequence[NDArray[Any]], actual: Sequence[NDArray[Any]]) -> float:
    """Mean square of an output over that of its error, in decibel; of several outputs the lowest.

    Args:
        expected: each output ``(N, values)`` of the model.
        actual: likewise of what it is compared with.

    Returns:
        ``MOST_DB`` at most.
    """
    found = []
    for theirs, mine in zip(expected, actual, strict=True):
        power = float(np.square(theirs.astype(np.float64)).mean())
        noise = float(np.square(theirs.astype(np.float64) - mine).mean())
        found.append(MOST_DB if not noise else 10 * float(np.log10(max(power, 1e-30) / noise)))
    return min(MOST_DB, *found)
