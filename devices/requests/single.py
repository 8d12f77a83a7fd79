"""Asks a device about one file in a run of its own, apart from the batches of ``devices.measuring``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from devices.artifacts import artifact_digest
from devices.connections import Connection
from devices.errors import MeasurementError
from devices.inventory.devices import call_to, connected, runtime_of
from devices.locking.lock import device_lock
from devices.measurement.measurement import DeviceIdentity, Reason, RuntimeIdentity
from devices.measurement.protocol import MeasuringProtocol
from devices.measuring.launch import reason_of_failure
from devices.measuring.probing import identify
from devices.runtimes.base import Event, ProfileOperations, Reply, Sustain
from devices.target import Target
from devices.words import listed


@dataclass(frozen=True)
class Subject:
    """What ran, where and when."""

    artifact_digest: str
    target: str
    runtime: RuntimeIdentity
    device: DeviceIdentity
    protocol: MeasuringProtocol
    started_at: str


def ask(
    request: ProfileOperations | Sustain,
    target: Target,
    *,
    timeout_s: float,
    silence_s: float,
    on_event: Callable[[Event], None] | None = None,
    connection: Connection | None = None,
) -> tuple[Subject, Reply]:
    """Hold the device alone, identify it, and ask.

    Raises:
        TargetError: device or runtime unknown or not reachable, runtime not installed, precision or option
            unsupported, or the device is in use for too long.
        MeasurementError: the file is missing or of a kind that the runtime does not load, or the runtime
            cannot do what is asked.
    """
    runtime = runtime_of(target)
    artifact, able = request.artifact, runtime.capabilities(target)
    support = able.operations if isinstance(request, ProfileOperations) else able.sustained
    if not support:
        what = "time of its operations" if isinstance(request, ProfileOperations) else "run without pause"
        raise MeasurementError(
            f"'{target}' gives no {what} of a model (not-supported)",
            why=support.note,
            fix="choose a target that does; docs/devices/matrix.md lists them",
        )
    if not runtime.loads(artifact):
        raise MeasurementError(
            f"{str(artifact)!r} cannot be run on '{target}'",
            why=f"{runtime.name} loads {listed(runtime.suffixes)} files",
        )
    if not artifact.is_file():
        raise MeasurementError(f"there is no file {str(artifact)!r}")
    with (
        connected(target.device, connection) as device,
        device_lock(target.device, device, what=f"one file on {target}"),
    ):
        identity, machine = identify(target, device)
        subject = Subject(
            artifact_digest(artifact),
            str(target),
            identity,
            machine,
            request.protocol,
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return subject, runtime.exchange(
            call_to(target, device, timeout_s=timeout_s, silence_s=silence_s, on_event=on_event), request
        )


def reason_of(reply: Reply) -> Reason:
    """Why an exchange ended without its answer."""
    for event in reply.all("failed"):
        return reason_of_failure(event)
    return Reason(*reply.end)
