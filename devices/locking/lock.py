"""One measurement at a time per device, between all processes, users and hosts that reach it."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import queue
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from devices.connections import Completed, Connection, LocalConnection, first_lines
from devices.errors import LatheError, PassingTargetError, TargetError
from devices.locking.doing import Doing, Note, doings, now
from devices.locking.queue import SCRIPT, LockState, QueueEntry, Ticket, lock_state, machine_folder, printable
from devices.measurement.conditions import Conditions

__all__ = [
    "DEFAULT_WAIT_S",
    "DeviceLock",
    "LockState",
    "QueueEntry",
    "device_lock",
    "doings_here",
    "lock_state_here",
    "lock_state_of",
]

DEFAULT_WAIT_S = 900.0
"""How long to wait for a device; a batch of blocks holds it for seconds."""

_LONGEST_S = 7 * 86_400.0
_ANSWER_S = 30.0
_POLL_S = 0.1

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def device_lock(
    device: str, connection: Connection, *, what: str = "", wait_s: float = DEFAULT_WAIT_S
) -> Iterator[DeviceLock]:
    """Hold a device alone. While others have it, warnings say who and how many are before, and this waits.

    The lock is a file on the device itself (``devices.locking.queue``), so that it is one however many names,
    users and hosts the device has; its kernel frees it when the process or connection that holds it ends. It
    is given in the order of asking. It does not nest: who holds a machine by one name must not ask for it by
    another.

    A device without the command flock can only be locked among the processes of one user of this host; a
    warning says so.

    Args:
        device: its name in targets.
        connection: to it.
        what: is to be done there, for those who watch.
        wait_s: the longest wait in seconds.

    Raises:
        TargetError: the device is still in use after ``wait_s``, cannot be reached, or its folder for the
            lock cannot be written.
    """
    lock = DeviceLock(device, connection, what, wait_s)
    try:
        lock.ensure()
        yield lock
    finally:
        lock.release()


class DeviceLock:
    """The lock of one device, held from ``ensure`` to ``release``; meanwhile a note says what is done."""

    def __init__(self, device: str, connection: Connection, what: str, wait_s: float) -> None:
        self._device, self._connection, self._wait_s = device, connection, wait_s
        self._what = what
        self._hold: _Here | _There | None = None
        self._note: Note | None = None

    def tell(self, **changes: Any) -> None:
        """Say to those who watch what is done with the device, by the fields of ``Doing``."""
        if self._note is not None:
            self._note.tell(**changes)

    def tell_conditions(self, conditions: Conditions) -> None:
        """Say to those who watch how the device is."""
        if self._note is not None:
            self._note.tell_conditions(conditions)

    def ensure(self) -> None:
        """Take the device, again if it was lost meanwhile: to be called before each launch.

        Raises:
            TargetError: as ``device_lock``.
        """
        if self._hold is not None and not self._hold.lost:
            return
        self.release()
        self._note = Note(machine_folder(), Doing(self._device, who_am_i(), self._what, now()))
        self._take(_Waiting(self._device, self._wait_s, self._note))
        self._note.tell(holds=True, waiting_for="", since=now())

    def _take(self, waiting: _Waiting) -> None:
        if isinstance(self._connection, LocalConnection):
            self._hold = _Here(machine_folder(), waiting)
            return
        try:
            self._hold = _There(self._connection, waiting)
        except _NoFlockError:
            _log.warning(
                "device '%s' has no command flock: other users and hosts may measure there at the same time; "
                "install it (util-linux, busybox or toybox have it)",
                self._device,
            )
            self._hold = _Here(_host_folder() / self._device, waiting)

    def release(self) -> None:
        """Let go of the device."""
        if self._hold is not None:
            self._hold.close()
            self._hold = None
        if self._note is not None:
            self._note.close()
            self._note = None


def doings_here() -> tuple[Doing, ...]:
    """What the processes of this machine do with devices, and whom they wait for."""
    return doings(machine_folder())


def lock_state_here() -> LockState:
    """Who has and wants this machine."""
    return lock_state(machine_folder())


def lock_state_of(connection: Connection) -> LockState | None:
    """Who has and wants a device; ``None`` where it has no flock command, and so nobody can know.

    Raises:
        TargetError: the device cannot be reached.
    """
    if isinstance(connection, LocalConnection):
        return lock_state(machine_folder())
    lines, _ = connection.ask(("sh", "-c", SCRIPT, "lathe-lock", "list"), timeout_s=_ANSWER_S)
    fields = [line.split("\t") for line in lines]
    if ["end"] not in fields:
        return None
    entries = (QueueEntry(printable(who), printable(since)) for kind, who, since in _entries(fields))
    return LockState(["held"] in fields, tuple(entries))


def _entries(fields: list[list[str]]) -> Iterator[list[str]]:
    return (line for line in fields if line[0] == "entry" and len(line) == 3)


class _NoFlockError(Exception):
    """The device has no command flock."""


class _Waiting:
    """How long one wait may take, and what was last said about it."""

    def __init__(self, device: str, wait_s: float, note: Note) -> None:
        self.device, self.wait_s = device, wait_s
        self._note = note
        self.said = ""
        self._end = time.monotonic() + wait_s

    def left_s(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def say(self, before: int, first: QueueEntry) -> None:
        """Who is before us, once each time that changes."""
        who = "another process holds it"
        if first.who:
            who = f"{first.who} holds it since {first.since}" if first.since else f"{first.who} is next"
        if before > 1:
            who += f", and {before - 1} more wait before this one"
        if who != self.said:
            self.said = who
            self._note.tell(waiting_for=who)
            _log.warning("waiting for device '%s': %s", self.device, who)

    def over(self) -> PassingTargetError:
        return PassingTargetError(
            f"device '{self.device}' was in use for more than {self.wait_s:g} s",
            why=self.said or "another process holds it",
            fix="wait until that process has ended, or end it",
        )

    def unwritable(self, why: str) -> TargetError:
        return TargetError(
            f"the lock of device '{self.device}' cannot be written",
            why=why,
            fix="let all who use the device read and write there, or set LATHE_STATE_DIR on that device to a "
            "folder where they can",
        )


class _Here:
    """A lock in a folder of this machine."""

    lost = False

    def __init__(self, folder: Path, waiting: _Waiting) -> None:
        try:
            self._ticket = Ticket(folder, who_am_i())
        except OSError as error:
            raise waiting.unwritable(str(error)) from error
        try:
            while not self._ticket.take():
                ahead = self._ticket.ahead()
                waiting.say(len(ahead), ahead[0] if ahead else QueueEntry(""))
                if not waiting.left_s():
                    raise waiting.over()
                time.sleep(_POLL_S)
        except BaseException:
            self._ticket.close()
            raise

    def close(self) -> None:
        self._ticket.close()


class _There:
    """A lock on another device, held by a script that runs there as long as this lasts."""

    def __init__(self, connection: Connection, waiting: _Waiting) -> None:
        self._connection, self._waiting = connection, waiting
        self._stop = threading.Event()
        self._said: queue.SimpleQueue[str | Completed | LatheError] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"lock of {waiting.device}", daemon=True)
        self._thread.start()
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> bool:
        """Whether the device went away, and the lock with it."""
        return not self._thread.is_alive()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(_ANSWER_S)

    def _run(self) -> None:
        argv = ("sh", "-c", SCRIPT, "lathe-lock", "take", who_am_i())
        try:
            said = first_lines(self._said.put)
            ended: Completed | LatheError = self._connection.run(
                argv, timeout_s=_LONGEST_S, on_line=said, stop=self._stop
            )
        except LatheError as error:
            ended = error
        self._said.put(ended)

    def _wait(self) -> None:
        """Until the script has the lock."""
        while True:
            # A slow connection is no queue: even who will not wait gives the script time to answer.
            patience_s = self._waiting.left_s() if self._waiting.said else self._waiting.left_s() + _ANSWER_S
            try:
                said = self._said.get(timeout=patience_s)
            except queue.Empty:
                raise self._waiting.over() from None
            if isinstance(said, LatheError):
                raise said
            if isinstance(said, Completed):
                raise PassingTargetError(
                    f"the lock of device '{self._waiting.device}' could not be taken",
                    why="the device went away" if said.lost else said.stderr_tail or repr(said),
                    fix=f"see what 'lathe devices check {self._waiting.device}' says",
                )
            kind, *fields = said.split("\t")
            if kind == "held":
                return
            if kind == "no-flock":
                raise _NoFlockError
            if kind == "refused":
                raise self._waiting.unwritable(f"{''.join(fields)} on the device")
            if kind == "waiting" and len(fields) == 3 and re.fullmatch(r"\d{1,9}", fields[0]):
                self._waiting.say(int(fields[0]), QueueEntry(printable(fields[1]), printable(fields[2])))


def who_am_i() -> str:
    """This process, as others are told of it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return printable(f"{user}@{platform.node()}, process {os.getpid()}")


def _host_folder() -> Path:
    """Where this host keeps the locks of devices that cannot keep their own."""
    chosen = os.environ.get("LATHE_STATE_DIR")
    return (Path(chosen) if chosen else user_state_path("lathe", appauthor=False)) / "locks"
