"""The devices that targets may name: this machine, and those of devices.toml."""

from devices.inventory.devices import (
    HOST,
    Device,
    connected,
    find_device,
    known_devices,
    runtime_of,
    uses_accelerator,
)
from devices.inventory.devices_file import (
    ignore_project_file_in,
    project_file,
    trust_project_file,
    user_file,
    write_device,
)

__all__ = [
    "HOST",
    "Device",
    "connected",
    "find_device",
    "ignore_project_file_in",
    "known_devices",
    "project_file",
    "runtime_of",
    "trust_project_file",
    "user_file",
    "uses_accelerator",
    "write_device",
]
