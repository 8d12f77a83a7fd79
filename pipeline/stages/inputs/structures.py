"""Stage ``structures`` of method ``subgraph``: what can be removed from the teacher, and what is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devices.words import count_of
from pipeline.spaces.teacher.config import KINDS, Shape, TeacherSpaceConfig
from pipeline.stages.inputs.teacher import TeacherSummary, open_teacher
from pipeline.stages.services import Services
from pipeline.work.canonical import by_digest
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class StructuresInput:
    """The teacher, the size of its images, and how many distinct blocks may be measured."""

    input_shape: Shape
    most_blocks: int
    teacher: TeacherSummary = by_digest()


def _told(given: StructuresInput, value: TeacherSpaceConfig) -> Sequence[str]:
    of_kind = {kind: [each for each in value.structures if each.kind == kind] for kind in KINDS}
    channels, groups, heads = (
        sum(each.count for each in of_kind[kind]) for kind in ("channels", "groups", "heads")
    )
    found = [f"{channels} channels in {count_of(len(of_kind['channels']), 'group')}"] if channels else []
    found += [f"{groups} whole groups of grouped layers"] if groups else []
    found += [f"{heads} attention heads"] if heads else []
    found += [count_of(len(of_kind["block"]), "whole block")]
    units = count_of(len(value.units), "unit")
    return [f"structures   of {units} of the teacher can be removed: {', '.join(found)}"]


@stage("structures", packages=("torch", "torch-pruning"), tell=_told)
def find_teacher_structures(
    given: StructuresInput, folder: StageFolder, services: Services
) -> TeacherSpaceConfig:
    """Find and prove what can be removed; of an ensemble, from its first member.

    Raises:
        TeacherError: nothing can be removed, or the teacher's graph cannot be followed or turned into layers.
    """
    from pipeline.methods.subgraph.structures import find_structures
    from pipeline.methods.subgraph.units import describe_teacher

    with services.reporter.task("finding what can be removed from the teacher", ""):
        network = open_network(given.teacher, given.input_shape, folder)
        structures = find_structures(network, given.input_shape)
        return describe_teacher(network, given.input_shape, structures, most_blocks=given.most_blocks)


def open_network(teacher: TeacherSummary, input_shape: Shape, folder: StageFolder) -> nn.Module:
    """The network that subgraphs are cut from: a teacher's first member, whose layers and heads are modules.

    Raises:
        TeacherError: it cannot be opened, or is an exported graph that cannot be turned back into layers.
    """
    from pipeline.methods.subgraph.attention import separate_heads
    from pipeline.methods.subgraph.structures import example_images
    from pipeline.teachers.rebuilding import rebuild_layers

    network = open_teacher(teacher, folder).members[0].network
    images = example_images(network, input_shape)
    rebuild_layers(network, images)
    separate_heads(network, images)
    return network
