"""One measurement at a time per device, among all processes, users and hosts."""

from devices.locking.lock import LockState

__all__ = ["LockState"]
