"""From a source to a ``Dataset``: checks, limits, splits, sizes, normalisation, digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from devices.digests import canonical_json
from devices.words import count_of
from pipeline.data.base import Dataset, Preprocessing, Split
from pipeline.data.config import DataConfig
from pipeline.data.duplicates import without_duplicates
from pipeline.data.sources.base import LabelledImages, Source
from pipeline.data.splits import balanced_subset, stratified_split
from pipeline.errors import DataError

_TEST_SEED = 0
_STD_FLOOR = 1 / 255
_SHOWN = 5


def load(config: DataConfig, *, seed: int) -> Dataset:
    """Read, check, split and normalise the data of a recipe.

    ``seed`` decides which train images are kept under ``train_limit`` and which go to validation. The test
    split never depends on it, so runs with different seeds are tested on the same images. The rows of each
    split come in a fixed random order.

    Raises:
        DataError: the data are missing, unreadable, empty or inconsistent.
    """
    source = _read(config)
    train, test = source.train, source.test
    classes = _class_names(source)
    _check_classes(train, test, classes)
    if test is None:
        kept, held = stratified_split(train.labels, config.test, classes, seed=_TEST_SEED)
        train, test = train.take(kept), train.take(held)
    if config.train_limit is not None:
        train = train.take(balanced_subset(train.labels, config.train_limit, len(classes), seed=seed))
    test_limit = len(test.labels) if config.test_limit is None else config.test_limit
    test = test.take(balanced_subset(test.labels, test_limit, len(classes), seed=_TEST_SEED))
    kept, held = stratified_split(train.labels, config.validation, classes, seed=seed)
    chosen = train.take(kept), train.take(held), test
    splits, left_out = _decoded(chosen, classes, skip=config.broken == "skip")
    splits = _same_shape(splits, config.image_size)
    splits, notes = without_duplicates(splits, classes, remove=config.duplicates == "remove")
    preprocessing = _statistics(splits[0].images)
    digest = _digest(splits, classes, preprocessing)
    fitted, validation, tested = splits
    notes = (*source.notes, *left_out, *notes)
    return Dataset(config.kind, fitted, validation, tested, classes, preprocessing, digest, notes)


def _read(config: DataConfig) -> Source:
    if config.kind == "digits":
        from pipeline.data.sources import digits

        return digits.read()
    if config.path is None:
        raise DataError(f"data of kind '{config.kind}' needs a path", fix="set 'path' in [data]")
    try:
        match config.kind:
            case "cifar":
                from pipeline.data.sources import cifar

                return cifar.read(config.path)
            case "mnist":
                from pipeline.data.sources import mnist

                return mnist.read(config.path)
            case "npz":
                from pipeline.data.sources import npz

                return npz.read(config.path, image_size=config.image_size, background=config.background)
            case "folder":
                from pipeline.data.sources import folder

                return folder.read(config.path, image_size=config.image_size, background=config.background)
            case "huggingface":
                from pipeline.data.sources import huggingface

                return huggingface.read(
                    config.path, image_size=config.image_size, background=config.background
                )
    except OSError as error:
        raise DataError(
            f"'{config.path}' cannot be read", why=str(error), fix="check that the files may be read"
        ) from error


def _class_names(source: Source) -> tuple[str, ...]:
    labels = [source.train.labels] + ([source.test.labels] if source.test is not None else [])
    if any(len(split) == 0 for split in labels):
        raise DataError(
            "a split holds no images", fix="give both train and test at least one image per class"
        )
    lowest = min(int(split.min()) for split in labels)
    highest = max(int(split.max()) for split in labels)
    classes = source.classes or tuple(str(label) for label in range(min(highest, 65535) + 1))
    if lowest < 0 or highest >= len(classes):
        raise DataError(
            f"labels run from {lowest} to {highest}, but there are {count_of(len(classes), 'class')}",
            why=f"the labels of {count_of(len(classes), 'class')} are 0 to {len(classes) - 1}",
            fix="count labels from 0 and name every class once",
        )
    if len(set(classes)) != len(classes):
        raise DataError("class names are not unique", why=", ".join(classes), fix="name every class once")
    return classes


def _check_classes(train: LabelledImages, test: LabelledImages | None, classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise DataError(
            "the data have only one class",
            why=f"every image is labelled '{classes[0]}'",
            fix="give images of at least two classes; in a folder, one folder per class below train",
        )
    splits = {"train": train} if test is None else {"train": train, "test": test}
    absent = {name: np.setdiff1d(np.arange(len(classes)), split.labels) for name, split in splits.items()}
    lacking = [f"{name} lacks {_names(rows, classes)}" for name, rows in absent.items() if len(rows)]
    if lacking:
        raise DataError(
            "classes without images" if test is None else "classes differ between train and test",
            why="; ".join(lacking),
            fix="give every split images of every class (labels count from 0), or remove the class from both",
        )


def _decoded(
    splits: Sequence[LabelledImages], classes: tuple[str, ...], *, skip: bool
) -> tuple[list[Split], tuple[str, ...]]:
    """Splits with their pixels, and what there is to say of images that were left out.

    Raises:
        DataError: images cannot be decoded that may not be left out, or a class would lose all its images.
    """
    loaded = [split.load() for split in splits]
    broken = [each for _, names in loaded for each in names]
    if not broken:
        return [split for split, _ in loaded], ()
    more = f", and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    named, count = "; ".join(broken[:_SHOWN]) + more, sum(len(split.labels) for split in splits)
    if not skip:
        raise DataError(
            f"{len(broken)} of {count} images cannot be decoded",
            why=named,
            fix='replace or remove these files, or set broken = "skip" in [data] to leave them out',
        )
    for name, split, (left, _) in zip(("train", "validation", "test"), splits, loaded, strict=True):
        gone = np.setdiff1d(split.labels, left.labels)
        if len(gone):
            raise DataError(
                f"no {name} image of class '{classes[gone[0]]}' is left",
                why=f"{len(broken)} of {count} images cannot be decoded: {named}",
                fix="replace these files",
            )
    note = f"left out {len(broken)} of {count} images that cannot be decoded: {named}"
    return [split for split, _ in loaded], (note,)


def _names(rows: NDArray[np.int64], classes: tuple[str, ...], shown: int = 8) -> str:
    more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
    return ", ".join(f"'{classes[row]}'" for row in rows[:shown]) + more


def _same_shape(splits: list[Split], image_size: int | None) -> list[Split]:
    from pipeline.data.images import resize_all, with_channels

    if image_size is not None:
        splits = [replace(split, images=resize_all(split.images, image_size)) for split in splits]
    channels = max(split.images.shape[3] for split in splits)
    splits = [replace(split, images=with_channels(split.images, channels)) for split in splits]
    train, test = splits[0].images.shape[1:], splits[-1].images.shape[1:]
    if any(split.images.shape[1:] != train for split in splits):
        raise DataError(
            "images differ in size between splits",
            why=f"train has {train[1]}x{train[0]}, test has {test[1]}x{test[0]} (width x height)",
            fix=f"set image_size in [data], e.g. image_size = {min(*train[:2], *test[:2])}",
        )
    return splits


def _statistics(images: NDArray[np.uint8]) -> Preprocessing:
    """Exact mean and standard deviation per channel, from the counts of the 256 levels."""
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[3]):
        counts = np.bincount(images[..., channel].reshape(-1), minlength=256)
        mean = float(counts @ levels / counts.sum())
        variance = float(counts @ (levels - mean) ** 2 / counts.sum())
        means.append(round(mean, 6))
        deviations.append(round(max(variance**0.5, _STD_FLOOR), 6))
    return Preprocessing(tuple(means), tuple(deviations))


def _digest(splits: list[Split], classes: tuple[str, ...], preprocessing: Preprocessing) -> str:
    shapes = [list(split.images.shape) for split in splits]
    head = {"shapes": shapes, "classes": list(classes), "preprocessing": preprocessing.to_json()}
    digest = hashlib.sha256(canonical_json(head).encode())
    for split in splits:
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()
