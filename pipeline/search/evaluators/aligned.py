"""Stages of a student beside the teacher's feature maps of the same sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.distill.feature_maps import feature_maps, no_common_size, watched
from pipeline.spaces.base import Block

Size = tuple[int, int]
IMAGE = (0, 0)
"""Stands for the size of the images, before any map."""

_LOOKED_AT = 2
"""Images with which maps are found."""


class Stage(NamedTuple):
    """Some blocks in a row, by number, from the teacher's map of one size to that of another."""

    before: Size
    size: Size
    blocks: slice


def stages_of(blocks: Sequence[Block], sizes: Set[Size]) -> list[Stage]:
    """The blocks up to the last one, which gives logits, cut behind the last map of each size in ``sizes``.

    Blocks behind the last such map are left out.

    Raises:
        TeacherError: there is no such map.
    """
    given = [block.input_shape[1:] for block in blocks[1:]]
    last = {size: place for place, size in enumerate(given) if size in sizes}
    if not last:
        raise no_common_size(dict.fromkeys(given), sorted(sizes, reverse=True))
    found, before, start = list[Stage](), IMAGE, 0
    for size, place in sorted(last.items(), key=lambda each: each[1]):
        found.append(Stage(before, size, slice(start, place + 1)))
        before, start = size, place + 1
    return found


class TeacherMaps:
    """The last feature map of every size that a teacher gives.

    Args:
        teacher: frozen, in eval mode.
        images: some, with which its maps are found: ``(N, C, H, W)``.
    """

    def __init__(self, teacher: nn.Module, images: Tensor) -> None:
        self._teacher = teacher
        self._names = {each.size: each.name for each in feature_maps(teacher, images[:_LOOKED_AT])}

    @property
    def sizes(self) -> frozenset[Size]:
        """Of the maps."""
        return frozenset(self._names)

    def __call__(self, images: Tensor) -> Mapping[Size, Tensor]:
        """The images by ``IMAGE``, and the maps of them by their sizes."""
        with watched(self._teacher, list(self._names.values())) as outputs, torch.no_grad():
            self._teacher(images)
            return {IMAGE: images} | {size: outputs[name] for size, name in self._names.items()}


def of_size(features: Tensor, size: Size) -> Tensor:
    """The features as high and wide as a block expects them."""
    return features if features.shape[2:] == size else nn.functional.adaptive_avg_pool2d(features, size)
