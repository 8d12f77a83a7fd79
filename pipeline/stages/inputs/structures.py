"""Stage ``structures`` of method ``subgraph``: what can be removed from the teacher, and what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.spaces.teacher.config import Shape, TeacherSpaceConfig
from pipeline.stages.inputs.teacher import TeacherSummary, open_teacher
from pipeline.stages.services import Services
from pipeline.work.canonical import by_digest
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class StructuresInput:
    """The teacher, the size of its images, and how many distinct blocks may be measured."""

    input_shape: Shape
    most_blocks: int
    teacher: TeacherSummary = by_digest()


def _told(given: StructuresInput, value: TeacherSpaceConfig) -> Sequence[str]:
    blocks = sum(each.kind == "block" for each in value.structures)
    channels = sum(each.count for each in value.structures if each.kind == "channels")
    return [
        f"structures   of {len(value.units)} units of the teacher {channels} channels can be removed, in "
        f"{len(value.structures) - blocks} groups, and {blocks} whole blocks"
    ]


@stage("structures", packages=("torch", "torch-pruning"), tell=_told)
def find_teacher_structures(
    given: StructuresInput, folder: StageFolder, services: Services
) -> TeacherSpaceConfig:
    """Find and prove what can be removed; of an ensemble, from its first member.

    Raises:
        TeacherError: nothing can be removed, or the teacher's graph cannot be followed.
    """
    from pipeline.methods.subgraph.structures import find_structures
    from pipeline.methods.subgraph.units import describe_teacher

    network = open_teacher(given.teacher, folder).members[0].network
    with services.reporter.task("finding what can be removed from the teacher", ""):
        structures = find_structures(network, given.input_shape)
        return describe_teacher(network, given.input_shape, structures, most_blocks=given.most_blocks)
