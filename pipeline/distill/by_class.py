"""Accuracy class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class ClassAccuracy:
    """How many of a class's images are recognised.

    Attributes:
        name: of the class.
        correct: images of the class that are said to be of it.
        total: images of the class.
        predicted: images of any class that are said to be of it.
    """

    name: str
    correct: int
    total: int
    predicted: int


def accuracy_by_class(
    logits: Tensor, labels: np.ndarray[tuple[int], np.dtype[np.int64]], classes: Sequence[str]
) -> tuple[ClassAccuracy, ...]:
    """Counts of every class, in the order of the classes.

    Args:
        logits: ``(N, classes)``.
        labels: ``(N,)``, counted from 0.
        classes: names.
    """
    said = logits.argmax(dim=1).cpu().numpy()
    return tuple(
        ClassAccuracy(
            name,
            int(((said == number) & (labels == number)).sum()),
            int((labels == number).sum()),
            int((said == number).sum()),
        )
        for number, name in enumerate(classes)
    )
