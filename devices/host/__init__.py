"""This machine as Lathe uses it: processes and temporary folders that do not outlive it, and interruption."""

from devices.host.folders import full, is_full, remove_abandoned, remove_own, temporary_folder
from devices.host.interruption import Interrupted, check_interruption, interrupted
from devices.host.processes import end, end_all, end_with_parent, start

__all__ = [
    "Interrupted",
    "check_interruption",
    "end",
    "end_all",
    "end_with_parent",
    "full",
    "interrupted",
    "is_full",
    "remove_abandoned",
    "remove_own",
    "start",
    "temporary_folder",
]
