"""Stratified selections of rows: every class is represented in proportion, or equally."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError

Index = NDArray[np.int64]


def stratified_split(
    labels: Index, share: float, classes: tuple[str, ...], *, seed: int
) -> tuple[Index, Index]:
    """Rows ``(kept, held out)``, with ``share`` of each class held out (at least one, never all).

    The rows come in a random order fixed by ``seed``, so that any prefix is a fair sample.

    Raises:
        DataError: a class has fewer than two rows.
    """
    generator = np.random.default_rng(seed)
    kept, held = [], []
    for label, name in enumerate(classes):
        rows = generator.permutation(np.flatnonzero(labels == label))
        if len(rows) < 2:
            raise DataError(
                f"class '{name}' has {len(rows)} image(s), too few to split",
                why="each split needs at least one image of each class",
                fix="add images of this class, remove the class, or raise the limit on images",
            )
        count = min(max(round(share * len(rows)), 1), len(rows) - 1)
        held.append(rows[:count])
        kept.append(rows[count:])
    return generator.permutation(np.concatenate(kept)), generator.permutation(np.concatenate(held))


def balanced_subset(labels: Index, limit: int, classes: int, *, seed: int) -> Index:
    """Rows of a subset of at most ``limit``, as equal over the classes as their sizes allow.

    The rows come in a random order fixed by ``seed``.

    Raises:
        DataError: ``limit`` is smaller than the number of classes.
    """
    if limit < classes:
        raise DataError(
            f"a limit of {limit} images cannot hold {classes} classes",
            fix=f"raise the limit to at least {classes}, better {20 * classes}",
        )
    generator = np.random.default_rng(seed)
    by_class = [generator.permutation(np.flatnonzero(labels == label)) for label in range(classes)]
    chosen: list[Index] = []
    remaining = min(limit, len(labels))
    smallest_first = sorted(by_class, key=len)
    for position, rows in enumerate(smallest_first):
        count = min(len(rows), remaining // (classes - position))
        chosen.append(rows[:count])
        remaining -= count
    return generator.permutation(np.concatenate(chosen))
