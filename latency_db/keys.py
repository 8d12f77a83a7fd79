"""The four-part key of a measurement: workload, runtime, device, protocol, each hashed by content."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from devices.digests import value_digest
from devices.measurement import DeviceIdentity, MeasuringProtocol, RuntimeIdentity


@dataclass(frozen=True)
class Workload:
    """What is timed, a block or a whole network, identified by its content.

    Attributes:
        identity: digest of everything that decides the executed graph (description, format, exporter).
        kind: ``block`` or ``network``.
        description: one line for people, e.g. ``mbconv 16x8x8 k3 e4 -> 24 s2``.
    """

    identity: str
    kind: Literal["block", "network"]
    description: str

    @classmethod
    def of(cls, kind: Literal["block", "network"], description: str, content: Any) -> Workload:
        """Identify a workload by its JSON ``content``."""
        return cls(value_digest({"kind": kind, "content": content}), kind, description)


@dataclass(frozen=True)
class Key:
    """Digests of the four parts; a lookup never crosses a part silently."""

    workload: str
    runtime: str
    device: str
    protocol: str

    @classmethod
    def of(
        cls,
        workload: Workload,
        runtime: RuntimeIdentity,
        device: DeviceIdentity,
        protocol: MeasuringProtocol,
    ) -> Key:
        """The key under which a measurement of ``workload`` is kept; the device's instance is left out."""
        return cls(
            workload.identity,
            value_digest(asdict(runtime)),
            value_digest(kind_of_device(device)),
            value_digest(asdict(protocol)),
        )


def kind_of_device(device: DeviceIdentity) -> dict[str, Any]:
    """The identity of a kind of device: everything but the instance."""
    return {name: value for name, value in asdict(device).items() if name != "instance"}
