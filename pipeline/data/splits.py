"""Selections of rows by class: each in proportion, several of those that are chosen, or all equally."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from devices.words import count_of
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


def paired_split(labels: Index, share: float, *, seed: int) -> tuple[Index, Index]:
    """Rows ``(kept, held out)``, in which no class that has several images is held out with one of them.

    An image that is alone has none that it should be found with. ``share`` of each class is held out; where
    that is less than two images, two of as many such classes as keep the share of them all, chosen by
    ``seed``. The rows come in a random order fixed by it.

    Raises:
        DataError: no class has two images, or none would be kept.
    """
    generator = np.random.default_rng(seed)
    kept, held, small = [], [], []
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        count = min(round(share * len(rows)), len(rows) - 1)
        if count < 2:
            small.append(rows)
        else:
            held.append(rows[:count])
            kept.append(rows[count:])
    pairs = round(share * sum(map(len, small)) / 2)
    if not held:
        pairs = max(pairs, 1)
    for place in generator.permutation(len(small)):
        rows = small[place]
        count = 2 if pairs and len(rows) >= 2 else 0
        pairs -= count // 2
        held.append(rows[:count])
        kept.append(rows[count:])
    kept_rows, held_rows = np.concatenate(kept), np.concatenate(held)
    if not len(kept_rows) or not len(held_rows):
        raise DataError(
            f"{count_of(len(labels), 'image')} are too few to split by their labels",
            why="two images of one label are held out, and others have to be left",
            fix="add images, of some labels at least two, or raise the limit on images",
        )
    return generator.permutation(kept_rows), generator.permutation(held_rows)


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


def balanced_subset(labels: Index, limit: int, *, seed: int) -> Index:
    """Rows of a subset of at most ``limit``, as equal over the classes that there are as their sizes allow.

    The rows come in a random order fixed by ``seed``.

    Raises:
        DataError: ``limit`` is smaller than the number of classes.
    """
    present = np.unique(labels)
    classes = len(present)
    if limit < classes:
        raise DataError(
            f"a limit of {limit} images cannot hold {classes} classes",
            fix=f"raise the limit to at least {classes}, better {20 * classes}",
        )
    generator = np.random.default_rng(seed)
    by_class = [generator.permutation(np.flatnonzero(labels == label)) for label in present]
    chosen: list[Index] = []
    remaining = min(limit, len(labels))
    smallest_first = sorted(by_class, key=len)
    for position, rows in enumerate(smallest_first):
        count = min(len(rows), remaining // (classes - position))
        chosen.append(rows[:count])
        remaining -= count
    return generator.permutation(np.concatenate(chosen))
