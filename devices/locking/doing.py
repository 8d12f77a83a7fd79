"""What the processes of this machine do with devices, in files for others to see: ``lathe devices watch``.

The files are beside the lock of this machine (``devices.locking.queue``), in ``lathe-device.doing/``: one for
each device that a process holds or waits for, ``_SIZE`` bytes of JSON. A process keeps flock(2) on its own,
so that the kernel takes away what belongs to one that ended. They say only what their processes know anyway:
reading them contacts no device, and so disturbs nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from devices.locking.queue import create_shared, descriptor_of, lockable, printable
from devices.measurement.conditions import Conditions

FOLDER = "lathe-device.doing"
_SIZE = 4096
_EVERY_S = 0.5
"""How far apart two writes are: what is measured meanwhile should not notice them."""

_ordinal = itertools.count()


@dataclass(frozen=True)
class Doing:
    """What a process does with a device.

    Attributes:
        device: its name in targets.
        who: the process, as others in the queue are told of it.
        what: the target, or another word for what it does there.
        since: when it got the device, or began to wait for it (ISO 8601, UTC).
        holds: whether it has the device.
        waiting_for: for whom it waits, and how many are before it, as far as it was told.
        done: launches of files that are done, of ``total``; both 0 where they are not counted.
        temperature_millicelsius: the hottest sensor after the newest launch.
        battery_percent: likewise, and whether it was ``charging``.
        read_at: when these were read; empty if they were not.
    """

    device: str
    who: str
    what: str
    since: str
    holds: bool = False
    waiting_for: str = ""
    done: int = 0
    total: int = 0
    temperature_millicelsius: int | None = None
    battery_percent: int | None = None
    charging: bool | None = None
    read_at: str = ""


_DOING = TypeAdapter(Doing)


class Note:
    """A process's file about one device, until ``close``. That it cannot be written harms nothing."""

    def __init__(self, folder: Path, doing: Doing) -> None:
        self._doing, self._written_s = doing, 0.0
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._open(folder / FOLDER)
        self._write()

    def tell(self, **changes: Any) -> None:
        """Say something new by the fields of ``Doing``; counts are written now and then."""
        self._doing = replace(self._doing, **changes)
        if changes.keys() - {"done", "total"} or time.monotonic() - self._written_s >= _EVERY_S:
            self._write()

    def tell_conditions(self, conditions: Conditions) -> None:
        """How the device was after a launch."""
        temperatures = conditions.temperature_millicelsius
        self.tell(
            temperature_millicelsius=max(temperatures) if temperatures else None,
            battery_percent=conditions.battery_percent,
            charging=conditions.charging,
            read_at=now(),
        )

    def close(self) -> None:
        """Take the file away."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = None

    def _open(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o1777)
        name = f"{os.getpid()}.{time.monotonic_ns()}.{next(_ordinal)}"
        self._path, hidden = folder / name, folder / f".{name}"
        create_shared(hidden)
        try:
            self._file = os.open(hidden, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            hidden.rename(self._path)
        except OSError:
            hidden.unlink(missing_ok=True)
            raise

    def _write(self) -> None:
        self._written_s = time.monotonic()
        text = json.dumps(asdict(self._doing)).encode()
        if self._file is not None and len(text) <= _SIZE:
            with contextlib.suppress(OSError):
                os.pwrite(self._file, text.ljust(_SIZE), 0)


def doings(folder: Path) -> tuple[Doing, ...]:
    """What the living processes of this machine do with devices, in the order in which they began.

    Args:
        folder: of this machine's lock.
    """
    return tuple(sorted(_living(folder / FOLDER), key=lambda each: (each.since, each.who)))


def _living(folder: Path) -> Iterator[Doing]:
    for path in folder.glob("[0-9]*"):
        with contextlib.suppress(OSError), descriptor_of(path, os.O_RDONLY | os.O_NONBLOCK) as descriptor:
            if lockable(descriptor):
                path.unlink()
                continue
            with contextlib.suppress(ValidationError):
                found = _DOING.validate_json(os.pread(descriptor, _SIZE, 0))
                yield Doing(**{name: _shown(value) for name, value in asdict(found).items()})


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def now() -> str:
    """The moment as these files say it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
