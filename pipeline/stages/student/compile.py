"""Stage ``compile``: student and reference network in the form that a target's runtime loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.measurement import MeasuringProtocol
from devices.target import Target
from pipeline.compile import CompileVariant, compile_artifact, deciding_packages, fastest_variant
from pipeline.export.base import Format, Layout, format_of, in_float
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

    Attributes:
        reference: none where the reference network does not run, and no budget needs it.
        of_teacher: whether the reference is the teacher, which is compiled in float and by default.
        calibration: for a target in int8.
        measured: the protocol by which the variant is chosen by measurement, if it is.
    """

    student: StoredFile
    reference: StoredFile | None
    target: BoundTarget
    of_teacher: bool
    calibration: Calibration | None = None
    measured: MeasuringProtocol | None = None


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
    reference: CompiledFile | None


def _told(given: CompileInput, value: Compiled) -> Sequence[str]:
    name = Path(value.student.file.path).name
    return [f"compile      {given.target.name}: {name}, {value.student.size_bytes / 1000:.0f} kB"]


@stage("compile", packages=deciding_packages(), tell=_told)
def compile_student(given: CompileInput, folder: StageFolder, services: Services) -> Compiled:
    """Compile both for the target; a reference network by the student's variant.

    Raises:
        ExportError: the compiler is not installed, or does not take the file.
        MeasurementError, TargetError: variants are to be measured, and the target does not run them.
    """
    variant = None
    if given.measured is not None:
        exported = folder.find(given.student)
        with services.reporter.task(f"choosing how to compile for {given.target.name}", ""):
            variant = fastest_variant(exported, given.target.target, folder / "tried", given.measured)

    def compiled(
        name: str, source: StoredFile, target: Target, variant: CompileVariant | None
    ) -> CompiledFile:
        fmt, inputs = format_of(target), None
        if given.calibration is not None and target.precision == "int8":
            inputs = given.calibration.inputs(folder, fmt.layout)
        artifact = compile_artifact(folder.find(source), target, folder / name, variant, inputs)
        file = folder.stored(artifact.path.relative_to(folder.path).as_posix())
        return CompiledFile(file, fmt, artifact.notes, artifact.path.stat().st_size)

    target, reference = given.target.target, None
    if given.reference is not None and given.of_teacher:
        reference = compiled("reference", given.reference, in_float(target), None)
    elif given.reference is not None:
        reference = compiled("reference", given.reference, target, variant)
    return Compiled(compiled("student", given.student, target, variant), reference)
