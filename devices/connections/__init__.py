"""Ways to reach a device."""

from __future__ import annotations

from devices.connections.base import Completed, Connection
from devices.connections.local import LocalConnection

__all__ = ["Completed", "Connection", "LocalConnection"]
