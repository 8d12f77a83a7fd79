"""From an exported file to the artifact that ships: what can be done ahead of time is done here, once."""

from __future__ import annotations

from pathlib import Path

from devices.target import Target
from pipeline.compile.artifact import Artifact
from pipeline.compile.variants import deciding_packages, variant_for

__all__ = ["Artifact", "compile_artifact", "deciding_packages"]


def compile_artifact(exported: Path, target: Target, folder: Path) -> Artifact:
    """Compile an exported network for a target, into ``folder/STEM.SUFFIX``.

    The same exported file gives the same bytes, on the same CPU and with the same runtime version.

    Args:
        exported: ONNX or LiteRT file, as the target's runtime asks.
        target: where the artifact will run; it decides the variant.
        folder: where to; made when it is not there. Not the folder of ``exported``.

    Raises:
        TargetError: nothing is compiled for the target's runtime, or in its precision.
        ExportError: the runtime is not installed here, or the file is not one that it takes.
    """
    variant = variant_for(target)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{exported.stem}{variant.format.suffix}"
    notes = variant.compile(exported, target, path)
    return Artifact.of(path, target, variant.format, {"variant": variant.name, **notes})
