"""The shell service of an Android device.

Sources: AOSP packages/modules/adb: shell_protocol.h, and the behaviour of daemon/shell_service.cpp.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.devices.adb_transport import Stream

_PACKET = struct.Struct("<BI")
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_CHUNK_BYTES = 64 * 1024

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


def serve_shell(argv: tuple[str, ...], environment: Mapping[str, str], stream: Stream) -> None:
    """A command in packets of the shell protocol, with standard error and exit status apart.

    Like adbd: sockets instead of pipes; when the client goes, SIGHUP for the shell alone and an end to its
    standard input; and the service lasts as long as anybody holds the shell's outputs open.
    """
    ours, theirs = socket.socketpair()
    our_errors, their_errors = socket.socketpair()
    process = subprocess.Popen(
        argv,
        stdin=theirs,
        stdout=theirs,
        stderr=their_errors,
        start_new_session=True,
        env=environment,
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
            while data := end.recv(_CHUNK_BYTES):
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
