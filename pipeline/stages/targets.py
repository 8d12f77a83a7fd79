"""What stands behind the name of a target now: part of every key to which a device contributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devices.measurement import DeviceIdentity, RuntimeIdentity
from devices.target import Target
from pipeline.export.base import Format, exporter_identity, format_of


@dataclass(frozen=True)
class BoundTarget:
    """A target with the runtime and the device that its name means now."""

    target: Target
    runtime: RuntimeIdentity
    device: DeviceIdentity

    @property
    def name(self) -> str:
        """The target as text."""
        return str(self.target)

    @property
    def format(self) -> Format:
        """What its runtime loads."""
        return format_of(self.target)


def exporters_of(targets: tuple[BoundTarget, ...]) -> Mapping[str, Any]:
    """What exports for every target, by its name: as ``pipeline.export.base.exporter_identity``.

    Raises:
        TargetError: nothing can be exported for a target.
        ExportError: an exporter is not installed.
    """
    return {each.name: exporter_identity(each.format) for each in targets}
