"""Stage ``space``: the architectures among which the student is searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from devices.words import count_of
from pipeline.spaces.add_on.config import AddOnSpaceConfig
from pipeline.spaces.add_on.space import AddOnSpace
from pipeline.spaces.base import Architecture
from pipeline.spaces.dna.config import DnaSpaceConfig
from pipeline.spaces.dna.space import DnaSpace
from pipeline.spaces.mobile.config import MobileSpaceConfig, SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.spaces.teacher.config import TeacherSpaceConfig
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.stages.inputs.data import DataSummary
from pipeline.stages.inputs.importance import open_importance
from pipeline.stages.inputs.structures import open_network
from pipeline.stages.inputs.teacher import TeacherSummary
from pipeline.stages.services import Services
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.stage import StageFolder, stage

if TYPE_CHECKING:
    from torch import nn

PlannedSpace = MobileSpace | DnaSpace | TeacherSpace | AddOnSpace


@dataclass(frozen=True)
class SpacePlan:
    """A space as a value.

    Attributes:
        config: its choices.
        input_shape: channels, height and width of the images.
        classes: outputs of a network: one for each class, label or number of the data, or for each dimension
            of a vector.
        teacher: whose subgraphs they are, in a teacher's space.
        importance: of the teacher's parts, if its subgraphs begin with the weights of the most important
            ones; else all weights are drawn.
    """

    config: MobileSpaceConfig | DnaSpaceConfig | TeacherSpaceConfig | AddOnSpaceConfig
    input_shape: tuple[int, int, int]
    classes: int
    teacher: TeacherSummary | None = by_digest(None)
    importance: StoredFile | None = None

    @classmethod
    def mobile(cls, config: SpaceConfig | None, data: DataSummary, outputs: int | None = None) -> SpacePlan:
        """Of a recipe's table, or of the defaults for the size of the images.

        Args:
            config: the table.
            data: whose images they take.
            outputs: of the teacher, where these are not as many as the data have names.
        """
        shape, classes = data.input_shape, outputs or len(data.classes)
        return cls(MobileSpace.from_config(config, shape, classes).config, shape, classes)

    @classmethod
    def add_on(cls, config: AddOnSpaceConfig | None, data: DataSummary) -> SpacePlan:
        """Of the table ``[oracle.space]``, or of the defaults for the size of the images."""
        shape = data.input_shape
        return cls(config or AddOnSpaceConfig.for_input(shape), shape, len(data.classes))

    @cached_property
    def space(self) -> PlannedSpace:
        """The space itself; ``open`` it to build a network, for which a teacher's space needs the teacher."""
        if isinstance(self.config, TeacherSpaceConfig):
            return TeacherSpace(self.config, self.input_shape, self.classes)
        if isinstance(self.config, DnaSpaceConfig):
            return DnaSpace(self.config, self.input_shape, self.classes)
        if isinstance(self.config, AddOnSpaceConfig):
            return AddOnSpace(self.config, self.input_shape, self.classes)
        return MobileSpace(self.config, self.input_shape, self.classes)

    def open(self, folder: StageFolder) -> PlannedSpace:
        """The space, with all that it needs to build networks and blocks."""
        teacher = self.teacher
        if teacher is None:
            return self.space
        assert isinstance(self.config, TeacherSpaceConfig)
        from pipeline.methods.subgraph.units import OpenTeacherSpace

        importance = None if self.importance is None else open_importance(self.importance, folder)
        return OpenTeacherSpace(
            self.config,
            self.input_shape,
            self.classes,
            lambda: open_network(teacher, self.input_shape, folder),
            importance,
        )

    def begin(self, architecture: Architecture, seed: int, folder: StageFolder) -> nn.Module:
        """A student before its training; ``seed`` draws the weights that it does not inherit."""
        import torch

        torch.manual_seed(seed)
        return self.open(folder).build(architecture)


@dataclass(frozen=True)
class SpaceSummary:
    """Size of the space, its distinct blocks, and the network to which relative budgets refer."""

    architectures: int
    distinct_blocks: int
    reference: Architecture


def _told(given: SpacePlan, value: SpaceSummary) -> Sequence[str]:
    return [
        f"space        {count_of(value.architectures, 'architecture')} from "
        f"{count_of(value.distinct_blocks, 'distinct block')}"
    ]


@stage("space", tell=_told)
def describe_space(given: SpacePlan, folder: StageFolder, services: Services) -> SpaceSummary:
    """Count what there is to choose from."""
    space = given.space
    return SpaceSummary(space.count(), len(space.distinct_blocks()), space.reference())
