"""The machine that Lathe itself runs on."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar

from devices.connections.base import Completed, Connection
from devices.connections.output import KEPT_BYTES, Lines, shown_tail
from devices.errors import MeasurementError, TargetError
from devices.host import check_interruption, end, start, temporary_folder

_POLL_S = 0.25


class LocalConnection(Connection):
    """Processes on this machine, each in a session of its own, which end when Lathe does.

    What they leave in a temporary folder goes with the scratch folder.
    """

    shares_clock: ClassVar[bool] = True

    def __init__(self, python: tuple[str, ...] = (sys.executable,)) -> None:
        self.python = python
        self._scratch: Path | None = None
        self._opened = contextlib.ExitStack()
        self._lock = threading.Lock()

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        silence_s: float | None = None,
        on_line: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Completed:
        """Run a command; see the base class."""
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as errors:
            source.write(stdin)
            source.seek(0)
            try:
                process = start(
                    argv,
                    stdin=source,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=_environment() | {"TMPDIR": self.scratch()},
                )
            except OSError as error:
                raise TargetError(f"'{argv[0]}' cannot be started on this machine", why=str(error)) from error
            timed_out = False
            try:
                for line in _lines(process, timeout_s, silence_s, stop):
                    if on_line is not None:
                        on_line(line)
            except TimeoutError:
                timed_out = True
            finally:
                end(process)
                if process.stdout is not None:
                    process.stdout.close()
            check_interruption()
            return Completed(process.returncode, _tail(errors), timed_out=timed_out)

    def push(self, path: Path) -> str:
        """The file is already here: its absolute path."""
        if not path.is_file():
            raise MeasurementError(f"there is no file {str(path)!r}")
        return str(path.resolve())

    def push_together(self, path: Path, beside: Mapping[str, Path]) -> str:
        """The files are already here; a link is not followed, since the others are beside it."""
        for each in (path, *beside.values()):
            self.push(each)
        return str(path.absolute())

    def pull(self, remote: str, path: Path) -> None:
        """Copy the file."""
        if not Path(remote).is_file():
            raise MeasurementError(f"there is no file {remote!r} on this machine")
        partial = path.with_name(f".lathe-{uuid.uuid4().hex}.partial")
        try:
            shutil.copyfile(remote, partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def scratch(self) -> str:
        """A private temporary folder."""
        with self._lock:
            if self._scratch is None:
                self._scratch = self._opened.enter_context(temporary_folder("local"))
            return str(self._scratch)

    def close(self) -> None:
        """Remove the temporary folder."""
        with self._lock:
            self._opened.close()
            self._scratch = None


def _lines(
    process: subprocess.Popen[bytes],
    timeout_s: float,
    silence_s: float | None,
    stop: threading.Event | None,
) -> Iterator[str]:
    """Lines of the output until it ends or is to stop; TimeoutError when time runs out.

    The end of the process ends the lines too: something that it started may still hold the pipe open.
    """
    assert process.stdout is not None
    stream = process.stdout.fileno()
    deadline = time.monotonic() + timeout_s
    found: list[str] = []
    lines = Lines(found.append)
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while stop is None or not stop.is_set():
            ended = _has_ended(process)
            if selector.select(0 if ended else _POLL_S):
                chunk = os.read(stream, 1 << 16)
                if not chunk:
                    break
                lines.add(chunk)
                yield from found
                found.clear()
            elif ended:
                break
            now = time.monotonic()
            if now > deadline or (silence_s is not None and now - lines.last > silence_s):
                raise TimeoutError
    lines.finish()
    yield from found
    while not _has_ended(process) and not (stop is not None and stop.is_set()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.001)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, without reaping it: until then no other process can get its number."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _tail(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - KEPT_BYTES))
    return shown_tail(errors.read(), cut=size > KEPT_BYTES)


def _environment() -> dict[str, str]:
    """This process's, without how threads wait here (``OMP_WAIT_POLICY``): that costs latency."""
    return {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
