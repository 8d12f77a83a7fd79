"""The phone's side of ADB, for the real adb client: what adbd is on Android, with faults on demand.

Sources: AOSP packages/modules/adb: protocol.txt, SYNC.TXT, file_sync_protocol.h, shell_protocol.h, and the
behaviour of daemon/shell_service.cpp and daemon/file_sync_service.cpp.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import secrets
import signal
import socket
import stat
import struct
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

CHECKED_VERSION, UNCHECKED_VERSION = 0x01000000, 0x01000001
"""Messages of the first carry a checksum, those of the second need none."""
FEATURES = ("shell_v2", "stat_v2", "fixed_push_mkdir")

_HEADER = struct.Struct("<4s5I")
_FIRST_PAYLOAD, _LARGEST_PAYLOAD = 4096, 1 << 20
_TOKEN, _SIGNATURE, _PUBLIC_KEY = 1, 2, 3

_PACKET = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)

_REQUEST = struct.Struct("<4sI")
_STAT_V1 = struct.Struct("<4sIII")
_STAT_V2 = struct.Struct("<4sIQQIIIIQqqq")
_LONGEST_PATH, _LARGEST_CHUNK = 1024, 64 * 1024


# Arguments: the tree, a folder of this machine that is its /home, and what the shell there gets.
_IN_TREE = """
tree=$1 home=$2; shift 2
mount --bind "$home" "$tree/home" && mount --rbind /dev "$tree/dev" && mount -t proc proc "$tree/proc" &&
exec chroot "$tree" /bin/sh "$@"
"""


def shell_in_tree(tree: Path, root: Path) -> tuple[str, ...]:
    """The ``shell`` of a device whose programs are those of ``tree``; it needs root.

    The device's ``/home`` is the folder ``home`` of ``root``, which must also be the ``root`` of its sync
    service. Mounts are seen by the shell alone, and end with it.
    """
    (root / "home").mkdir(exist_ok=True)
    private = ("unshare", "--mount", "--propagation", "private", "--")
    return (*private, "sh", "-c", _IN_TREE, "sh", str(tree), str(root / "home"))


class AdbDaemon:
    """Listens on a port of 127.0.0.1 for ``adb connect``; a context manager.

    Args:
        shell: the command that starts the phone's shell, before ``-c COMMAND``.
        environment: of the shell.
        root: what the sync service takes for ``/``.
        kind: what runs on it: device, recovery, sideload ...
        features: what it says it can do.
        version: of the transport protocol.

    Attributes:
        address: for ``adb connect``; also the serial by which adb then knows it.
        authorised: the key of this host was accepted; where not, a client waits for ``accept_key``.
        silent: connections are accepted, and nothing is answered.
        space_bytes: how much the sync service can still write.
        cut_after: the connection breaks once when the sync service has moved so many bytes.
        opened: the services that clients opened.
    """

    def __init__(
        self,
        *,
        shell: tuple[str, ...] = ("/bin/sh",),
        environment: Mapping[str, str] | None = None,
        root: Path = Path("/"),
        kind: str = "device",
        features: tuple[str, ...] = FEATURES,
        version: int = UNCHECKED_VERSION,
    ) -> None:
        self.shell = shell
        self.environment = dict(os.environ if environment is None else environment)
        self.root = root
        self.kind = kind
        self.features = features
        self.version = version
        self.authorised = True
        self.silent = False
        self.space_bytes: int | None = None
        self.cut_after: int | None = None
        self.opened: list[str] = []
        self._transports: set[_Transport] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def banner(self) -> bytes:
        """What it says of itself when a client connects."""
        return f"{self.kind}::ro.product.name=test;features={','.join(self.features)}".encode()

    def __enter__(self) -> AdbDaemon:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        # accept() in the other thread only returns when the socket is shut down.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.cut()

    def cut(self) -> None:
        """Break all connections, as when the cable is pulled; new ones are accepted."""
        for transport in tuple(self._transports):
            transport.close()

    def accept_key(self) -> None:
        """Press "allow" on the phone's screen."""
        self.authorised = True
        for transport in tuple(self._transports):
            transport.send_banner()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = _Transport(self, connection)
            self._transports.add(transport)
            threading.Thread(target=self._serve, args=(transport,), daemon=True).start()

    def _serve(self, transport: _Transport) -> None:
        try:
            transport.serve()
        finally:
            transport.close()
            self._transports.discard(transport)


