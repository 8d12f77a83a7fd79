"""Exported files kept by content, within a size, so that nothing is exported twice."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from devices.digests import file_digest
from devices.errors import TemporaryFolderError
from devices.host import is_full, temporary_folder
from pipeline.errors import UsageError

DEFAULT_LIMIT_BYTES = 2_000_000_000

_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?(kB|MB|GB)|(\d{1,15})")
# Down to this share of the limit, so that not every file that is added has others removed.
_KEPT_SHARE = 0.9


class ExportCache:
    """Files by the identity of a workload, which names block or network, format and versions of exporters.

    Safe among processes: a file is there whole or not at all, and whoever takes one has a link of its own, so
    that a file in use is not lost when it is removed here. Those that were used the longest ago go first.
    Where the folder cannot be used, nothing is kept.

    Args:
        folder: of the cache; made when it is first used.
        limit_bytes: how large all files together may be; 0 keeps nothing.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._size: int | None = None
        self._lock = threading.Lock()

    @classmethod
    def of_user(cls) -> ExportCache:
        """The cache in ``LATHE_CACHE``, else the user's cache folder, as large as ``LATHE_CACHE_SIZE``.

        Raises:
            UsageError: the size cannot be read.
        """
        folder = os.environ.get("LATHE_CACHE")
        size = os.environ.get("LATHE_CACHE_SIZE")
        return cls(
            (Path(folder) if folder else user_cache_path("lathe", appauthor=False)) / "exports",
            DEFAULT_LIMIT_BYTES if size is None else parse_size(size),
        )

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A temporary folder for files to take and to keep, on the disk of the cache where that is possible.

        Raises:
            TemporaryFolderError: there is no other temporary folder either.
        """
        with contextlib.ExitStack() as opened:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                place = None if is_full(self.folder) else self.folder
                folder = opened.enter_context(temporary_folder("exports", place))
            except (OSError, TemporaryFolderError):
                folder = opened.enter_context(temporary_folder("exports"))
            yield folder

    def holds(self, identity: str, suffix: str) -> bool:
        """Whether a file of a workload is kept."""
        return any(self._folder(identity).glob(f"{identity}-*{suffix}"))

    def take(self, identity: str, path: Path) -> bool:
        """Put the kept file of a workload at a path of the same suffix, and say whether there was one."""
        for kept in self._folder(identity).glob(f"{identity}-*{path.suffix}"):
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                _link(kept, path)
                if _name(identity, path) == kept.name:
                    os.utime(kept)
                    return True
                path.unlink()
                kept.unlink()
        return False

    def keep(self, identity: str, path: Path) -> None:
        """Keep a file, which must not change any more; that there is no space for it is no error."""
        with contextlib.suppress(OSError, TemporaryFolderError):
            size = path.stat().st_size
            if size > self.limit_bytes:
                return
            kept = self._folder(identity) / _name(identity, path)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                _link(path, kept)
            with self._lock:
                self._size = size + (self._files_size() if self._size is None else self._size)
                if self._size > self.limit_bytes:
                    self._size = self._evict()

    def _evict(self) -> int:
        """Remove what was used the longest ago; the size of the rest."""
        found = []
        for path in self._files():
            with contextlib.suppress(OSError):
                entry = path.stat()
                found.append((entry.st_mtime_ns, entry.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit_bytes * _KEPT_SHARE:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total

    def _files_size(self) -> int:
        return sum(path.stat().st_size for path in self._files())

    def _files(self) -> Iterator[Path]:
        return self.folder.glob("[0-9a-f][0-9a-f]/*")

    def _folder(self, identity: str) -> Path:
        return self.folder / identity[:2]


def parse_size(text: str) -> int:
    """Bytes of a text such as ``2 GB``, ``500 MB`` or ``0``.

    Raises:
        UsageError: it is something else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"LATHE_CACHE_SIZE is {text!r}, which is no size",
            fix="write a number of bytes, or one with kB, MB or GB, such as '2 GB'; 0 keeps nothing",
        )
    return int(match[3]) if match[3] else round(float(match[1]) * _UNITS[match[2]])


def _name(identity: str, path: Path) -> str:
    """The name under which a file is kept: its digest tells damage."""
    return f"{identity}-{file_digest(path)[:32]}{path.suffix}"


def _link(source: Path, path: Path) -> None:
    """A second name for a file, which is whole from the first moment; a copy where there are no links.

    Raises:
        FileExistsError: there is such a file.
        OSError: it cannot be made.
    """
    try:
        path.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        with temporary_folder("copy", path.parent) as folder:
            shutil.copyfile(source, folder / path.name)
            (folder / path.name).rename(path)
