"""Processes of this machine that end with the one that starts them, however that ends.

Each process leads a session of its own, so that Ctrl-C in a terminal reaches only Lathe, and all that it
starts can be ended together. A guardian, one small shell for all of them, reads which sessions live; when
Lathe ends, by SIGKILL too, its input ends, and it kills those that are left. Programs of Lathe's own also ask
Linux for a signal when their parent dies, which leaves no moment uncovered.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from multiprocessing import parent_process
from typing import Any

from devices.host.interruption import check_interruption

_GUARDIAN = """
trap '' HUP INT TERM
groups=' '
while IFS= read -r line; do
  group=${line#?}
  case $line in
    +*) groups="$groups$group " ;;
    -*) groups="${groups%% "$group" *} ${groups#* "$group" }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"""


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own; whoever starts it calls ``end``.

    Args:
        argv: program and arguments.
        options: of ``subprocess.Popen``.

    Raises:
        OSError: it cannot be started.
        Interrupted: this process was told to end.
    """
    check_interruption()
    with _guard.lock:
        # Before, so that the process is hardly alone when this one is killed.
        _guard.begin()
        process: subprocess.Popen[bytes] = subprocess.Popen(argv, start_new_session=True, **options)
        _guard.add(process.pid)
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with everything that it started, if it runs still, and reap it."""
    _kill(process.pid)
    # In this order: until it is reaped, no other process can get its number.
    _guard.remove(process.pid)
    process.wait()


def end_all() -> None:
    """Kill every process that was started and not ended."""
    for group in _guard.groups():
        _kill(group)


def end_with_parent() -> None:
    """Have a process of a pool end when its parent does: the pool's queues would keep it waiting for ever."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="waits for the parent's end", daemon=True).start()


class _Guard:
    """The guardian, started with the first process, and what it was told."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._groups: set[int] = set()
        self._guardian: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the guardian, unless it was."""
        with self.lock:
            if self._guardian is None:
                self._tell("")

    def add(self, group: int) -> None:
        with self.lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def remove(self, group: int) -> None:
        with self.lock:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    def groups(self) -> tuple[int, ...]:
        # Without the lock: who interrupts does not wait for who starts.
        return tuple(self._groups)

    def close(self) -> None:
        """End the guardian, and with it what still runs."""
        if self._guardian is not None and self._guardian.stdin is not None:
            self._guardian.stdin.close()
            self._guardian.wait()

    def _tell(self, line: str) -> None:
        if self._guardian is not None and self._write(line):
            return
        self._guardian = subprocess.Popen(
            ("sh", "-c", _GUARDIAN),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            bufsize=0,
            start_new_session=True,
        )
        self._write("".join(f"+{group}\n" for group in self._groups))

    def _write(self, text: str) -> bool:
        """Whether the guardian lives and was told."""
        assert self._guardian is not None
        assert self._guardian.stdin is not None
        try:
            self._guardian.stdin.write(text.encode())
        except BrokenPipeError:
            self._guardian.stdin.close()
            self._guardian.wait()
            return False
        return True


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


_guard = _Guard()
atexit.register(_guard.close)
