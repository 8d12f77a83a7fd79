"""Temporary folders, each locked while its process lives, so that those of dead processes can be told."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from devices.errors import TemporaryFolderError

PREFIX = "lathe-temporary-"
"""Begins the names of folders that may be removed, so nothing that a user would choose."""

_HIDDEN = f".{PREFIX}"
_LEAST_FREE_BYTES = 1 << 20
_UNLOCKED_S = 3600.0
"""How old a folder must be that was made and not yet locked before it counts as abandoned."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)

_own: set[Path] = set()
_swept: set[Path] = set()
_sweeping = threading.Lock()


@contextlib.contextmanager
def temporary_folder(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """A private folder that is gone in the end. A killed process leaves its own to ``remove_abandoned``.

    The first folder that a process makes in a place removes abandoned ones there.

    Args:
        purpose: a word for its name, ``lathe-PURPOSE-...``.
        parent: where; the system's temporary folder unless given.

    Raises:
        TemporaryFolderError: it cannot be made, or its disk was full when something was to be written to it.
    """
    place = parent or _system_folder()
    with _sweeping:
        if place not in _swept:
            _swept.add(place)
            remove_abandoned(place)
    with contextlib.ExitStack() as opened:
        with _errors(place):
            hidden = Path(tempfile.mkdtemp(prefix=f"{_HIDDEN}{purpose}-", dir=place))
            folder = hidden.with_name(hidden.name[1:])
            _own.add(folder)
            opened.callback(_own.discard, folder)
            opened.callback(shutil.rmtree, folder, ignore_errors=True)
            opened.enter_context(_locked(hidden))
            hidden.rename(folder)
        with _errors(place):
            yield folder


def remove_abandoned(place: Path | None = None) -> None:
    """Remove the temporary folders of processes that live no more; what cannot be removed is left alone."""
    place = place or _system_folder()
    for folder in place.glob(f"{PREFIX}*-*"):
        with contextlib.suppress(OSError), _locked(folder):
            shutil.rmtree(folder, ignore_errors=True)
    for folder in place.glob(f"{_HIDDEN}*-*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _UNLOCKED_S:
                shutil.rmtree(folder, ignore_errors=True)


def _system_folder() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise TemporaryFolderError(
            "there is no temporary folder that can be written",
            why=str(error.strerror),
            fix="free some space there, or set TMPDIR to a folder with space, and run the same command again",
        ) from error


def is_full(place: Path) -> bool:
    """Whether the disk of a folder has no space worth the name."""
    return shutil.disk_usage(place).free < _LEAST_FREE_BYTES


def full(place: Path) -> TemporaryFolderError:
    """The error for a full disk of temporary folders."""
    return TemporaryFolderError(
        f"there is no space left in the temporary folder {place}",
        why="its disk is full",
        fix="free some space there, or set TMPDIR (LATHE_CACHE for exported models) to a folder with space, "
        "and run the same command again",
    )


def remove_own() -> None:
    """Remove the temporary folders of this process, which is about to be ended wherever it is."""
    for folder in tuple(_own):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which ends with the process.

    Raises:
        OSError: another process holds it, it is no folder or somebody else's, or there are no locks there.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _errors(place: Path) -> Iterator[None]:
    """A full or unwritable place as one clear error; other errors pass, those of other disks too."""
    try:
        yield
    except OSError as error:
        inside = error.filename is not None and Path(error.filename).is_relative_to(place)
        if error.errno in _DISK_FULL and (inside or is_full(place)):
            raise full(place) from error
        at_place = error.filename is not None and Path(error.filename).parent == place
        if at_place and error.errno in _UNUSABLE:
            raise TemporaryFolderError(
                f"no temporary folder can be made in {place}",
                why=str(error.strerror),
                fix="make it writable, or set TMPDIR to a folder that is",
            ) from error
        raise
