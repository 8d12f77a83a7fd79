"""File systems of a chosen size, to fill; mounted by root, as CI is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SmallDisk:
    """A file system in memory.

    Args:
        path: an empty folder, where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, size: str) -> None:
        """Give it another size, such as ``64k`` or ``100m``."""
        self._mount(f"remount,size={size}")

    def protect(self) -> None:
        """Make it read-only."""
        self._mount("remount,ro")

    def unprotect(self) -> None:
        """Make it writable again."""
        self._mount("remount,rw")

    def _mount(self, options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "lathe-test", str(self.path)], check=True)


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[SmallDisk]:
    """A file system of a size in a new folder, while the context lasts."""
    path.mkdir(parents=True)
    disk = SmallDisk(path)
    disk._mount(f"size={size}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
