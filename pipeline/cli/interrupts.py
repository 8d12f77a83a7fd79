"""Ctrl-C and SIGTERM end every command within seconds, keep what is done, and say how to go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from types import FrameType

from devices.errors import LatheError
from devices.host import Interrupted, end_all, interrupted, remove_own
from pipeline.cli.output import print_error, written

GRACE_S = 1.2
"""How long a command may take to end by itself. What is on the disk is whole at every moment, so the process
is then ended wherever it is: in an operation of torch, or waiting for a thread."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_RESUMING = {
    ("run",): "it continues from there",
    ("search",): "it continues from there",
    ("table", "build"): "it measures only what is missing",
    ("table", "measure"): "it measures only what is missing",
    ("table", "plan"): "what is exported already is not exported again",
    ("table", "verify"): "what is measured already is not measured again",
    ("table", "transfer"): "what is measured already is not measured again",
    ("db", "import"): "it continues from there",
}
"""What the same command does when it is given again, by its words; others begin anew."""


class CommandInterrupted(LatheError):
    """A command that was ended by a signal.

    Args:
        number: of the signal.
        doing: what was going on; may be empty.
        arguments: of the command.
    """

    def __init__(self, number: int, doing: str, arguments: Sequence[str]) -> None:
        words = tuple(word for word in arguments if not word.startswith("-"))
        again = next((text for key, text in _RESUMING.items() if words[: len(key)] == key), "")
        super().__init__(
            f"interrupted by {signal.Signals(number).name}" + (f" while {doing}" if doing else ""),
            why="what was finished is kept" if again else "",
            fix=f"run the same command again: {again}" if again else "run the same command again",
        )
        self.exit_code = 128 + number  # type: ignore[misc]


@contextmanager
def ended_by_signals(arguments: Sequence[str], *, as_json: bool) -> Iterator[None]:
    """Have SIGINT and SIGTERM end what is done inside, and then the process.

    Everything that was started is killed at once, ``Interrupted`` is raised in the main thread, and if the
    process still lives ``GRACE_S`` later, or at a second signal, it is ended where it is. A thread waits for
    the signal itself: Python runs its handlers between two instructions only.

    Args:
        arguments: of the command, for what is said in the end.
        as_json: whether it is said as a document too.
    """
    farewell = _Farewell(arguments, as_json=as_json)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watch = threading.Thread(target=_watch, args=(reader, farewell), name="signals", daemon=True)
    watch.start()

    def handle(number: int, frame: FrameType | None) -> None:
        farewell.begin(number)
        raise Interrupted(number)

    handlers = {number: signal.signal(number, handle) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    except Interrupted:
        sys.exit(farewell.say())
    finally:
        if not interrupted.is_set():
            signal.set_wakeup_fd(wakeup)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(writer)
            watch.join()
            os.close(reader)


class _Farewell:
    """The last words of a command: about what was going on at the first signal, and said once."""

    def __init__(self, arguments: Sequence[str], *, as_json: bool) -> None:
        self._arguments, self._as_json = arguments, as_json
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._saying = threading.Lock()
        self._error: CommandInterrupted | None = None
        self._said = False

    def begin(self, number: int) -> None:
        """Nothing new is begun from now on."""
        from pipeline.progress import what_is_going_on

        if self._error is None:
            self._error = CommandInterrupted(number, what_is_going_on(), self._arguments)
        interrupted.set()

    def say(self) -> int:
        """Say them, unless they were said; the exit code."""
        assert self._error is not None
        # What is cut off may have redirected either.
        with self._saying, redirect_stdout(self._stdout), redirect_stderr(self._stderr):
            if not self._said:
                self._said = True
                written(self._stderr, lambda: self._stderr.write("\n"))
                print_error(self._error, as_json=self._as_json)
        return self._error.exit_code


def _watch(reader: int, farewell: _Farewell) -> None:
    """Wait for a signal, kill what was started, and end the process if it does not end by itself."""
    number = _next_signal(reader)
    if number is None:
        return
    farewell.begin(number)
    _end_children()
    again = threading.Thread(target=_next_signal, args=(reader,), daemon=True)
    again.start()
    again.join(GRACE_S)
    _end_children()
    code = farewell.say()
    remove_own()
    os._exit(code)


def _end_children() -> None:
    """Processes that were started by either of two ways."""
    end_all()
    for child in multiprocessing.active_children():
        child.kill()


def _next_signal(reader: int) -> int | None:
    """The number of the next of our signals; None when there will be none."""
    while number := os.read(reader, 1):
        if number[0] in _SIGNALS:
            return number[0]
    return None
