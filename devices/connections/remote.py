"""What all devices have in common that are reached through a POSIX shell: boards, servers, phones.

The shell may be dash, bash, busybox or Android's mksh. The tools that are asked for, such as ``head -c``,
``mktemp`` and ``setsid``, are in coreutils and util-linux, in busybox, and in toybox (Android 8 or later).
There need not be a Python.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import re
import signal
import threading
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from devices.connections.base import Completed, Connection
from devices.connections.output import Lines, Tail
from devices.connections.scripts import (
    HAS,
    OPEN,
    PUBLISH,
    REMOVE,
    RUN,
    SHOW,
    STORE,
    TOGETHER,
    shell_command,
)
from devices.digests import value_digest
from devices.errors import MeasurementError, PassingTargetError, TargetError
from devices.words import cause_of

Answer = TypeVar("Answer")

POLL_S = 0.25
STALL_S = 60.0
"""A transfer or a script of Lathe's own, in which nothing moves for so long, is given up."""
KILL_S = 10.0
"""How long the device may take to kill a command and to say so."""
PIECE_BYTES = 1 << 18
MOST_ANSWER_BYTES = 1 << 20
"""What a script of Lathe's own may write; a few lines are asked for."""
MOST_FILE_BYTES = 4 << 30
"""How long a file may be that is copied from a device."""
_LOST_STATUS = 255  # as of ssh
_CANNOT_START = (126, 127)
_NOT_STORED = "standard input could not be stored"
_MODEL = "lathe-model"
_LARGEST_SLEEP_S = 10_000_000


class DeviceLostError(Exception):
    """The way to the device broke."""


@dataclass(frozen=True)
class Output:
    """A piece of what a command wrote on standard output, or on standard error."""

    data: bytes
    is_error: bool


class RemoteProcess(Protocol):
    """A shell command that was started on the device. One thread uses it."""

    def read(self, timeout_s: float) -> Output | int | None:
        """The next piece of its output, or, after the last, its exit status, -N when signal N ended it.

        ``None`` when nothing came in that time.

        Raises:
            DeviceLostError: the connection broke before its status came.
        """

    def write(self, data: bytes, timeout_s: float) -> None:
        """Hand over standard input, which stays open; data for a command that has ended is dropped.

        Raises:
            TimeoutError: the device did not take it in that time.
            DeviceLostError: the connection broke.
        """

    def close_input(self) -> None:
        """End its standard input; nothing where that has ended, or the connection broke."""

    def close(self) -> None:
        """Give it up: what is left of it on the device sees its standard input end."""


