"""From a finished model to the file that a device runs: which form of it, is found by measurement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.target import Target
from pipeline.compile.artifact import Artifact
from pipeline.compile.choice import Rules
from pipeline.compile.compiling import (
    CompiledModel,
    Wish,
    compile_model,
    held_out_of,
    operations_of,
    outputs_of_choice,
)
from pipeline.compile.model import TensorSpec, specs_of
from pipeline.compile.place import Place
from pipeline.compile.result import Fate, Objective, Raced, Row
from pipeline.compile.samples import Feeding
from pipeline.compile.variants import (
    CompileTask,
    CompileVariant,
    ModelFormat,
    deciding_packages,
    default_variant,
    find_variant,
    known_variants,
)
from pipeline.export.base import INPUT_NAME, format_of

__all__ = [
    "Artifact",
    "CompileTask",
    "CompileVariant",
    "CompiledModel",
    "Fate",
    "Feeding",
    "ModelFormat",
    "Objective",
    "Place",
    "Raced",
    "Row",
    "Rules",
    "TensorSpec",
    "Wish",
    "compile_artifact",
    "compile_model",
    "deciding_packages",
    "default_variant",
    "find_variant",
    "held_out_of",
    "known_variants",
    "operations_of",
    "outputs_of_choice",
    "specs_of",
]


def compile_artifact(
    exported: Path,
    target: Target,
    folder: Path,
    variant: CompileVariant | None = None,
    calibration: NDArray[np.float32] | None = None,
) -> Artifact:
    """Compile an exported network for a target, into ``folder/STEM.SUFFIX``.

    The same exported file gives the same bytes, on the same CPU and with the same runtime version.

    Args:
        exported: ONNX or LiteRT file in float, as the target's runtime asks.
        target: where the artifact will run.
        folder: where to; made when it is not there. Not the folder of ``exported``.
        variant: by default the one that fits the target best as far as can be said without a measurement.
        calibration: inputs ``(N, ...)`` as the file takes them, for a variant that calibrates.

    Raises:
        TargetError: nothing is compiled for the target's runtime, or in its precision.
        ExportError: the runtime is not installed here, or the file is not one that it takes.
    """
    fmt = format_of(target)
    variant = variant or default_variant(target)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{exported.stem}{variant.suffix}"
    inputs = {} if calibration is None else {INPUT_NAME: calibration}
    notes = variant.make(CompileTask(exported, target, inputs), path)
    return Artifact.of(path, target, fmt, {"variant": variant.name, **notes})
