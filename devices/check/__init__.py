"""Finds out whether a device can be measured on."""

from devices.check.checking import (
    CANARIES,
    LOCK_WAIT_S,
    SMOKE,
    check_device,
    describe_device,
    try_accelerator,
)
from devices.check.pools import PoolReport, check_pool
from devices.check.report import DeviceReport, Problem, RuntimeReport

__all__ = [
    "CANARIES",
    "LOCK_WAIT_S",
    "SMOKE",
    "DeviceReport",
    "PoolReport",
    "Problem",
    "RuntimeReport",
    "check_device",
    "check_pool",
    "describe_device",
    "try_accelerator",
]
