"""Images that stand in two splits: found by their pixels, whatever their files are called."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.base import Split, classes_in
from pipeline.errors import DataError

Index = NDArray[np.int64]


def rows_without_duplicates(
    splits: Sequence[Split], classes: tuple[str, ...], *, remove: bool
) -> tuple[list[Index], tuple[str, ...]]:
    """Rows of train, validation and test that no later one of them holds too, and what there is to say.

    Args:
        splits: train, validation, test; images of one shape.
        classes: names.
        remove: whether the images are taken out of the earlier split, or only counted.

    Raises:
        DataError: a class would lose all its images.
    """
    train, validation, test = splits
    tested = set(_digests(test))
    learned, judged = _digests(train), _digests(validation)
    kept = [_unseen(learned, tested | set(judged)), _unseen(judged, tested)]
    names = ("train", "validation")
    notes = []
    for name, split, rows in zip(names, (train, validation), kept, strict=True):
        count = len(split) - int(rows.sum())
        if count:
            done = "removed from" if remove else "kept in"
            notes.append(
                f"{count} of {len(split)} {name} images are {done} {name}: test or validation holds the same "
                "pixels"
            )
        gone = sorted(split.present - classes_in(split.labels[rows]))
        if remove and gone:
            raise DataError(
                f"no {name} image of class '{classes[gone[0]]}' is left",
                why="all of them are in the test or validation split too, pixel by pixel",
                fix='give every split images of its own, or set duplicates = "keep" in [data]',
            )
    if not remove:
        return [np.arange(len(split)) for split in splits], tuple(notes)
    return [*map(np.flatnonzero, kept), np.arange(len(test))], tuple(notes)


def _digests(split: Split) -> list[bytes]:
    """One by one: the images may be in a file that is larger than the memory."""
    return [hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=16).digest() for row in split.images]


def _unseen(digests: Sequence[bytes], others: set[bytes]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.fromiter((each not in others for each in digests), np.bool_, len(digests))
