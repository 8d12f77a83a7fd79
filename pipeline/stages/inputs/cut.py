"""Stage ``cut`` of method ``dna``: where the teacher's blocks end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.spaces.dna.config import Shape
from pipeline.stages.inputs.teacher import TeacherSummary, open_teacher
from pipeline.stages.services import Services
from pipeline.work.canonical import by_digest
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from pipeline.methods.dna.cutting import CutTeacher


@dataclass(frozen=True)
class CutInput:
    """The teacher, the size of its images, and the names of the cuts, if they were given."""

    input_shape: Shape
    cuts: tuple[str, ...] | None
    teacher: TeacherSummary = by_digest()


@dataclass(frozen=True)
class Cut:
    """Where the teacher's blocks end: channels, height, width of each, and a digest of teacher and cuts."""

    shapes: tuple[Shape, ...]
    digest: str


@stage("cut", packages=("torch",))
def cut_into_blocks(given: CutInput, folder: StageFolder, services: Services) -> Cut:
    """Cut the teacher.

    Raises:
        TeacherError: it cannot be cut into blocks.
    """
    cut = open_cut_teacher(given, folder)
    return Cut(cut.shapes, cut.digest)


def open_cut_teacher(given: CutInput, folder: StageFolder) -> CutTeacher:
    """The teacher with its cuts."""
    from pipeline.methods.dna.cutting import cut_teacher

    return cut_teacher(open_teacher(given.teacher, folder).module, given.input_shape, given.cuts)
