"""Ways to reach a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devices.connections.base import Completed, Connection, first_lines
from devices.connections.local import LocalConnection

if TYPE_CHECKING:
    from devices.connections.adb import AdbConnection
    from devices.connections.ssh import SshConnection

__all__ = ["AdbConnection", "Completed", "Connection", "LocalConnection", "SshConnection", "first_lines"]


def __getattr__(name: str) -> Any:
    # Loaded for those only who have such a device.
    if name == "AdbConnection":
        from devices.connections.adb import AdbConnection

        return AdbConnection
    if name == "SshConnection":
        from devices.connections.ssh import SshConnection

        return SshConnection
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
