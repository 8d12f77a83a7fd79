"""The devices that targets may name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from devices.connections import Connection, LocalConnection
from devices.errors import TargetError


@dataclass(frozen=True)
class Device:
    """A machine by the name that targets use, and how to open a connection to it."""

    name: str
    connect: Callable[[], Connection]


HOST = Device("host", LocalConnection)


def known_devices() -> tuple[Device, ...]:
    """All devices; ``host``, the machine that Lathe runs on, is always among them."""
    return (HOST,)


def find_device(name: str) -> Device:
    """The device of that name.

    Raises:
        TargetError: no such device; the known ones are listed.
    """
    for device in known_devices():
        if device.name == name:
            return device
    known = ", ".join(device.name for device in known_devices())
    raise TargetError(
        f"there is no device '{name}'", why=f"known devices are {known}", fix="choose one of them"
    )


@contextlib.contextmanager
def connected(name: str, connection: Connection | None = None) -> Iterator[Connection]:
    """A connection to a device, closed at the end; one that is handed in is used instead, and stays open.

    Raises:
        TargetError: no such device.
    """
    device = find_device(name)
    if connection is not None:
        yield connection
        return
    with device.connect() as opened:
        yield opened
