"""Arrays in one NumPy archive: pixels, or the concatenated bytes of encoded image files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.untrusted import arrays_from
from pipeline.data.base import Decoded
from pipeline.data.images import WHITE, Colour, Size, decode_all
from pipeline.data.sources.base import (
    CheckLabels,
    Index,
    LabelledImages,
    Source,
    check_labels,
    missing,
)
from pipeline.errors import DataError

_EXPECTED = "an .npz file with train_x, train_y, test_x, test_y (and, if wanted, classes)"


def read(
    path: Path, *, image_size: Size | None, background: Colour = WHITE, check: CheckLabels = check_labels
) -> Source:
    """Read ``train_x`` and ``test_x`` (pixels), or ``*_bytes`` with ``*_offsets`` (n + 1) of image files.

    Object arrays are refused: nothing is ever unpickled. ``check`` says what labels have to be.

    Raises:
        DataError: not such a file, arrays missing, of another type, or inconsistent.
    """
    if not path.is_file():
        raise missing(path, _EXPECTED)
    try:
        arrays = arrays_from(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"'{path}' cannot be read as an .npz file",
            why=str(error),
            fix="write it with numpy.savez, from arrays of numbers and strings only",
        ) from error
    classes = None
    if "classes" in arrays:
        classes = tuple(str(name) for name in arrays["classes"].reshape(-1))
    train, test = (_split(arrays, split, image_size, background, check) for split in ("train", "test"))
    return Source(train, test, classes)


def _split(
    arrays: Mapping[str, NDArray[Any]],
    split: str,
    image_size: Size | None,
    background: Colour,
    check: CheckLabels,
) -> LabelledImages:
    encoded = f"{split}_bytes" in arrays
    wanted = [f"{split}_bytes", f"{split}_offsets"] if encoded else [f"{split}_x"]
    absent = [name for name in [*wanted, f"{split}_y"] if name not in arrays]
    if absent:
        raise DataError(
            f"the archive lacks {', '.join(absent)}",
            why=f"it holds {', '.join(sorted(arrays)) or 'nothing'}",
            fix=f"store {_EXPECTED}",
        )
    labels = arrays[f"{split}_y"]
    if not encoded:
        return LabelledImages.of_arrays(arrays[f"{split}_x"], labels, what=split, check=check)
    content, offsets = arrays[f"{split}_bytes"], arrays[f"{split}_offsets"]
    in_order = (
        content.dtype == np.uint8
        and content.ndim == offsets.ndim == 1
        and offsets.dtype.kind in "iu"
        and len(offsets) > 0
        and offsets[0] == 0
        and offsets[-1] == len(content)
        and bool((offsets[1:] >= offsets[:-1]).all())
    )
    if not in_order:
        raise DataError(
            f"{split}_offsets do not cut {split}_bytes into files",
            why="the bytes must be uint8, and the n + 1 offsets must rise from 0 to their length",
            fix="store offsets = numpy.cumsum([0, *lengths])",
        )

    def decode(index: Index) -> Decoded:
        files = [content[offsets[row] : offsets[row + 1]].tobytes() for row in index]
        return decode_all(files, [f"{split} image {row}" for row in index], image_size, background)

    return LabelledImages(check(labels, len(offsets) - 1, what=split), decode)
