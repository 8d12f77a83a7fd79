"""Stage ``export``: the student in float, for the runtime of every target, compared with torch there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from devices.words import count_of
from pipeline.export.base import Format
from pipeline.export.parity import Parity
from pipeline.recipe.sections import ExportConfig
from pipeline.spaces.base import Architecture
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, open_teacher
from pipeline.stages.latency.targets import BoundTarget, OutputsPlace, outputs_place
from pipeline.stages.services import Services
from pipeline.stages.student.distil import open_student
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ExportInput:
    """The student and the networks that budgets refer to, where they shall run, and what exports them.

    Attributes:
        reference_on: the targets on which the reference network is known to run; for others it is left out.
        exporters: by target.
        outputs: where the outputs are taken of targets that give none, by target.
        teacher: only if a budget refers to it.
    """

    plan: SpacePlan
    architecture: Architecture
    weights: StoredFile
    reference: Architecture
    reference_on: frozenset[str]
    targets: tuple[BoundTarget, ...]
    exporters: Mapping[str, Any]
    settings: ExportConfig
    outputs: Mapping[str, OutputsPlace]
    data: DataSummary = by_digest()
    teacher: TeacherSummary | None = by_digest()


@dataclass(frozen=True)
class Exported:
    """Files of student, untrained reference network and teacher by format; parity by target."""

    students: Mapping[Format, StoredFile]
    references: Mapping[Format, StoredFile]
    teachers: Mapping[Format, StoredFile]
    parity: Mapping[str, Parity]


def _told(given: ExportInput, value: Exported) -> Sequence[str]:
    return [
        f"export       {name}: largest difference to torch {parity.max_abs:.1e} "
        f"(relative {parity.max_rel:.1e}) on {count_of(parity.samples, 'image')}"
        for name, parity in value.parity.items()
    ]


@stage("export", packages=("torch",), tell=_told)
def export_student(given: ExportInput, folder: StageFolder, services: Services) -> Exported:
    """Export student and what budgets refer to, and compare the student with torch on every target.

    Raises:
        ExportError: one of them cannot be exported.
        ParityError: the student differs from torch beyond the tolerance.
    """
    import torch

    from pipeline.export.network import export_networks

    formats = sorted({each.format.in_float for each in given.targets})
    student = open_student(given.plan, given.architecture, given.weights, folder)
    torch.manual_seed(0)
    reference = given.plan.open(folder).build(given.reference)
    with_reference = {each.format.in_float for each in given.targets if each.name in given.reference_on}
    networks = {_student: student}
    if given.teacher is not None:
        networks[_teacher] = open_teacher(given.teacher, folder).module

    def write(fmt: Format) -> None:
        wanted = networks | ({_reference: reference} if fmt in with_reference else {})
        models = {folder / name(fmt): network for name, network in wanted.items()}
        export_networks(models, given.plan.input_shape, fmt)

    # Conversion runs in processes of its own, one per format.
    with ThreadPoolExecutor(len(formats)) as pool:
        list(pool.map(write, formats))
    return Exported(
        {fmt: folder.stored(_student(fmt)) for fmt in formats},
        {fmt: folder.stored(_reference(fmt)) for fmt in formats if fmt in with_reference},
        {fmt: folder.stored(_teacher(fmt)) for fmt in formats if given.teacher is not None},
        {each.name: _parity(given, each, student, folder) for each in given.targets},
    )


def _parity(given: ExportInput, target: BoundTarget, student: nn.Module, folder: StageFolder) -> Parity:
    from pipeline.data.tensors import to_tensor
    from pipeline.export.parity import check_parity

    fmt, settings = target.format.in_float, given.settings
    images = open_data(given.data, folder).validation.images[: settings.samples]
    inputs = to_tensor(images, given.data.preprocessing).numpy()
    where = replace(outputs_place(target, given.outputs), precision="fp32")
    return check_parity(student, folder / _student(fmt), fmt, inputs, where, tolerance=settings.tolerance)


def _student(fmt: Format) -> str:
    return f"student{fmt.suffix}"


def _reference(fmt: Format) -> str:
    return f"reference{fmt.suffix}"


def _teacher(fmt: Format) -> str:
    return f"teacher{fmt.suffix}"
