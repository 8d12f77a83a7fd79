"""Stage ``space``: the architectures among which the student is searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.spaces.base import Architecture, Space
from pipeline.spaces.dna.config import DnaSpaceConfig
from pipeline.spaces.dna.space import DnaSpace
from pipeline.spaces.mobile.config import MobileSpaceConfig, SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.stages.inputs.data import DataSummary
from pipeline.stages.services import Services
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class SpacePlan:
    """A space as a value: choices, channels, height and width of the images, and number of classes."""

    config: MobileSpaceConfig | DnaSpaceConfig
    input_shape: tuple[int, int, int]
    classes: int

    @classmethod
    def mobile(cls, config: SpaceConfig | None, data: DataSummary) -> SpacePlan:
        """Of a recipe's table, or of the defaults for the size of the images."""
        shape, classes = data.input_shape, len(data.classes)
        return cls(MobileSpace.from_config(config, shape, classes).config, shape, classes)

    @cached_property
    def space(self) -> Space:
        """The space itself."""
        if isinstance(self.config, DnaSpaceConfig):
            return DnaSpace(self.config, self.input_shape, self.classes)
        return MobileSpace(self.config, self.input_shape, self.classes)


@dataclass(frozen=True)
class SpaceSummary:
    """Size of the space, its distinct blocks, and the network to which relative budgets refer."""

    architectures: int
    distinct_blocks: int
    reference: Architecture


def _told(given: SpacePlan, value: SpaceSummary) -> Sequence[str]:
    return [
        f"space        {value.architectures:,} architectures from {value.distinct_blocks} distinct blocks"
    ]


@stage("space", tell=_told)
def describe_space(given: SpacePlan, folder: StageFolder, services: Services) -> SpaceSummary:
    """Count what there is to choose from."""
    space = given.space
    return SpaceSummary(space.count(), len(space.distinct_blocks()), space.reference())
