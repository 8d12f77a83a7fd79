"""Whether this process was told to end: who waits asks, so that what was cut off never counts as a result."""

from __future__ import annotations

import signal
import threading

interrupted = threading.Event()
"""Set once by who handles signals; nothing new is begun afterwards."""


class Interrupted(BaseException):
    """The process was told to end by a signal.

    Not a ``KeyboardInterrupt``, which libraries catch, and no ``Exception``, so that nobody takes it for a
    failure of the work that it ends.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def check_interruption() -> None:
    """To be called where work begins, and after a wait whose end may have been forced.

    Raises:
        Interrupted: this process was told to end.
    """
    if interrupted.is_set():
        raise Interrupted
