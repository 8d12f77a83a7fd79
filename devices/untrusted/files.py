"""Regular files, and what is in them up to a length."""

from __future__ import annotations

import stat
from pathlib import Path


def regular_size(path: Path) -> int:
    """Bytes of a regular file: a pipe or a device, of which reading might not end, is refused.

    Raises:
        OSError: there is no such file.
        ValueError: it is no regular file.
    """
    seen = path.stat()
    if not stat.S_ISREG(seen.st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    return seen.st_size


def file_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file, see ``regular_size``.

    Args:
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer, or no regular file.
    """
    size = regular_size(path)
    with path.open("rb") as stream:
        # So much memory is taken at once, whatever there is to read.
        content = stream.read(min(most, size) + 1)
    if len(content) > most:
        raise ValueError(f"{path.name} has more than {most:,} bytes")
    return content
