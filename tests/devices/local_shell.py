"""A remote connection whose far end is a shell on this machine: real scripts and pipes, no network."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys

from devices.connections.remote import DeviceLostError, Output, RemoteConnection


class ShellConnection(RemoteConnection):
    """Commands run by ``sh``; ``cut`` breaks all that are running, as a lost network does.

    Args:
        path: the PATH of the shell.
    """

    def __init__(self, python: tuple[str, ...] | None = (sys.executable,), path: str | None = None) -> None:
        super().__init__("the shell", python)
        self._path = path
        self._processes: list[_Process] = []

    def cut(self) -> None:
        for process in self._processes:
            process.cut = True
            process.close_input()

    def _execute(self, command: str) -> _Process:
        environment = {**os.environ, **({"PATH": self._path} if self._path else {})}
        process = _Process(
            subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        )
        self._processes.append(process)
        return process

    def _disconnect(self) -> None:
        for process in self._processes:
            process.close()
        self._processes.clear()


class _Process:
    def __init__(self, started: subprocess.Popen[bytes]) -> None:
        self.cut = False
        self._started = started
        self._streams = selectors.DefaultSelector()
        self._streams.register(started.stdout, selectors.EVENT_READ, False)
        self._streams.register(started.stderr, selectors.EVENT_READ, True)

    def read(self, timeout_s: float) -> Output | int | None:
        if self.cut:
            raise DeviceLostError("cut")
        while self._streams.get_map():
            ready = self._streams.select(timeout_s)
            if not ready:
                return None
            key = ready[0][0]
            if data := os.read(key.fd, 1 << 16):
                return Output(data, key.data)
            self._streams.unregister(key.fileobj)
        return self._started.wait(timeout_s)

    def write(self, data: bytes, timeout_s: float) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._started.stdin.write(data)
            self._started.stdin.flush()

    def close_input(self) -> None:
        self._started.stdin.close()

    def close(self) -> None:
        self._started.stdin.close()
        if self._started.poll() is None and not self.cut:
            self._started.wait(timeout=20)
        for stream in (self._started.stdout, self._started.stderr):
            stream.close()
