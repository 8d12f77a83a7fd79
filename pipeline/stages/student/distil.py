"""Stage ``distil``: one student trained in full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devices.words import count_of
from pipeline.distill.divergence import divergence_is
from pipeline.distill.settings import DistillationSettings, EpochRecord
from pipeline.errors import VerificationError
from pipeline.spaces.base import Architecture
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, soft_targets
from pipeline.stages.services import Services
from pipeline.stages.student.mixtures import Mixtures
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.disk import write_atomically
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from torch import nn

_WEIGHTS = "student.safetensors"


@dataclass(frozen=True)
class DistilInput:
    """Which student is trained, on what, and how; labels alone are learned without a teacher.

    ``mixtures`` are of the losses whose mixtures are searched, in their order.
    """

    plan: SpacePlan
    architecture: Architecture
    settings: DistillationSettings
    seed: int
    data: DataSummary = by_digest()
    teacher: TeacherSummary | None = by_digest()
    mixtures: tuple[Mixtures, ...] = ()


@dataclass(frozen=True)
class Distilled:
    """A fully trained student, the file of its weights, and the mixtures that were found for its training."""

    architecture: Architecture
    weights: StoredFile
    best_epoch: int
    validation_accuracy: float
    history: tuple[EpochRecord, ...]
    mixtures: tuple[Mixtures, ...] = ()


def _told(given: DistilInput, value: Distilled) -> Sequence[str]:
    return [
        f"distil       {value.architecture.brief}: {given.data.task.shown(value.validation_accuracy)} on the "
        "validation slice "
        f"after {count_of(len(value.history), 'epoch')}"
    ]


@stage("distil", packages=("torch",), tell=_told)
def distil_student(given: DistilInput, folder: StageFolder, services: Services) -> Distilled:
    """Train a student; after a kill it goes on from its last epoch.

    Raises:
        TeacherError: a loss compares layers that do not belong together.
        VerificationError: the training diverges.
    """
    from safetensors.torch import save

    from pipeline.distill.training import fit

    settings = given.settings.with_mixtures([each.shares for each in given.mixtures])
    student = given.plan.begin(given.architecture, given.seed, folder)
    dataset = open_data(given.data, folder)
    soft = None
    if given.teacher is not None:
        soft = soft_targets(given.teacher, folder, dataset, settings)
    checkpoint = folder / "checkpoint.pt"
    diverged = VerificationError("training the student diverged", fix="lower distil.learning_rate")
    with divergence_is(diverged), services.reporter.task("distilling the student", "epochs") as advance:
        result = fit(
            student,
            dataset,
            settings,
            seed=given.seed,
            targets=soft,
            checkpoint=checkpoint,
            on_epoch=lambda done, total, record: advance(done, total),
            what="distilling the student",
            tell=services.reporter.note,
        )
    write_atomically(folder / _WEIGHTS, save(student.state_dict()))
    checkpoint.unlink(missing_ok=True)
    return Distilled(
        given.architecture,
        folder.stored(_WEIGHTS),
        result.best_epoch,
        result.best_validation_accuracy,
        result.history,
        given.mixtures,
    )


def open_student(
    plan: SpacePlan, architecture: Architecture, weights: StoredFile, folder: StageFolder
) -> nn.Module:
    """The student with its trained weights, in eval mode."""
    from safetensors.torch import load_file

    student = plan.open(folder).build(architecture)
    student.load_state_dict(load_file(folder.find(weights)))
    return student.eval()
