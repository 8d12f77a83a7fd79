"""Relation similarity (DisWOT, 2303.15678): whether an untrained network finds those images alike that its
teacher does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.data.base import Dataset
from pipeline.distill.feature_maps import FeatureMap, feature_maps, paired, watched
from pipeline.search.base import Score
from pipeline.search.evaluators.untrained.networks import drawn, images_of, without_gradients
from pipeline.spaces.base import Architecture, Space

_IMAGES = 64
_LOOKED_AT = 2
"""Images with which maps are found."""


@dataclass(frozen=True)
class RelationSimilarity:
    """``-|| G(student) - G(teacher) ||_F / N``, G the cosines of N images' last common feature maps."""

    space: Space
    dataset: Dataset
    seed: int
    teacher: nn.Module

    @cached_property
    def _images(self) -> Tensor:
        return images_of(self.dataset, _IMAGES)

    @cached_property
    def _theirs(self) -> tuple[tuple[FeatureMap, ...], dict[str, Tensor]]:
        """The teacher's maps, and the cosines of the last of each size by its name."""
        teacher = self.teacher
        maps = feature_maps(teacher, self._images[:_LOOKED_AT])
        last = {each.size: each.name for each in maps}.values()
        with watched(teacher, list(last)) as outputs, torch.no_grad():
            teacher(self._images)
            return maps, {name: _cosines(outputs[name]) for name in last}

    def evaluate(self, architecture: Architecture) -> Score:
        """Minus the mean distance.

        Raises:
            TeacherError: the networks have no feature maps of one size.
        """
        maps, theirs = self._theirs
        with drawn(self.seed, architecture), torch.no_grad():
            student = self.space.build(architecture)
            pair = paired(feature_maps(student, self._images[:_LOOKED_AT]), maps)[-1]
            with watched(student, [pair.student.name]) as outputs:
                without_gradients(student)(self._images)
            ours = _cosines(outputs[pair.student.name])
        return Score(-float((ours - theirs[pair.teacher.name]).norm()) / len(self._images))


def _cosines(features: Tensor) -> Tensor:
    normed = nn.functional.normalize(features.flatten(1).double(), dim=1)
    return normed @ normed.T
