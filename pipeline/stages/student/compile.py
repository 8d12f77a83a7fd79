"""Stage ``compile``: student and reference network in the form that a target's runtime loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.compile import compile_artifact, deciding_packages
from pipeline.export.base import Format, Layout
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.latency.targets import BoundTarget
from pipeline.stages.services import Services
from pipeline.target_verdict import in_layout
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class Calibration:
    """Train images over which the ranges of activations are found."""

    images: int
    data: DataSummary = by_digest()

    def inputs(self, folder: StageFolder, layout: Layout) -> NDArray[np.float32]:
        """Preprocessed images in a layout, of all classes alike: a random choice of a fixed seed."""
        train = open_data(self.data, folder).train
        chosen = np.random.default_rng(0).permutation(len(train))[: self.images]
        return in_layout(self.data.preprocessing(train.images[chosen]), layout)


@dataclass(frozen=True)
class CompileInput:
    """The exported student and what its budget refers to, and the target to compile them for.

    ``calibration`` is for a target in int8.
    """

    student: StoredFile
    reference: StoredFile
    target: BoundTarget
    calibration: Calibration | None = None


@dataclass(frozen=True)
class CompiledFile:
    """A compiled network; ``notes`` say how it was compiled, and what to mind when it is loaded."""

    file: StoredFile
    format: Format
    notes: Mapping[str, str]
    size_bytes: int


@dataclass(frozen=True)
class Compiled:
    """Compiled forms of the student and of what its budget refers to, for one target."""

    student: CompiledFile
    reference: CompiledFile


def _told(given: CompileInput, value: Compiled) -> Sequence[str]:
    name = Path(value.student.file.path).name
    return [f"compile      {given.target.name}: {name}, {value.student.size_bytes / 1000:.0f} kB"]


@stage("compile", packages=deciding_packages(), tell=_told)
def compile_student(given: CompileInput, folder: StageFolder, services: Services) -> Compiled:
    """Compile both for the target.

    Raises:
        ExportError: the compiler is not installed, or does not take the file.
    """
    return Compiled(
        _compiled(given, given.student, "student", folder),
        _compiled(given, given.reference, "reference", folder),
    )


def _compiled(given: CompileInput, source: StoredFile, name: str, folder: StageFolder) -> CompiledFile:
    target, inputs = given.target.target, None
    if given.calibration is not None:
        inputs = given.calibration.inputs(folder, given.target.format.layout)
    artifact = compile_artifact(folder.find(source), target, folder / name, calibration=inputs)
    file = folder.stored(artifact.path.relative_to(folder.path).as_posix())
    return CompiledFile(file, given.target.format, artifact.notes, artifact.path.stat().st_size)
