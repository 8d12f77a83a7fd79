"""What labels have to be for a task, and how images are chosen by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from devices.words import count_of
from pipeline.data.sources.base import CheckLabels, Source, check_labels, check_vectors
from pipeline.data.splits import balanced_subset, paired_split, random_split, stratified_split
from pipeline.errors import DataError
from pipeline.tasks import AnyTask, Embedding, MultiLabel, Regression, SingleLabel, TaskKind

Index = NDArray[np.int64]


class Labelling(Protocol):
    """What is done by labels of a kind."""

    @property
    def by_class(self) -> bool:
        """Whether an image has a class; else it has several numbers."""
        ...

    @property
    def check(self) -> CheckLabels:
        """What a source's labels have to be."""
        ...

    def names(self, source: Source) -> tuple[str, ...]:
        """Names of classes, labels or numbers.

        Raises:
            DataError: the labels of the source cannot be learned.
        """
        ...

    def split(
        self, labels: NDArray[Any], share: float, names: tuple[str, ...], seed: int
    ) -> tuple[Index, Index]:
        """Rows ``(kept, held out)``, in a random order fixed by ``seed``.

        Raises:
            DataError: there are too few.
        """
        ...

    def subset(self, labels: NDArray[Any], limit: int, names: tuple[str, ...], seed: int) -> Index:
        """At most ``limit`` rows, in a random order fixed by ``seed``.

        Raises:
            DataError: the limit is too low.
        """
        ...

    def task(self, splits: Mapping[str, NDArray[Any]]) -> AnyTask:
        """The task, from the labels of all splits by their names.

        Raises:
            DataError: there is nothing to learn in those of the train split, or nothing to judge by.
        """
        ...


def labelling_of(kind: TaskKind) -> Labelling:
    """What is done by the labels of a task."""
    if kind in ("single-label", "embedding"):
        return ByClass(kind == "embedding")
    return ByVector(kind == "multi-label")


@dataclass(frozen=True)
class ByClass:
    """Each image has the number of a class; with ``open``, no split needs to have every class."""

    open: bool
    check: CheckLabels = check_labels
    by_class: ClassVar[bool] = True

    def names(self, source: Source) -> tuple[str, ...]:
        """Names of the classes."""
        labels = _splits_with_images(source)
        lowest = min(int(split.min()) for split in labels.values())
        highest = max(int(split.max()) for split in labels.values())
        classes = source.classes or tuple(str(label) for label in range(min(highest, 65535) + 1))
        if lowest < 0 or highest >= len(classes):
            raise DataError(
                f"labels run from {lowest} to {highest}, but there are {count_of(len(classes), 'class')}",
                why=f"the labels of {count_of(len(classes), 'class')} are 0 to {len(classes) - 1}",
                fix="count labels from 0 and name every class once",
            )
        _require_unique(classes, "class")
        if len(classes) < 2:
            raise DataError(
                "the data have only one class",
                why=f"every image is labelled '{classes[0]}'",
                fix="give images of at least two classes; in a folder, one folder per class below train",
            )
        if not self.open:
            _require_every_class(labels, classes)
        return classes

    def split(
        self, labels: NDArray[Any], share: float, names: tuple[str, ...], seed: int
    ) -> tuple[Index, Index]:
        """The same share of each class; with ``open`` at least two images of a class."""
        if self.open:
            return paired_split(labels, share, seed=seed)
        return stratified_split(labels, share, names, seed=seed)

    def subset(self, labels: NDArray[Any], limit: int, names: tuple[str, ...], seed: int) -> Index:
        """As many of each class."""
        return balanced_subset(labels, limit, seed=seed)

    def task(self, splits: Mapping[str, NDArray[Any]]) -> AnyTask:
        """An embedding is judged by images that have the same label."""
        if not self.open:
            return SingleLabel()
        for name in ("validation", "test"):
            _require_pair(splits[name], name)
        return Embedding()


