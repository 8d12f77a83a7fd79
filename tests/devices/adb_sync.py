"""The sync service of an Android device, which moves files.

Sources: AOSP packages/modules/adb: SYNC.TXT, file_sync_protocol.h, and the behaviour of
daemon/file_sync_service.cpp.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from tests.devices.adb_transport import Stream

if TYPE_CHECKING:
    from tests.devices.adb_daemon import AdbDaemon

_REQUEST = struct.Struct("<4sI")
_STAT_V1 = struct.Struct("<4sIII")
_STAT_V2 = struct.Struct("<4sIQQIIIIQqqq")
_LONGEST_PATH, _LARGEST_CHUNK = 1024, 64 * 1024


class _SyncError(Exception):
    """What the device could not do, in the words in which the client hears of it."""


def serve_sync(daemon: AdbDaemon, stream: Stream) -> None:
    """Files: requests of the sync protocol, until QUIT or the first failure."""
    service = _Sync(daemon, stream)
    with contextlib.suppress(EOFError):
        while service.answer():
            pass
    stream.close()


class _Sync:
    def __init__(self, daemon: AdbDaemon, stream: Stream) -> None:
        self._daemon = daemon
        self._stream = stream

    def answer(self) -> bool:
        """Answer one request; whether another may follow."""
        request, length = _REQUEST.unpack(self._stream.read_exactly(_REQUEST.size))
        try:
            if length > _LONGEST_PATH:
                raise _SyncError("path too long")
            name = os.fsdecode(self._stream.read_exactly(length))
            match request:
                case b"STAT":
                    self._stat_v1(name)
                case b"STA2" | b"LST2":
                    self._stat_v2(request, name)
                case b"SEND":
                    self._receive(name)
                case b"RECV":
                    self._send(name)
                case b"QUIT":
                    return False
                case _:
                    raise _SyncError(f"unknown command {request!r}")
        except _SyncError as error:
            reason = str(error).encode()
            self._stream.write(_REQUEST.pack(b"FAIL", len(reason)) + reason)
            if request == b"SEND":
                # Clients notice the failure only after they have sent everything.
                self._discard()
            return False
        return True

    def _path(self, name: str) -> Path:
        return self._daemon.root / name.lstrip("/")

    def _stat_v1(self, name: str) -> None:
        try:
            found = self._path(name).lstat()
            answer = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
        except OSError:
            answer = (0, 0, 0)
        self._stream.write(_STAT_V1.pack(b"STAT", *answer))

    def _stat_v2(self, request: bytes, name: str) -> None:
        try:
            found = self._path(name).stat(follow_symlinks=request == b"STA2")
        except OSError as error:
            self._stream.write(_STAT_V2.pack(request, error.errno or errno.EIO, *[0] * 10))
            return
        self._stream.write(
            _STAT_V2.pack(
                request,
                0,
                found.st_dev,
                found.st_ino,
                found.st_mode,
                found.st_nlink,
                found.st_uid,
                found.st_gid,
                found.st_size,
                int(found.st_atime),
                int(found.st_mtime),
                int(found.st_ctime),
            )
        )

    def _receive(self, specification: str) -> None:
        name, comma, mode_text = specification.rpartition(",")
        if not comma or not mode_text.isdecimal():
            raise _SyncError("missing , in ID_SEND")
        path, mode = self._path(name), int(mode_text)
        if not stat.S_ISREG(mode):
            raise _SyncError("only files are supported")
        if path.is_file() or path.is_symlink():
            path.unlink()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except OSError as error:
            raise _SyncError(f"couldn't create file: {error.strerror}") from error
        with file:
            while True:
                kind, size = _REQUEST.unpack(self._stream.read_exactly(_REQUEST.size))
                if kind == b"DONE":
                    break
                if kind != b"DATA" or size > _LARGEST_CHUNK:
                    raise _SyncError("invalid data message")
                data = self._stream.read_exactly(size)
                self._count(size)
                try:
                    self._take_space(size)
                    file.write(data)
                    file.flush()
                except OSError as error:
                    path.unlink()
                    raise _SyncError(f"write failed: {error.strerror}") from error
        path.chmod(mode & 0o777)
        os.utime(path, (size, size))
        self._stream.write(_REQUEST.pack(b"OKAY", 0))

    def _send(self, name: str) -> None:
        try:
            file = self._path(name).open("rb")
        except OSError as error:
            raise _SyncError(f"open failed: {error.strerror}") from error
        with file:
            while data := file.read(_LARGEST_CHUNK - _REQUEST.size):
                self._count(len(data))
                self._stream.write(_REQUEST.pack(b"DATA", len(data)) + data)
        self._stream.write(_REQUEST.pack(b"DONE", 0))

    def _discard(self) -> None:
        while True:
            kind, size = _REQUEST.unpack(self._stream.read_exactly(_REQUEST.size))
            if kind != b"DATA":
                return
            self._stream.read_exactly(size)

    def _take_space(self, size: int) -> None:
        if self._daemon.space_bytes is not None:
            self._daemon.space_bytes -= size
            if self._daemon.space_bytes < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _count(self, size: int) -> None:
        if self._daemon.cut_after is not None:
            self._daemon.cut_after -= size
            if self._daemon.cut_after < 0:
                self._daemon.cut_after = None
                self._stream.cut()
                raise EOFError
