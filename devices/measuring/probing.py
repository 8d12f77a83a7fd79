"""Asks a target who it is: which runtime, in which version, on which machine."""

from __future__ import annotations

import functools

from devices.connections import Connection
from devices.inventory.devices import call_to, connected, find_device, runtime_of
from devices.measurement.measurement import DeviceIdentity, RuntimeIdentity
from devices.measurement.protocol import MeasuringProtocol
from devices.runtimes.base import Identify
from devices.target import Target

PROBE_TIMEOUT_S = 120.0


@functools.cache
def probe(target: Target) -> tuple[RuntimeIdentity, DeviceIdentity]:
    """Identity of a target's runtime and device, as a fresh process there reports it; kept per process.

    Raises:
        TargetError: device or runtime unknown, runtime not installed, precision or option unsupported.
        MeasurementError: the agent gave no answer.
    """
    runtime_of(target)
    with connected(target.device) as connection:
        return identify(target, connection)


def adapted(protocol: MeasuringProtocol, target: Target) -> MeasuringProtocol:
    """The protocol as far as the target's runtime can follow it: the one that its measurements are made by.

    Raises:
        TargetError: device or runtime unknown, precision or option unsupported.
    """
    return runtime_of(target).adapt(protocol)


def identify(target: Target, connection: Connection) -> tuple[RuntimeIdentity, DeviceIdentity]:
    """The same over a connection that is already open, and not kept."""
    runtime = runtime_of(target)
    reply = runtime.exchange(call_to(target, connection, timeout_s=PROBE_TIMEOUT_S), Identify())
    identity = reply.only("identity")
    device = dict(identity["device"])
    device["emulated"] = device.get("emulated", False) or find_device(target.device).emulated
    return (
        RuntimeIdentity(
            name=runtime.name,
            version=identity["runtime"]["version"],
            binary_digest=identity["runtime"]["binary_digest"],
            precision=target.precision,
            threads=target.threads,
            options=target.options,
        ),
        DeviceIdentity(**device),
    )
