"""The four-part key of a measurement: workload, runtime, device, protocol, each hashed by content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

from devices.digests import value_digest
from devices.measurement import DeviceIdentity, MeasuringProtocol, RuntimeIdentity

WORKLOAD_KINDS = ("block", "network")


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
    """Digests of the four parts; a lookup never crosses a part silently.

    Attributes:
        contents: what the digests stand for, by part, so that a miss can be explained; no part of equality.
    """

    workload: str
    runtime: str
    device: str
    protocol: str
    contents: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(
        cls,
        workload: Workload,
        runtime: RuntimeIdentity,
        device: DeviceIdentity,
        protocol: MeasuringProtocol,
    ) -> Key:
        """The key under which a measurement of ``workload`` is kept; the device's instance is left out."""
        parts = {"runtime": _part(runtime), "device": _part(device), "protocol": _part(protocol)}
        described = {"kind": workload.kind, "description": workload.description}
        return cls(
            workload.identity,
            **{part: digest for part, (digest, _) in parts.items()},
            contents={"workload": described, **{part: content for part, (_, content) in parts.items()}},
        )


@lru_cache(maxsize=1024)
def _part(
    value: RuntimeIdentity | DeviceIdentity | MeasuringProtocol,
) -> tuple[str, Mapping[str, Any]]:
    """Digest and content of a part: thousands of keys share few of them."""
    content = kind_of_device(value) if isinstance(value, DeviceIdentity) else asdict(value)
    # Without a spread a protocol has the key that it had before launches could be spread.
    content = {name: each for name, each in content.items() if (name, each) != ("spread_ns", 0)}
    return value_digest(content), content


def kind_of_device(device: DeviceIdentity) -> dict[str, Any]:
    """The identity of a kind of device: everything but the instance."""
    return {name: value for name, value in asdict(device).items() if name != "instance"}
