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

    Classes may be absent. The rows come in a random order fixed by ``seed``: any prefix is a fair sample.

    Raises:
        DataError: a class has one row.
    """
    generator = np.random.default_rng(seed)
    kept, held = [], []
    for label, name in enumerate(classes):
        if not (labels == label).any():
            continue
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


def random_split(count: int, share: float, *, seed: int) -> tuple[Index, Index]:
    """Rows ``(kept, held out)`` of ``count``, in a random order fixed by ``seed``; at least one in each.

    Raises:
        DataError: there are fewer than two rows.
    """
    if count < 2:
        raise DataError("one image is too few to split", fix="add images, or raise the limit on images")
    rows = np.random.default_rng(seed).permutation(count)
    held = min(max(round(share * count), 1), count - 1)
    return rows[held:], rows[:held]


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
