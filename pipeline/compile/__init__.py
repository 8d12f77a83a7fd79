"""From an exported file to the artifact that ships: what can be done ahead of time is done here, once."""

from __future__ import annotations

from pathlib import Path

from devices.target import Target
from pipeline.compile.artifact import Artifact
from pipeline.compile.variants import (
    CompileTask,
    CompileVariant,
    ModelFormat,
    deciding_packages,
    default_variant,
    find_variant,
    known_variants,
)
from pipeline.export.base import student_format

__all__ = [
    "Artifact",
    "CompileTask",
    "CompileVariant",
    "ModelFormat",
    "compile_artifact",
    "deciding_packages",
    "find_variant",
    "known_variants",
]


def compile_artifact(
    exported: Path, target: Target, folder: Path, variant: CompileVariant | None = None
) -> Artifact:
    """Compile an exported network for a target, into ``folder/STEM.SUFFIX``.

    The same exported file gives the same bytes, on the same CPU and with the same runtime version.

    Args:
        exported: ONNX or LiteRT file, as the target's runtime asks.
        target: where the artifact will run.
        folder: where to; made when it is not there. Not the folder of ``exported``.
        variant: one without calibration; by default the one that fits the target best as far as can be said
            without a measurement.

    Raises:
        TargetError: nothing is compiled for the target's runtime, or in its precision.
        ExportError: the runtime is not installed here, or the file is not one that it takes.
    """
    fmt = student_format(target)
    variant = variant or default_variant(target)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{exported.stem}{variant.suffix}"
    notes = variant.make(CompileTask(exported, target), path)
    return Artifact.of(path, target, fmt, {"variant": variant.name, **notes})
