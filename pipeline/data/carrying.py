"""Splits that go to another process of this machine: images in a mapped file by the file's name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.data.base import Split


@dataclass(frozen=True)
class _Mapped:
    """Images in a file, by its name."""

    path: str
    offset: int
    shape: tuple[int, ...]

    def open(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.asarray(np.memmap(self.path, np.uint8, "r", self.offset, self.shape))


def carried(split: Split) -> Split:
    """A split to be pickled; ``opened`` has its images again. Those in no file travel as they are."""
    images, base = split.images, split.images.base
    while type(base) is np.ndarray:  # A view of a view.
        base = base.base
    if not isinstance(base, np.memmap) or not images.flags.c_contiguous:
        return split
    found: Any = _Mapped(str(base.filename), base.offset + _address(images) - _address(base), images.shape)
    return replace(split, images=found)


def _address(array: np.ndarray[Any, Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def opened(split: Split) -> Split:
    """A split that ``carried`` gave to another process."""
    images: Any = split.images
    return replace(split, images=images.open()) if isinstance(images, _Mapped) else split
