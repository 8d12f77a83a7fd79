"""Files of NumPy's arrays, whose headers are held against the bytes that follow."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from devices.untrusted.compressed import open_zip
from devices.untrusted.files import regular_size

MOST_EMPTY = 1 << 20
_KINDS = "biufSU"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Header:
    """What the header of an array says: its shape, its order in memory and its type."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype[Any]

    @property
    def size_bytes(self) -> int:
        """What follows it."""
        return math.prod(self.shape) * self.dtype.itemsize


def npy_header(stream: IO[bytes], size_bytes: int) -> Header:
    """The header of an array at the beginning of a stream.

    Args:
        size_bytes: length of the stream.

    Raises:
        ValueError: it is no array of numbers or texts, or promises other than what follows.
    """
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"it has version {version} of the format of arrays")
    try:
        shape, by_columns, dtype = readers[version](stream)
    except Exception as error:  # the header is Python's syntax, whose readers raise many kinds
        raise ValueError(f"its header cannot be read: {error}") from error
    header = Header(shape, by_columns, dtype)
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise ValueError(f"it has type {dtype}, not one of numbers or texts")
    follow = size_bytes - stream.tell()
    if header.size_bytes == 0 and max(shape, default=0) > MOST_EMPTY:
        raise ValueError(f"it has the shape {shape}, and nothing in it")
    if any(length < 0 for length in shape) or header.size_bytes != follow:
        raise ValueError(f"its header promises {header.size_bytes:,} bytes, and {follow:,} follow")
    return header


def array_from(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, no such file, or damaged.
    """
    size = regular_size(path)
    with path.open("rb") as stream:
        return _array(stream, size)


def arrays_from(path: Path, only: Container[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.npz`` file by name.

    Args:
        path: the file.
        only: names of those that are wanted; all unless given.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file, damaged, or suspiciously small for what it unpacks to.
    """
    try:
        with open_zip(path) as archive:
            arrays = {}
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if only is None or name in only:
                    with archive.open(member) as stream:
                        arrays[name] = _array(stream, member.file_size)
            return arrays
    except _DAMAGED as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _array(stream: IO[bytes], size_bytes: int) -> NDArray[Any]:
    header = npy_header(stream, size_bytes)
    content = bytearray(header.size_bytes)
    view, done = memoryview(content), 0
    while part := stream.read(min(1 << 20, len(view) - done) or 1):
        if done + len(part) > len(view):
            raise ValueError("it is longer than its header says")
        view[done : done + len(part)] = part
        done += len(part)
    if done != len(view):
        raise ValueError("it ends too early")
    order = "F" if header.by_columns else "C"
    return np.frombuffer(content, header.dtype).reshape(header.shape, order=order)  # type: ignore[call-overload, no-any-return]
