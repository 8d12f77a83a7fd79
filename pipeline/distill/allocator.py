"""Memory that a step of a training frees is kept for the next one.

glibc gives large blocks back to the system as soon as they are free, and the next step pays for each of their
pages again (mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the parameters in malloc.h."""
_LARGEST_KEPT_BYTES, _MOST_KEPT_BYTES = 32 * 2**20, 512 * 2**20
"""Of one block, the most that glibc takes, and of all at the end of the heap."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While the block runs, this process keeps what it frees; then it gives it back.

    Does nothing with other C libraries than glibc. Blocks of more than 32 MiB go back to the system as ever.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is None or not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)
    libc.mallopt(_TRIM_THRESHOLD, _MOST_KEPT_BYTES)
    try:
        yield
    finally:
        libc.malloc_trim(0)
