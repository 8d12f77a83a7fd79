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
from devices.inventory.devices_file import project_file, user_file, write_device

__all__ = [
    "HOST",
    "Device",
    "connected",
    "find_device",
    "known_devices",
    "project_file",
    "runtime_of",
    "user_file",
    "uses_accelerator",
    "write_device",
]
