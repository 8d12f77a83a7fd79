"""Whole files, up to a length."""

from __future__ import annotations

import stat
from pathlib import Path


def file_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file: a pipe or a device, of which reading might not end, is refused.

    Args:
        most: bytes that it may have.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer, or no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path.name} has more than {most:,} bytes")
    return content
