"""The devices that targets may name: this machine, and those of devices.toml."""

from devices.inventory.devices import (
    HOST,
    Device,
    connected,
    find_device,
    find_pool,
    is_this_machine,
    known_devices,
    known_pools,
    members_of,
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
from devices.inventory.pools import Pool

__all__ = [
    "HOST",
    "Device",
    "Pool",
    "connected",
    "find_device",
    "find_pool",
    "ignore_project_file_in",
    "is_this_machine",
    "known_devices",
    "known_pools",
    "members_of",
    "project_file",
    "runtime_of",
    "trust_project_file",
    "user_file",
    "uses_accelerator",
    "write_device",
]
