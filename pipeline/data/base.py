"""What every data source hands over: labelled images as bytes, and how they become network input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Split:
    """Images ``(N, H, W, C)`` uint8 with C 1 or 3, and labels ``(N,)`` int64 counted from 0."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.int64]) -> Split:
        """The rows at ``index``, copied."""
        return Split(self.images[index], self.labels[index])


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
    use it. ``test`` is read at verification only. ``notes`` say what was left out.
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
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        _, height, width, channels = self.train.images.shape
        return channels, height, width
