"""One measurement at a time per device, among all processes, users and hosts."""

from devices.locking.doing import Doing
from devices.locking.lock import LockState, doings_here, lock_state_here

__all__ = ["Doing", "LockState", "doings_here", "lock_state_here"]
