"""The transport of ADB: messages over one connection, and the streams that they carry.

Source: AOSP packages/modules/adb: protocol.txt.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import secrets
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.devices.adb_daemon import AdbDaemon

CHECKED_VERSION, UNCHECKED_VERSION = 0x01000000, 0x01000001
"""Messages of the first carry a checksum, those of the second need none."""

_HEADER = struct.Struct("<4s5I")
_FIRST_PAYLOAD, _LARGEST_PAYLOAD = 4096, 1 << 20
_TOKEN, _SIGNATURE, _PUBLIC_KEY = 1, 2, 3


class Transport:
    """One connection of an adb server; its streams are multiplexed over it."""

    def __init__(self, daemon: AdbDaemon, connection: socket.socket) -> None:
        self.daemon = daemon
        self.largest_payload = _FIRST_PAYLOAD
        self._connection = connection
        self._version = CHECKED_VERSION
        self._streams: dict[int, Stream] = {}
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()

    def serve(self) -> None:
        """Answer messages until the connection ends or something invalid comes."""
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                self._handle(*self._receive())

    def close(self) -> None:
        """End the connection and everything that runs for it."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        for stream in tuple(self._streams.values()):
            stream.end()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        """Send one message; nothing where the connection broke, which its reader notices."""
        word = int.from_bytes(command, "little")
        # The banner is sent before the versions are known to both.
        checked = self._version < UNCHECKED_VERSION or command in (b"CNXN", b"AUTH")
        checksum = sum(data) & 0xFFFFFFFF if checked else 0
        header = _HEADER.pack(command, first, second, len(data), checksum, word ^ 0xFFFFFFFF)
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(header + data)

    def send_banner(self) -> None:
        """The connection is established."""
        self.send(b"CNXN", self.daemon.version, _LARGEST_PAYLOAD, self.daemon.banner)

    def forget(self, stream: Stream) -> None:
        """The stream is closed on this side."""
        self._streams.pop(stream.local, None)

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        header = _read_exactly(self._connection, _HEADER.size)
        command, first, second, length, checksum, magic = _HEADER.unpack(header)
        if int.from_bytes(command, "little") ^ magic != 0xFFFFFFFF or length > _LARGEST_PAYLOAD:
            raise ValueError(f"invalid header {header!r}")
        data = _read_exactly(self._connection, length)
        if self._version < UNCHECKED_VERSION and sum(data) & 0xFFFFFFFF != checksum:
            raise ValueError(f"wrong checksum of {command!r}")
        return command, first, second, data

    def _handle(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if self.daemon.silent:
            return
        if command == b"CNXN":
            self._version = min(first, self.daemon.version)
            self.largest_payload = min(second, _LARGEST_PAYLOAD)
            self._greet()
        elif command == b"AUTH" and first == _SIGNATURE:
            self._greet()
        elif command == b"AUTH" and first == _PUBLIC_KEY:
            # The key is shown on the screen; nothing is answered until it is accepted there.
            if self.daemon.authorised:
                self.send_banner()
        elif command == b"OPEN" and self.daemon.authorised:
            self._open(first, data.rstrip(b"\0").decode("utf-8", errors="surrogateescape"))
        elif stream := self._streams.get(second):
            stream.handle(command, data)

    def _greet(self) -> None:
        if self.daemon.authorised:
            self.send_banner()
        else:
            self.send(b"AUTH", _TOKEN, 0, secrets.token_bytes(20))

    def _open(self, remote: int, destination: str) -> None:
        serve = self.daemon.service(destination)
        if serve is None:
            self.send(b"CLSE", 0, remote)
            return
        self.daemon.opened.append(destination)
        # Numbers are not given twice: an answer to a stream that was closed may still come.
        stream = Stream(self, next(self._numbers), remote)
        self._streams[stream.local] = stream
        self.send(b"OKAY", stream.local, remote)
        threading.Thread(target=serve, args=(stream,), daemon=True).start()


class Stream:
    """One service in use. Each side sends a message only when the other is ready for it."""

    def __init__(self, transport: Transport, local: int, remote: int) -> None:
        self.local = local
        self.ended = threading.Event()
        self.on_end = lambda: None
        self._transport = transport
        self._remote = remote
        self._ready = threading.Semaphore(1)
        self._incoming: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._rest = b""
        self._writing = threading.Lock()

    def handle(self, command: bytes, data: bytes) -> None:
        """A message of the other side."""
        if command == b"WRTE":
            self._incoming.put(data)
        elif command == b"OKAY":
            self._ready.release()
        elif command == b"CLSE":
            self._transport.forget(self)
            self.end()

    def end(self) -> None:
        """The other side is gone: wake up everybody who waits for it."""
        if not self.ended.is_set():
            self.ended.set()
            self._incoming.put(b"")
            self._ready.release()
            self.on_end()

    def write(self, data: bytes) -> None:
        """Send it, as fast as the other side takes it; EOFError when that is gone."""
        with self._writing:
            for start in range(0, len(data), self._transport.largest_payload):
                self._ready.acquire()
                if self.ended.is_set():
                    self._ready.release()
                    raise EOFError
                part = data[start : start + self._transport.largest_payload]
                self._transport.send(b"WRTE", self.local, self._remote, part)

    def read_exactly(self, size: int) -> bytes:
        """That many bytes; EOFError when the other side is gone."""
        parts = [self._rest]
        have = len(self._rest)
        while have < size:
            data = self._incoming.get()
            if not data:
                self._incoming.put(b"")
                raise EOFError
            self._transport.send(b"OKAY", self.local, self._remote)
            parts.append(data)
            have += len(data)
        joined = b"".join(parts)
        self._rest = joined[size:]
        return joined[:size]

    def close(self) -> None:
        """End it from this side."""
        self._transport.forget(self)
        if not self.ended.is_set():
            self.ended.set()
            self._transport.send(b"CLSE", self.local, self._remote)

    def cut(self) -> None:
        """Break the whole connection."""
        self._transport.close()


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        data = connection.recv(min(size, 1 << 16))
        if not data:
            raise EOFError
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
