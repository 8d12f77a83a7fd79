"""From an exported file to the artifact that ships: what can be done ahead of time is done here, once."""

from __future__ import annotations

from pathlib import Path

from devices.target import Target
from pipeline.compile.artifact import Artifact
from pipeline.export.base import Format, student_format

__all__ = ["Artifact", "compile_artifact"]


def compile_artifact(exported: Path, target: Target, folder: Path) -> Artifact:
    """Compile an exported network for a target, into ``folder/STEM.SUFFIX``.

    The same exported file gives the same bytes, on the same CPU and with the same runtime version.

    Args:
        exported: ONNX or LiteRT file, as the target's runtime asks.
        target: where the artifact will run.
        folder: where to; made when it is not there. Not the folder of ``exported``.

    Raises:
        TargetError: nothing is compiled for the target's runtime, or in its precision.
        ExportError: the runtime is not installed here, or the file is not one that it takes.
    """
    from pipeline.compile import litert, onnxruntime

    compilers = {Format.ONNX: onnxruntime.optimise, Format.LITERT: litert.finish}
    fmt = student_format(target)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{exported.stem}{fmt.suffix}"
    notes = compilers[fmt](exported, target, path)
    return Artifact.of(path, target, fmt, notes)
