"""From a source to a ``Dataset``: checks, limits, splits, sizes, normalisation, digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.digests import canonical_json
from devices.host import temporary_folder
from pipeline.data.base import Dataset, Preprocessing, Split, classes_in
from pipeline.data.config import DataConfig
from pipeline.data.duplicates import rows_without_duplicates
from pipeline.data.images import Size
from pipeline.data.labels import Labelling, labelling_of
from pipeline.data.sources.base import LabelledImages, Source
from pipeline.data.store import StoredImages, journal_of, store_images
from pipeline.errors import DataError
from pipeline.tasks import AnyTask, Regression

_TEST_SEED = 0
_STD_FLOOR = 1 / 255
_COUNTED = 64
"""Images whose levels are counted at a time."""
_SHOWN = 5


Progress = Callable[[int, int], None]
"""Called with how many images were read, and how many there are."""

SPLITS = ("train", "validation", "test")


def image_file(split: str) -> str:
    """Name of the file with the images of a split."""
    return f"{split}.images"


def load(
    config: DataConfig,
    *,
    seed: int,
    folder: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Dataset:
    """Read, check, split and normalise the data of a recipe; memory does not grow with their number.

    ``seed`` decides which train images are kept under ``train_limit`` and which go to validation. The test
    split never depends on it, so runs with different seeds are tested on the same images. The rows of each
    split come in a fixed random order.

    Args:
        config: the recipe's table.
        seed: see above.
        folder: for the images, a file for each split. A call that was killed goes on there where it was.
            Without one they are in temporary files, which last as long as they are used.
        progress: called while images are read.

    Raises:
        DataError: the data are missing, unreadable, empty or inconsistent.
    """
    labelling = labelling_of(config.task)
    source = _read(config, labelling)
    train, test = source.train, source.test
    classes = labelling.names(source)
    if test is None:
        kept, held = labelling.split(train.labels, config.test, classes, _TEST_SEED)
        train, test = train.take(kept), train.take(held)
    if config.train_limit is not None:
        train = train.take(labelling.subset(train.labels, config.train_limit, classes, seed))
    test_limit = len(test.labels) if config.test_limit is None else config.test_limit
    test = test.take(labelling.subset(test.labels, test_limit, classes, _TEST_SEED))
    kept, held = labelling.split(train.labels, config.validation, classes, seed)
    chosen = dict(zip(SPLITS, (train.take(kept), train.take(held), test), strict=True))
    with temporary_folder("data") if folder is None else nullcontext(folder) as place:
        stored = _stored(chosen, place, config.image_size, progress)
        left_out = _left_out(chosen, stored, classes, skip=config.broken == "skip")
        _require_one_size(stored)
        splits = _splits(chosen, stored)
        rows, notes = rows_without_duplicates(splits, classes, remove=config.duplicates == "remove")
        for name, kept in zip(SPLITS, rows, strict=True):
            if len(kept) < len(stored[name].rows):
                stored[name] = stored[name].keep(kept)
            journal_of(stored[name].path).unlink()
        splits = _splits(chosen, stored)
    task = labelling.task({name: split.labels for name, split in zip(SPLITS, splits, strict=True)})
    splits = [_of_task(split, task) for split in splits]
    preprocessing = _statistics(splits[0].images)
    digest = _digest(splits, classes, preprocessing)
    fitted, validation, tested = splits
    notes = (*source.notes, *left_out, *notes)
    return Dataset(config.kind, fitted, validation, tested, classes, preprocessing, digest, notes)


def _of_task(split: Split, task: AnyTask) -> Split:
    labels = task.standardised(split.labels) if isinstance(task, Regression) else split.labels
    return Split(split.images, labels, task)


def _read(config: DataConfig, labelling: Labelling) -> Source:
    if config.kind == "digits":
        from pipeline.data.sources import digits

        return digits.read()
    if config.path is None:
        raise DataError(f"data of kind '{config.kind}' needs a path", fix="set 'path' in [data]")
    try:
        return _read_files(config, config.path, labelling)
    except OSError as error:
        raise DataError(
            f"'{config.path}' cannot be read", why=str(error), fix="check that the files may be read"
        ) from error


def _read_files(config: DataConfig, path: Path, labelling: Labelling) -> Source:
    from pipeline.data.sources import cifar, folder, huggingface, mnist, npz, table

    size, background = config.image_size, config.background
    match config.kind:
        case "cifar":
            source = cifar.read(path)
        case "mnist":
            source = mnist.read(path)
        case "npz":
            source = npz.read(path, image_size=size, background=background, check=labelling.check)
        case "table":
            source = table.read(path, image_size=size, background=background, by_class=labelling.by_class)
        case "huggingface":
            source = huggingface.read(path, image_size=size, background=background)
        case _:
            source = folder.read(path, image_size=size, background=background)
    return source


def _stored(
    chosen: Mapping[str, LabelledImages], folder: Path, size: Size | None, progress: Progress
) -> dict[str, StoredImages]:
    """The images of each split in a file, all of as many channels.

    Raises:
        DataError: they have other numbers than one and three.
    """
    read, total = 0, sum(len(split.labels) for split in chosen.values())

    def advance(more: int) -> None:
        nonlocal read
        read += more
        progress(min(read, total), total)

    def each(name: str, channels: int) -> StoredImages:
        path = folder / image_file(name)
        return store_images(chosen[name], path, size=size, channels=channels, advance=advance)

    stored = {name: each(name, 1) for name in SPLITS}
    numbers = {name: found.shape[2] for name, found in stored.items()}
    if len(set(numbers.values())) > 1 and not set(numbers.values()) <= {1, 3}:
        raise DataError(
            "the images of the splits have different numbers of channels",
            why=", ".join(f"{name}: {number}" for name, number in numbers.items()),
            fix="store the same channels for all; only grey images are given colour where others have it",
        )
    channels = max(numbers.values())
    return {
        name: found if found.shape[2] == channels else each(name, channels) for name, found in stored.items()
    }


def _splits(chosen: Mapping[str, LabelledImages], stored: Mapping[str, StoredImages]) -> list[Split]:
    return [Split(stored[name].images, chosen[name].labels[stored[name].rows]) for name in SPLITS]


def _left_out(
    chosen: Mapping[str, LabelledImages],
    stored: Mapping[str, StoredImages],
    classes: tuple[str, ...],
    *,
    skip: bool,
) -> tuple[str, ...]:
    """What there is to say of images that were left out.

    Raises:
        DataError: images cannot be decoded that may not be left out, or a class would lose all its images.
    """
    broken = [each for found in stored.values() for each in found.broken]
    if not broken:
        return ()
    more = f", and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    named, count = "; ".join(broken[:_SHOWN]) + more, sum(len(split.labels) for split in chosen.values())
    if not skip:
        raise DataError(
            f"{len(broken)} of {count} images cannot be decoded",
            why=named,
            fix='replace or remove these files, or set broken = "skip" in [data] to leave them out',
        )
    for name, split in zip(SPLITS, _splits(chosen, stored), strict=True):
        gone = sorted(classes_in(chosen[name].labels) - split.present)
        if gone:
            raise DataError(
                f"no {name} image of class '{classes[gone[0]]}' is left",
                why=f"{len(broken)} of {count} images cannot be decoded: {named}",
                fix="replace these files",
            )
    return (f"left out {len(broken)} of {count} images that cannot be decoded: {named}",)


def _require_one_size(stored: Mapping[str, StoredImages]) -> None:
    train, test = stored["train"].shape, stored["test"].shape
    if any(found.shape[:2] != train[:2] for found in stored.values()):
        raise DataError(
            "images differ in size between splits",
            why=f"train has {train[1]}x{train[0]}, test has {test[1]}x{test[0]} (width x height)",
            fix=f"set image_size in [data], e.g. image_size = {min(*train[:2], *test[:2])}",
        )


def _statistics(images: NDArray[np.uint8]) -> Preprocessing:
    """Exact mean and standard deviation per channel, from the counts of the 256 levels."""
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[3]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), _COUNTED):
            counts += np.bincount(images[start : start + _COUNTED, ..., channel].reshape(-1), minlength=256)
        mean = float(counts @ levels / counts.sum())
        variance = float(counts @ (levels - mean) ** 2 / counts.sum())
        means.append(round(mean, 6))
        deviations.append(round(max(variance**0.5, _STD_FLOOR), 6))
    return Preprocessing(tuple(means), tuple(deviations))


def _digest(splits: list[Split], classes: tuple[str, ...], preprocessing: Preprocessing) -> str:
    shapes = [list(split.images.shape) for split in splits]
    head = {
        "shapes": shapes,
        "classes": list(classes),
        "preprocessing": preprocessing.to_json(),
        "task": asdict(splits[0].task),
    }
    digest = hashlib.sha256(canonical_json(head).encode())
    for split in splits:
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()
