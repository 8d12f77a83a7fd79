"""Files that are written whole or not at all, and clear errors where they cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import WorkFolderError

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that a kill or a full disk leaves the old content or the new one.

    Raises:
        OSError: it cannot be written; it names the file.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        # What does not fit must not fill the disk either.
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into one clear error; other errors pass."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in _DISK_FULL:
            raise WorkFolderError(
                f"there is no space to write {where}",
                why=str(error.strerror),
                fix="free some space and run the same command again: it continues from what is finished",
            ) from error
        if error.errno in (*_UNWRITABLE, errno.ENOTDIR, errno.EEXIST):
            raise WorkFolderError(
                f"cannot write {where}",
                why=str(error.strerror),
                fix="choose another folder with --work, or change the folder's permissions",
            ) from error
        raise
