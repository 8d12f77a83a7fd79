"""Asks a target who it is: which runtime, in which version, on which machine."""

from __future__ import annotations

import functools

from devices.connections import Connection
from devices.errors import MeasurementError
from devices.exchange import exchange
from devices.inventory import connected
from devices.measurement import DeviceIdentity, RuntimeIdentity
from devices.runtimes import find_runtime
from devices.target import Target

PROBE_TIMEOUT_S = 120.0


@functools.cache
def probe(target: Target) -> tuple[RuntimeIdentity, DeviceIdentity]:
    """Identity of a target's runtime and device, as a fresh process there reports it; kept per process.

    Raises:
        TargetError: device or runtime unknown, runtime not installed, precision or option unsupported.
        MeasurementError: the agent gave no answer.
    """
    find_runtime(target.runtime).check(target)
    with connected(target.device) as connection:
        return identify(target, connection)


def identify(target: Target, connection: Connection) -> tuple[RuntimeIdentity, DeviceIdentity]:
    """The same over a connection that is already open, and not kept."""
    runtime = find_runtime(target.runtime)
    runtime.check(target)
    reply = exchange(connection, runtime, target, {"command": "identify"}, timeout_s=PROBE_TIMEOUT_S)
    identity = reply.only("identity")
    try:
        return (
            RuntimeIdentity(
                name=runtime.name,
                version=str(identity["runtime"]["version"]),
                binary_digest=str(identity["runtime"]["binary_digest"]),
                precision=target.precision,
                threads=target.threads,
                options=target.options,
            ),
            DeviceIdentity(**identity["device"]),
        )
    except (KeyError, TypeError) as error:
        raise MeasurementError(f"'{target}' gave an identity that cannot be read", why=repr(error)) from error
