"""MNIST and its relatives as their sites ship them: four idx files, gzip-compressed or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from devices.untrusted import Bounded
from pipeline.data.sources.base import LabelledImages, Source, missing
from pipeline.errors import DataError

_IMAGES_MAGIC = 0x00000803
_LABELS_MAGIC = 0x00000801


def read(path: Path) -> Source:
    """Read ``{train,t10k}-images-idx3-ubyte[.gz]`` and ``{train,t10k}-labels-idx1-ubyte[.gz]`` in a folder.

    Raises:
        DataError: a file is missing, damaged, of another format, or its length differs from its header.
    """

    def split(stem: str, what: str) -> LabelledImages:
        images = _idx(path, f"{stem}-images", _IMAGES_MAGIC, dimensions=3)
        labels = _idx(path, f"{stem}-labels", _LABELS_MAGIC, dimensions=1)
        return LabelledImages.of_arrays(images, labels, what=what)

    return Source(split("train", "train"), split("t10k", "test"), None)


def _idx(folder: Path, stem: str, magic: int, *, dimensions: int) -> NDArray[np.uint8]:
    names = [f"{stem}{dot}idx{dimensions}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        raise missing(folder, f"a folder with {names[0]} or {names[1]}")
    try:
        with file.open("rb") as stream:
            content = _content(stream, file.stat().st_size, packed=file.suffix == ".gz")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"'{file}' cannot be read", why=str(error), fix="download it again") from error
    start = 4 * (1 + dimensions)
    if len(content) < start or struct.unpack(">I", content[:4])[0] != magic:
        raise DataError(
            f"'{file}' is not an idx file of unsigned bytes with {dimensions} dimension(s)",
            why=f"it starts with {content[:4].hex() or 'nothing'}, expected {magic:08x}",
            fix="download it again, or correct 'kind' in [data]",
        )
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"'{file}' is incomplete",
            why=f"its header promises {math.prod(shape)} bytes, {len(content) - start} follow",
            fix="download it again",
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(stream: IO[bytes], size_bytes: int, *, packed: bool) -> bytes:
    if not packed:
        return stream.read()
    return Bounded(gzip.GzipFile(fileobj=stream), size_bytes).readall()
