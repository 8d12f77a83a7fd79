"""What the add-on space may choose from, and defaults for an input size."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.spaces.mobile.config import Positive

AddOnOperation = Literal["conv3", "conv5", "separable3", "separable5", "max_pool", "average_pool"]
"""What may be added; the seventh operation of the paper, the identity, adds nothing and is always offered."""


def _distinct(operations: tuple[AddOnOperation, ...]) -> tuple[AddOnOperation, ...]:
    if len(set(operations)) != len(operations):
        raise ValueError("the same operation is listed twice")
    return operations


class AddOnSpaceConfig(BaseModel):
    """A backbone of residual blocks, and what may be added after or before each of them.

    Attributes:
        width: channels of the stem and the first stage; each further stage doubles them.
        stages: each but the first begins with a stride of 2.
        depth: residual blocks of each stage.
        stem_stride: of the stem.
        operations: what may be added, besides nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Positive = 16
    stages: int = Field(default=3, ge=1, le=10)
    depth: int = Field(default=2, ge=1, le=100)
    stem_stride: Literal[1, 2] = 1
    operations: Annotated[tuple[AddOnOperation, ...], Field(min_length=1), AfterValidator(_distinct)] = (
        get_args(AddOnOperation)
    )

    @classmethod
    def for_input(cls, input_shape: tuple[int, int, int]) -> Self:
        """Two stages of one block below 16 pixels, a ResNet-14 below 64, four stages from there on."""
        side = min(input_shape[1:])
        if side < 16:
            return cls(width=8, stages=2, depth=1)
        if side < 64:
            return cls()
        return cls(stages=4, stem_stride=2)