class RemoteConnection(Connection):
    """A device that is reached through a POSIX shell.

    A subclass starts shell commands, and may know better ways to transfer files. Everything that it is given
    to run is a constant script with arguments, quoted for a POSIX shell; where a user may have another one,
    ``for_any_shell`` gives it to ``sh`` whatever reads it first.

    Args:
        label: how messages name the device.
        python: the command that starts Python there, or ``None``.
        folder: where pushed files are kept, readable and writable by this user only; by default the first
            that can be used of /data/local/tmp/lathe, ~/.cache/lathe, /var/tmp/lathe-UID, /tmp/lathe-UID.
    """

    def __init__(self, label: str, python: tuple[str, ...] | None, folder: str | None = None) -> None:
        self.label = label
        self.python = python
        self._wanted_folder = folder
        self._folder = ""
        self._scratch = ""
        self._opened = False
        self._pushed: dict[tuple[str, str], str] = {}
        self._number = itertools.count()
        self._lock = threading.RLock()

    @abstractmethod
    def _execute(self, command: str) -> RemoteProcess:
        """Start a shell command; connects first where there is no connection.

        Raises:
            TargetError: the device cannot be reached.
            DeviceLostError: the connection broke, now or since the last call; the next connects again.
        """

    @abstractmethod
    def _disconnect(self) -> None:
        """End the connection; nothing where there is none. It may be used again afterwards."""

    def _upload(self, source: BinaryIO, size: int, remote: str) -> None:
        """Write ``size`` bytes to a new file on the device.

        Raises:
            TargetError: there is no space left, or the transfer stalled.
            DeviceLostError: the connection broke.
        """
        status, errors = self._script(STORE, str(size), remote, source=source)
        if status != 0:
            raise self._unwritable(errors)

    def _download(self, remote: str, sink: BinaryIO) -> None:
        """Read a file of the device.

        Raises:
            MeasurementError: there is none that can be read.
            TargetError: the transfer stalled.
            DeviceLostError: the connection broke.
        """
        status, errors = self._script(SHOW, remote, sink=sink.write, most_bytes=MOST_FILE_BYTES)
        if status != 0:
            raise MeasurementError(f"there is no file {remote!r} to read on {self.label}", why=errors)

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
        """Run a command; see the base class.

        Should even the host vanish without a trace, the device ends the command a little after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        limit = str(math.ceil(min(timeout_s + KILL_S, _LARGEST_SLEEP_S)))
        kept = f"{self.scratch()}/stdin-{next(self._number)}" if stdin else ""
        lines, errors = Lines(on_line), Tail()
        status, timed_out, lost = None, False, False
        process = self._start(RUN, str(len(stdin)), kept, limit, *argv)
        try:
            try:
                process.write(stdin, timeout_s)
            except TimeoutError:
                timed_out = True
            while status is None and not timed_out and not (stop is not None and stop.is_set()):
                got = process.read(POLL_S)
                if isinstance(got, Output):
                    (errors if got.is_error else lines).add(got.data)
                else:
                    status = got
                now = time.monotonic()
                timed_out = status is None and (
                    now > deadline or (silence_s is not None and now - lines.last > silence_s)
                )
            lines.finish()
        except DeviceLostError:
            lost = True
            self._forget()
        finally:
            # Also when on_line raised: nothing is left running when this returns.
            if status is None and not lost:
                status = _end(process)
            process.close()
        if status in _CANNOT_START and _NOT_STORED in str(errors):
            raise self._unwritable(str(errors))
        if status in _CANNOT_START:
            raise TargetError(
                f"'{argv[0]}' cannot be started on {self.label}",
                why=str(errors) or f"the shell there answered with status {status}",
                fix="install it there, or name the right one for the device in devices.toml",
            )
        returncode = (_LOST_STATUS if lost else -signal.SIGKILL) if status is None else _returncode(status)
        return Completed(returncode, str(errors), timed_out=timed_out, lost=lost)

    def push(self, path: Path) -> str:
        """Send a file unless it is there; see the base class. It can be executed there."""
        try:
            source = path.open("rb")
        except OSError as error:
            raise MeasurementError(f"there is no file {str(path)!r}", why=cause_of(error)) from error
        with source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            size = source.tell()
            suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9_-]{1,32}", path.suffix) else ""
            if remote := self._pushed.get((digest, suffix)):
                return remote
            remote = self._again(lambda: self._place(source, size, digest + suffix))
        self._pushed[digest, suffix] = remote
        return remote

    def push_together(self, path: Path, beside: Mapping[str, Path]) -> str:
        """Send the files unless they are there, and give them a folder of their own; see the base class."""
        pushed = {name: self.push(each) for name, each in {_MODEL + path.suffix: path, **beside}.items()}
        folder = f"{self.scratch()}/{value_digest(pushed)}"
        parts = [part for name, remote in pushed.items() for part in (remote, name)]
        status, errors = self._again(lambda: self._script(TOGETHER, folder, *parts))
        if status != 0:
            raise self._unwritable(errors)
        return f"{folder}/{_MODEL}{path.suffix}"

    def pull(self, remote: str, path: Path) -> None:
        """Copy a file of the device; see the base class."""
        partial = path.with_name(f".lathe-{uuid.uuid4().hex}.partial")

        def fetch() -> None:
            # A shell that prints a greeting would spoil the file; this finds out.
            self.scratch()
            with partial.open("wb") as sink:
                self._download(remote, sink)

        try:
            self._again(fetch)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def scratch(self) -> str:
        """A private folder on the device; it is made again when it was lost with the connection."""
        with self._lock:
            if not self._opened:
                self._folder, self._scratch = self._again(self._open)
                self._opened = True
            return self._scratch

    def close(self) -> None:
        """Remove the scratch folder, if the device can still be reached, and end the connection."""
        with self._lock:
            if self._scratch:
                with contextlib.suppress(TargetError):
                    self._again(lambda: self._script(REMOVE, self._scratch))
            self._opened, self._folder, self._scratch = False, "", ""
            self._pushed.clear()
            self._disconnect()

    def _open(self) -> tuple[str, str]:
        """Make the folder for pushed files and a scratch folder in it, the same ones after a loss."""
        folder = self._folder or self._wanted_folder
        output = bytearray()
        status, errors = self._script(OPEN, self._scratch, *([folder] if folder else []), sink=output.extend)
        if status != 0:
            raise TargetError(
                f"there is no folder on {self.label} that Lathe can write to",
                why=errors,
                fix="free some space there, or name a folder of that user as 'folder' for the device in "
                "devices.toml",
            )
        found = output.decode("utf-8", errors="replace").splitlines()
        if len(found) != 2:
            raise TargetError(
                f"the shell of {self.label} prints more than it is asked for",
                why=f"it began with {found[0]!r}" if found else "it printed nothing",
                fix="make its start-up files, such as .bashrc, print nothing where there is no terminal",
            )
        return found[0], found[1]

    def _place(self, source: BinaryIO, size: int, name: str) -> str:
        """Where a file with this content is on the device; it is sent if it is not there."""
        scratch = self.scratch()
        remote = f"{self._folder}/{name}"
        if self._script(HAS, str(size), remote)[0] == 0:
            return remote
        # A transfer that is cut leaves its part in the scratch folder, which does not last.
        partial = f"{scratch}/push-{next(self._number)}"
        try:
            source.seek(0)
            self._upload(source, size, partial)
            status, errors = self._script(PUBLISH, str(size), partial, remote)
            if status != 0:
                raise self._unwritable(errors or "not all of it arrived")
        except TargetError:
            with contextlib.suppress(DeviceLostError, TargetError):
                self._script(REMOVE, partial)
            raise
        return remote

    def _unwritable(self, why: str) -> TargetError:
        return TargetError(
            f"a file could not be written to {self._folder} on {self.label}",
            why=why,
            fix="free some space there, or name another folder as 'folder' for the device in devices.toml",
        )

    def _start(self, script: str, *arguments: str) -> RemoteProcess:
        """Start a script, once more where the connection turns out to be broken: nothing has begun yet."""
        return self._again(lambda: self._execute(shell_command(script, arguments)))

    def _again(self, action: Callable[[], Answer]) -> Answer:
        """Do what may be done twice, a second time if the connection breaks in the first."""
        for _ in range(2):
            try:
                return action()
            except DeviceLostError as error:
                self._forget()
                lost = error
        raise PassingTargetError(
            f"{self.label} went away",
            why=str(lost),
            fix="check its power, cable and network, then run this again",
        )

    def _forget(self) -> None:
        """The device may come back without what it had."""
        with self._lock:
            self._opened = False
            self._pushed.clear()

    def _script(
        self,
        script: str,
        *arguments: str,
        source: BinaryIO | None = None,
        sink: Callable[[bytes], object] = lambda _: None,
        most_bytes: int = MOST_ANSWER_BYTES,
    ) -> tuple[int, str]:
        """Run a short script of our own to its end; its status, and what it wrote on standard error.

        Raises:
            TargetError: the device cannot be reached, nothing moved for STALL_S, or it writes more than
                ``most_bytes``.
            DeviceLostError: the connection broke.
        """
        errors, left = Tail(), most_bytes
        process = self._execute(shell_command(script, arguments))
        try:
            while source is not None and (piece := source.read(PIECE_BYTES)):
                process.write(piece, STALL_S)
            process.close_input()
            while (got := process.read(STALL_S)) is not None:
                if isinstance(got, int):
                    return got, str(errors)
                left -= len(got.data)
                if left < 0:
                    raise TargetError(
                        f"{self.label} sends more than it is asked for",
                        why=f"a script of Lathe's got more than {most_bytes:,} bytes",
                        fix="see what its shell and start-up files print, and whether it is your device",
                    )
                (errors.add if got.is_error else sink)(got.data)
        except TimeoutError:
            pass
        finally:
            process.close()
        raise PassingTargetError(
            f"{self.label} does not answer any more",
            why=f"nothing moved for {STALL_S:g} s",
            fix="see whether it is still alive, then run this again",
        )


def _end(process: RemoteProcess) -> int | None:
    """Have a command killed, and wait until the device says that it is; its status, if it does."""
    deadline = time.monotonic() + KILL_S
    with contextlib.suppress(DeviceLostError):
        process.close_input()
        while (left := deadline - time.monotonic()) > 0:
            got = process.read(left)
            if isinstance(got, int):
                return got
    return None


def _returncode(status: int) -> int:
    """A shell's exit status; 128 + N stands for signal N there, and -N here."""
    return 128 - status if 128 < status <= 128 + signal.NSIG else status
