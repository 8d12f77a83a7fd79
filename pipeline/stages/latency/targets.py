"""What stands behind the name of a target now: part of every key to which a device contributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from devices.measurement import DeviceIdentity, RuntimeIdentity
from devices.target import Target
from pipeline.compile import default_variant
from pipeline.export.base import Format, exporter_identity, format_of, in_float
from pipeline.work.canonical import without_influence


@dataclass(frozen=True)
class OutputsPlace:
    """Where the outputs of a target's artifacts are taken, where the target itself gives none."""

    target: Target
    runtime: RuntimeIdentity
    device: DeviceIdentity


@dataclass(frozen=True)
class BoundTarget:
    """A target with the runtime and the device that its name means now.

    Attributes:
        elsewhere: where its artifacts are run for parity and accuracy; ``None`` for the target itself. Stages
            that do so are given it by ``outputs_of``.
    """

    target: Target
    runtime: RuntimeIdentity
    device: DeviceIdentity
    elsewhere: OutputsPlace | None = without_influence()

    @classmethod
    def bind(cls, target: Target) -> BoundTarget:
        """Find out what stands behind a target, and whether a student can be made and verified for it.

        A target that asks for an accelerator runs a small model there, so that one which is missing is told
        now and not after hours of training.

        Raises:
            TargetError: it is unknown, its runtime is not installed, nothing is exported in its precision, or
                its outputs can be taken nowhere.
            ExportError: nothing is compiled for it.
            MeasurementError: its accelerator runs no model.
        """
        from devices.check import try_accelerator
        from devices.measuring import probe
        from devices.requests import outputs_target

        suffix = format_of(target).suffix
        default_variant(target)
        runtime, device = probe(target)
        place = outputs_target(target, suffix)
        try_accelerator(target)
        return cls(target, runtime, device, None if place == target else OutputsPlace(place, *probe(place)))

    @property
    def name(self) -> str:
        """The target as text."""
        return str(self.target)

    @property
    def format(self) -> Format:
        """What its runtime loads."""
        return format_of(self.target)

    @property
    def is_int8(self) -> bool:
        """Whether students are quantised for it."""
        return self.target.precision == "int8"


def outputs_place(target: BoundTarget, outputs: Mapping[str, OutputsPlace]) -> Target:
    """Where the outputs of a target's artifacts are taken."""
    return outputs[target.name].target if target.name in outputs else target.target


def outputs_of(targets: tuple[BoundTarget, ...]) -> Mapping[str, OutputsPlace]:
    """Where outputs are taken for the targets that give none themselves, by their names."""
    return {each.name: each.elsewhere for each in targets if each.elsewhere is not None}


def exporters_of(targets: tuple[BoundTarget, ...]) -> Mapping[str, Any]:
    """What exports for every target and for the same in float, by name: ``export.base.exporter_identity``.

    Raises:
        TargetError: nothing can be exported for a target.
        ExportError: an exporter is not installed.
    """
    every = [target for each in targets for target in (each.target, in_float(each.target))]
    return {str(target): exporter_identity(format_of(target)) for target in every}
