"""Ways to reach a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devices.connections.base import Completed, Connection
from devices.connections.local import LocalConnection

if TYPE_CHECKING:
    from devices.connections.ssh import SshConnection

__all__ = ["Completed", "Connection", "LocalConnection", "SshConnection"]


def __getattr__(name: str) -> Any:
    # Only for those who have such a device is its client loaded.
    if name == "SshConnection":
        from devices.connections.ssh import SshConnection

        return SshConnection
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