class _Transport:
    """One connection of an adb server; its streams are multiplexed over it."""

    def __init__(self, daemon: AdbDaemon, connection: socket.socket) -> None:
        self.daemon = daemon
        self.largest_payload = _FIRST_PAYLOAD
        self._connection = connection
        self._version = CHECKED_VERSION
        self._streams: dict[int, _Stream] = {}
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

    def forget(self, stream: _Stream) -> None:
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
        service, _, argument = destination.partition(":")
        words = service.split(",")
        stream = _Stream(self, max(self._streams, default=0) + 1, remote)
        if words[0] == "shell" and {"v2", "raw"} <= set(words) and "shell_v2" in self.daemon.features:
            work = threading.Thread(target=_serve_shell, args=(self.daemon, stream, argument), daemon=True)
        elif service == "sync":
            work = threading.Thread(target=_serve_sync, args=(self.daemon, stream), daemon=True)
        else:
            self.send(b"CLSE", 0, remote)
            return
        self.daemon.opened.append(destination)
        self._streams[stream.local] = stream
        self.send(b"OKAY", stream.local, remote)
        work.start()


class _Stream:
    """One service in use. Each side sends a message only when the other is ready for it."""

    def __init__(self, transport: _Transport, local: int, remote: int) -> None:
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


def _serve_shell(daemon: AdbDaemon, stream: _Stream, command: str) -> None:
    """A command in packets of the shell protocol, with standard error and exit status apart.

    Like adbd: sockets instead of pipes; when the client goes, SIGHUP for the shell alone and an end to its
    standard input; and the service lasts as long as anybody holds the shell's outputs open.
    """
    ours, theirs = socket.socketpair()
    our_errors, their_errors = socket.socketpair()
    process = subprocess.Popen(
        (*daemon.shell, "-c", os.fsencode(command)),
        stdin=theirs,
        stdout=theirs,
        stderr=their_errors,
        start_new_session=True,
        env=daemon.environment,
        cwd="/",
    )
    theirs.close()
    their_errors.close()

    def hang_up() -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)
        for end in (ours, our_errors):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def feed() -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, length = _PACKET.unpack(stream.read_exactly(_PACKET.size))
                data = stream.read_exactly(length)
                if kind == _STDIN:
                    ours.sendall(data)
                elif kind == _CLOSE_STDIN:
                    ours.shutdown(socket.SHUT_WR)

    def drain(end: socket.socket, kind: int) -> None:
        with contextlib.suppress(EOFError, OSError):
            while data := end.recv(_LARGEST_CHUNK):
                stream.write(_PACKET.pack(kind, len(data)) + data)

    stream.on_end = hang_up
    if stream.ended.is_set():
        hang_up()
    drains = [
        threading.Thread(target=drain, args=arguments, daemon=True)
        for arguments in ((ours, _STDOUT), (our_errors, _STDERR))
    ]
    for thread in (*drains, threading.Thread(target=feed, daemon=True)):
        thread.start()
    for thread in drains:
        thread.join()
    status = process.wait()
    with contextlib.suppress(EOFError):
        stream.write(_PACKET.pack(_EXIT, 1) + bytes([status if status >= 0 else 0x80 | -status]))
    stream.close()
    ours.close()
    our_errors.close()


class _SyncError(Exception):
    """What the device could not do, in the words in which the client hears of it."""


def _serve_sync(daemon: AdbDaemon, stream: _Stream) -> None:
    """Files: requests of the sync protocol, until QUIT or the first failure."""
    service = _Sync(daemon, stream)
    with contextlib.suppress(EOFError):
        while service.answer():
            pass
    stream.close()


class _Sync:
    def __init__(self, daemon: AdbDaemon, stream: _Stream) -> None:
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


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        data = connection.recv(min(size, 1 << 16))
        if not data:
            raise EOFError
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
