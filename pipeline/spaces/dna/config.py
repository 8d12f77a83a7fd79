"""What the DNA space may choose from, and defaults for a teacher."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.errors import TeacherError
from pipeline.spaces.mobile.config import Counts, Kernels, Positive, Ratio

Shape = tuple[int, int, int]
"""Channels, height, width."""


class CellConfig(BaseModel):
    """Layers of a block and their output channels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: Positive
    width: Positive

    @property
    def name(self) -> str:
        """As in a decision."""
        return f"{self.depth}x{self.width}"


def _distinct(cells: tuple[CellConfig, ...]) -> tuple[CellConfig, ...]:
    if len(set(cells)) != len(cells):
        raise ValueError("the same cell is listed twice")
    return cells


class DnaBlockConfig(BaseModel):
    """Choices of one block.

    Attributes:
        cells: depths and widths.
        stride: of the first layer.
        kernels: of the depthwise convolutions.
        expansions: hidden channels as multiples of a layer's input channels.
        squeeze_excite: ratio of the gates' width to the input channels, in every layer; 0 is no gate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cells: Annotated[tuple[CellConfig, ...], Field(min_length=1), AfterValidator(_distinct)]
    stride: Literal[1, 2] = 2
    kernels: Kernels = (3, 5)
    expansions: Counts = (2, 4)
    squeeze_excite: Ratio = 0.0


class DnaSpaceConfig(BaseModel):
    """A DNA space apart from the task: stem, blocks and head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stem_width: Positive
    stem_stride: Literal[1, 2] = 1
    head_width: Positive
    blocks: Annotated[tuple[DnaBlockConfig, ...], Field(min_length=1)]

    @classmethod
    def for_teacher(cls, shapes: Sequence[Shape], input_shape: Shape) -> Self:
        """Defaults for a teacher: strides as its blocks have, widths of a half and a quarter of its channels.

        Args:
            shapes: channels, height, width at the end of each of the teacher's blocks.
            input_shape: of the images.

        Raises:
            TeacherError: a block of the teacher changes the size by another factor than 1 or 2 (4 in the
                first, of which the stem takes half).
        """
        stem_stride: Literal[1, 2] = 2 if _stride(input_shape, shapes[0]) == 4 else 1
        blocks = []
        for number, (before, after) in enumerate(itertools.pairwise([input_shape, *shapes]), start=1):
            stride = _stride(before, after) // (stem_stride if number == 1 else 1)
            if stride not in (1, 2):
                raise TeacherError(
                    f"block {number} of the teacher turns features of {_size(before)} into {_size(after)}",
                    why="a block of the student divides it by 1 or 2, the first with its stem by up to 4",
                    fix="cut the teacher at more places",
                )
            narrow, wide = _width(after[0] / 4), _width(after[0] / 2)
            sizes = ((2, narrow), (2, wide), (3, wide))
            cells = [CellConfig(depth=depth, width=width) for depth, width in sizes]
            blocks.append(DnaBlockConfig(cells=tuple(dict.fromkeys(cells)), stride=1 if stride == 1 else 2))
        return cls(
            stem_width=_width(shapes[0][0] / 4),
            stem_stride=stem_stride,
            head_width=4 * _width(shapes[-1][0] / 2),
            blocks=tuple(blocks),
        )


def _stride(before: Shape, after: Shape) -> int:
    """By how much the height is divided, rounding up; 0 if by no whole number."""
    for stride in range(1, before[1] + 1):
        if all(-(-old // stride) == new for old, new in zip(before[1:], after[1:], strict=True)):
            return stride
    return 0


def _size(shape: Shape) -> str:
    return f"{shape[1]}x{shape[2]}"


def _width(channels: float) -> int:
    """The nearest multiple of 8, at least 8."""
    return max(8, 8 * round(channels / 8))
