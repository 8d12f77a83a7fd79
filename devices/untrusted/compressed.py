"""Streams that are unpacked, up to a length."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import IO, Any

from devices.untrusted.files import regular_size

FREE_BYTES = 64 << 20
"""So much may come of any file, however small."""
MOST_RATIO = 200
"""Beyond that, so many bytes for each of the file."""


MOST_MEMBERS = 20_000


def open_zip(path: Path) -> zipfile.ZipFile:
    """An archive whose members can be read without an eye on their sizes.

    Raises:
        OSError, zipfile.BadZipFile: it cannot be read.
        ValueError: it unpacks to too much, or is no regular file.
    """
    size = regular_size(path)
    archive = zipfile.ZipFile(path)
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if len(members) > MOST_MEMBERS or unpacked > FREE_BYTES + MOST_RATIO * size:
        archive.close()
        raise ValueError("it is suspiciously small for what it unpacks to")
    return archive


class Bounded(io.RawIOBase):
    """What a stream unpacks, refused beyond ``FREE_BYTES`` and ``MOST_RATIO`` bytes for each packed one.

    Its ``readinto`` raises ValueError at the first read that goes beyond.
    """

    def __init__(self, unpacked: IO[bytes] | gzip.GzipFile, packed_bytes: int) -> None:
        self._unpacked = unpacked
        self._left = FREE_BYTES + MOST_RATIO * packed_bytes

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Some of the bytes; 0 at the end."""
        view = memoryview(buffer)
        content = self._unpacked.read(min(len(view), 1 << 16))
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("it is suspiciously small for what it unpacks to")
        view[: len(content)] = content
        return len(content)
