"""How a device is reached: run a command there, push a file, pull a file."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

MOST_ANSWER_CHARACTERS = 1 << 20
"""Of a short answer so many characters are looked at."""


@dataclass(frozen=True)
class Completed:
    """How a command ended.

    Attributes:
        returncode: exit status; ``-N`` when signal N ended it.
        stderr_tail: the last part of what it wrote on standard error.
        timed_out: it was killed because it took too long or was silent too long.
        lost: the device went away before the command had ended; its status is not known.
    """

    returncode: int
    stderr_tail: str
    timed_out: bool = False
    lost: bool = False


def first_lines(on_line: Callable[[str], None], most: int = MOST_ANSWER_CHARACTERS) -> Callable[[str], None]:
    """Hand on lines without their ends, up to so many characters and ends: a device that prints for ever must
    not fill the memory.
    """
    left = most

    def hand_on(line: str) -> None:
        nonlocal left
        if left > 0:
            on_line(line[:left].rstrip("\r\n"))
            left -= len(line) + 1

    return hand_on


class Connection(ABC):
    """A way to one device. ``tests/contracts/connection.py`` holds the suite that every kind passes.

    A connection opens itself when it is first used, and again when it is used after it was lost. Several
    threads may use one connection at the same time.

    Attributes:
        python: the command that starts Python 3.8+ there, as the first words of an argument list; ``None``
            where there is no Python, as on phones.
        shares_clock: its processes read the same monotonic clock as this one.
    """

    python: tuple[str, ...] | None
    shares_clock: ClassVar[bool] = False

    @abstractmethod
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
        """Run a command there and hand over each line of its standard output as it comes.

        Arguments reach the command as they are: no shell reads them. When the command takes longer than
        ``timeout_s``, or writes no line for ``silence_s``, or when ``stop`` is set, it is killed with
        everything that it started. However this returns, nothing that the command started in its process
        group is left running; where the device is lost, it ends there by itself.

        Raises:
            TargetError: the command cannot be started, or the device cannot be reached at all; a
                PassingTargetError where that may change.
        """

    def ask(self, argv: Sequence[str], *, timeout_s: float) -> tuple[list[str], Completed]:
        """Run a command whose answer is short: the lines of its standard output, without their ends.

        Of an answer without an end the first part is kept; the command is killed after ``timeout_s``.

        Raises:
            TargetError: as of ``run``.
        """
        lines: list[str] = []
        ended = self.run(argv, timeout_s=timeout_s, on_line=first_lines(lines.append))
        return lines, ended

    @abstractmethod
    def push(self, path: Path) -> str:
        """Make a file of the host readable on the device, by content; its path there.

        A file that is there already is not sent again. The name there keeps the suffix of ``path`` and
        nothing else of it that a command could take for an option.

        Raises:
            MeasurementError: there is no such file.
            TargetError: the device cannot be reached, has no folder that can be written, or no space left.
        """

    @abstractmethod
    def push_together(self, path: Path, beside: Mapping[str, Path]) -> str:
        """Push a file and others that it looks for in its own folder; the path of the first there.

        Args:
            path: the file.
            beside: the others by the names under which it looks for them, which may begin with folders; none
                leads out of the folder.

        Raises:
            MeasurementError, TargetError: as ``push``.
        """

    @abstractmethod
    def pull(self, remote: str, path: Path) -> None:
        """Copy a file of the device to ``path`` on the host; a file already there is replaced as a whole.

        Raises:
            MeasurementError: there is no such file on the device.
            TargetError: the device cannot be reached.
        """

    @abstractmethod
    def scratch(self) -> str:
        """A private folder on the device, which lasts until ``close``."""

    @abstractmethod
    def close(self) -> None:
        """Remove what was left on the device and end the connection; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
