"""The phone's side of ADB, for the real adb client: what adbd is on Android, with faults on demand."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tests.devices.adb_shell import serve_shell
from tests.devices.adb_sync import serve_sync
from tests.devices.adb_transport import UNCHECKED_VERSION, Stream, Transport

FEATURES = ("shell_v2", "stat_v2", "fixed_push_mkdir")


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
        self._transports: set[Transport] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def banner(self) -> bytes:
        """What it says of itself when a client connects."""
        return f"{self.kind}::ro.product.name=test;features={','.join(self.features)}".encode()

    def service(self, destination: str) -> Callable[[Stream], None] | None:
        """What serves the streams of a destination; nothing where the device has no such service."""
        name, _, argument = destination.partition(":")
        words = set(name.split(","))
        if {"shell", "v2", "raw"} <= words and "shell_v2" in self.features:
            return partial(serve_shell, (*self.shell, "-c", argument), self.environment)
        return partial(serve_sync, self) if name == "sync" else None

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
            transport = Transport(self, connection)
            self._transports.add(transport)
            threading.Thread(target=self._serve, args=(transport,), daemon=True).start()

    def _serve(self, transport: Transport) -> None:
        try:
            transport.serve()
        finally:
            transport.close()
            self._transports.discard(transport)
