from __future__ import annotations

import numpy as np
import pytest

from pipeline.tasks.chance import better_than_chance, majority_share


@pytest.mark.parametrize(
    ("accuracy", "count", "share", "better"),
    [
        (0.1, 1000, 0.1, False),
        (0.11, 1000, 0.1, False),
        (0.13, 1000, 0.1, True),
        (0.9, 1000, 0.9, False),
        (0.93, 1000, 0.9, True),
        (0.6, 10, 0.5, False),
        (1.0, 10, 0.5, True),
        (0.0, 100, 0.1, False),
    ],
)
def test_chance_is_what_the_most_frequent_class_gives(
    accuracy: float, count: int, share: float, better: bool
) -> None:
    assert better_than_chance(accuracy, count, share) is better


def test_the_majority_is_the_most_frequent_class() -> None:
    assert majority_share(np.array([0, 1, 1, 2])) == 0.5