@dataclass(frozen=True)
class ByVector:
    """Each image has several numbers; with ``binary`` they are 0 or 1."""

    binary: bool
    check: CheckLabels = check_vectors
    by_class: ClassVar[bool] = False

    def names(self, source: Source) -> tuple[str, ...]:
        """Names of the labels or numbers."""
        labels = _splits_with_images(source)
        widths = {name: split.shape[1] for name, split in labels.items()}
        names = source.classes or tuple(map(str, range(labels["train"].shape[1])))
        if set(widths.values()) != {len(names)}:
            raise DataError(
                f"the data name {count_of(len(names), 'output')}, and their labels have others",
                why=", ".join(f"{name}: {width} numbers for each image" for name, width in widths.items()),
                fix="give every image as many numbers, and 'classes' a name for each",
            )
        _require_unique(names, "label")
        if self.binary:
            _require_binary(labels, names)
        return names

    def split(
        self, labels: NDArray[Any], share: float, names: tuple[str, ...], seed: int
    ) -> tuple[Index, Index]:
        """Whatever their labels."""
        return random_split(len(labels), share, seed=seed)

    def subset(self, labels: NDArray[Any], limit: int, names: tuple[str, ...], seed: int) -> Index:
        """Whatever their labels."""
        return np.random.default_rng(seed).permutation(len(labels))[:limit]

    def task(self, splits: Mapping[str, NDArray[Any]]) -> AnyTask:
        """A regression has the mean and spread of its numbers."""
        if self.binary:
            return MultiLabel()
        task = Regression.of(splits["train"])
        if min(task.std) <= 0:
            raise DataError(
                f"number {task.std.index(0.0)} is the same for every train image",
                fix="leave it out, or give more images",
            )
        return task


def _splits_with_images(source: Source) -> dict[str, NDArray[Any]]:
    labels = {"train": source.train.labels}
    if source.test is not None:
        labels["test"] = source.test.labels
    if any(len(split) == 0 for split in labels.values()):
        raise DataError(
            "a split holds no images", fix="give both train and test at least one image per class"
        )
    return labels


def _require_unique(names: tuple[str, ...], what: str) -> None:
    if len(set(names)) != len(names):
        raise DataError(f"{what} names are not unique", why=", ".join(names), fix=f"name every {what} once")


def _require_every_class(labels: Mapping[str, NDArray[Any]], classes: tuple[str, ...]) -> None:
    absent = {name: np.setdiff1d(np.arange(len(classes)), split) for name, split in labels.items()}
    lacking = [f"{name} lacks {_names(rows, classes)}" for name, rows in absent.items() if len(rows)]
    if lacking:
        raise DataError(
            "classes without images" if len(labels) == 1 else "classes differ between train and test",
            why="; ".join(lacking),
            fix="give every split images of every class (labels count from 0), or remove the class from both",
        )


def _require_pair(labels: NDArray[Any], name: str) -> None:
    if not (np.bincount(labels) > 1).any():
        raise DataError(
            f"no two {name} images have the same label",
            why="an embedding is judged by whether the image most similar to another has its label",
            fix=f"give two images or more of a label, and raise the limit on {name} images if there is one",
        )


def _require_binary(labels: Mapping[str, NDArray[Any]], names: tuple[str, ...]) -> None:
    for name, split in labels.items():
        if not np.isin(split, (0, 1)).all():
            raise DataError(
                f"the {name} labels are not all 0 or 1",
                why='with task = "multi-label", each number says whether the image has a label',
                fix='store 0 or 1, or set task = "regression" in [data]',
            )
        rows = np.flatnonzero(split.sum(axis=0) == 0)
        if len(rows):
            raise DataError(
                f"no {name} image has the label {_names(rows, names)}",
                fix="give every split an image with each label, or leave the label out",
            )


def _names(rows: NDArray[np.int64], names: tuple[str, ...], shown: int = 8) -> str:
    more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
    return ", ".join(f"'{names[row]}'" for row in rows[:shown]) + more
