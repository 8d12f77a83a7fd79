"""What every data source hands over: labelled images as bytes, and how they become network input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks import SINGLE_LABEL, AnyTask


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, and what these mean.

    Attributes:
        images: ``(N, H, W, C)`` uint8 with C 1 to 4.
        labels: of a single label or an embedding ``(N,)`` int64, counted from 0; of other tasks ``(N, K)``
            float32.
        task: says what labels and outputs mean.
    """

    images: NDArray[np.uint8]
    labels: NDArray[Any]
    task: AnyTask = SINGLE_LABEL

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> Split:
        """The rows at ``index``, copied: for few of them, as all may be more than the memory holds."""
        return Split(self.images[index], self.labels[index], self.task)

    def first(self, count: int) -> Split:
        """At most so many rows, not copied; they come in a random order, so any prefix is a fair sample."""
        return Split(self.images[:count], self.labels[:count], self.task)

    def after(self, count: int) -> Split:
        """The rows that ``first`` leaves, not copied."""
        return Split(self.images[count:], self.labels[count:], self.task)

    @property
    def present(self) -> set[int]:
        """The classes that it has images of; none where labels are no classes."""
        return classes_in(self.labels)


def classes_in(labels: NDArray[Any]) -> set[int]:
    """The classes that labels name; none where labels are no classes."""
    return set(labels.tolist()) if labels.ndim == 1 else set()


@dataclass(frozen=True, eq=False)
class Decoded:
    """What was read of chosen images.

    Attributes:
        pixels: ``(n, H, W, C)`` uint8.
        rows: ``(n,)``, which of the chosen images these are.
        broken: the others by name, each with the reason why it cannot be decoded.
    """

    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    broken: tuple[str, ...] = ()

    @classmethod
    def whole(cls, pixels: NDArray[np.uint8]) -> Decoded:
        """All that were chosen."""
        return cls(pixels, np.arange(len(pixels)))


@dataclass(frozen=True)
class Preprocessing:
    """Bytes to float32: ``(image / 255 - mean) / std`` per channel. Written into every bundle."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``(N, H, W, C)`` uint8 to ``(N, H, W, C)`` float32."""
        scaled = images.astype(np.float32) / np.float32(255)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        result: NDArray[np.float32] = (scaled - mean) / std
        return result

    def to_json(self) -> dict[str, Any]:
        """The same as JSON."""
        return {"scale": 255, "mean": list(self.mean), "std": list(self.std)}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Train and test split with class names; ``digest`` is over the content of everything here.

    ``validation`` is a slice of the original train split, disjoint from ``train``; scores and early stop
    use it. ``test`` is read at verification only. ``classes`` are names: of classes, of labels, or of the
    numbers of a regression. ``notes`` say what was left out.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    digest: str
    notes: tuple[str, ...] = ()

    @property
    def task(self) -> AnyTask:
        """What labels and outputs mean."""
        return self.train.task

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, height, width, channels = self.train.images.shape
        return channels, height, width
