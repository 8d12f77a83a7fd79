"""One folder per class (torchvision's ImageFolder layout), with or without train and test folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.images import decode_all
from pipeline.data.sources.base import Index, LabelledImages, Source, missing
from pipeline.errors import DataError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
_TEST_NAMES = ("test", "val", "valid", "validation")
_LAYOUT = "a folder per class with image files, or train/CLASS/ and test/CLASS/"


def read(path: Path, *, image_size: int | None) -> Source:
    """Read ``path/train/CLASS/*`` and ``path/test/CLASS/*``, or ``path/CLASS/*`` without a test split.

    Without ``test``, a folder ``val``, ``valid`` or ``validation`` stands for it. Files that are not
    images by their suffix, and hidden ones, are passed over.

    Raises:
        DataError: no such folder, no classes, no images.
    """
    if not path.is_dir():
        raise missing(path, _LAYOUT)
    split = {folder.name: folder for folder in _folders(path)}
    if "train" in split and _folders(split["train"]):
        train = split["train"]
        test = next((split[name] for name in _TEST_NAMES if name in split), None)
    else:
        train, test = path, None
    names = sorted({f.name for folder in (train, test) if folder is not None for f in _folders(folder)})
    if not names:
        raise missing(train, _LAYOUT)
    held_out = None if test is None else _labelled(test, names, image_size)
    return Source(_labelled(train, names, image_size), held_out, tuple(names))


def _labelled(folder: Path, names: list[str], image_size: int | None) -> LabelledImages:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        found = sorted(
            file
            for file in (folder / name).rglob("*")
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()
        )
        files += found
        labels += [label] * len(found)
    if not files:
        raise DataError(
            f"no images under '{folder}'",
            why=f"looked for {', '.join(sorted(_SUFFIXES))} in {len(names)} class folder(s)",
            fix=f"expected {_LAYOUT}",
        )

    def decode(index: Index) -> NDArray[np.uint8]:
        chosen = [files[row] for row in index]
        return decode_all(chosen, [str(file) for file in chosen], image_size)

    return LabelledImages(np.asarray(labels, np.int64), decode)


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))
