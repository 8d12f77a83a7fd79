"""What the mobile space may choose from, and defaults for an input size."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("the same choice is listed twice")
    return values


Positive = Annotated[int, Field(ge=1, le=65_536)]
Counts = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=100), AfterValidator(_distinct)]
Kernels = Annotated[tuple[Literal[3, 5, 7], ...], Field(min_length=1), AfterValidator(_distinct)]
Ratio = Annotated[float, Field(ge=0, le=1)]
Ratios = Annotated[tuple[Ratio, ...], Field(min_length=1, max_length=100), AfterValidator(_distinct)]
Operation = Literal["inverted", "separable", "regular"]
Operations = Annotated[tuple[Operation, ...], Field(min_length=1), AfterValidator(_distinct)]
Skip = Literal["identity", "pool", "none"]
Skips = Annotated[tuple[Skip, ...], Field(min_length=1), AfterValidator(_distinct)]


class StageConfig(BaseModel):
    """Choices of one stage; all its layers share them, and only its first layer has the stride.

    Attributes:
        widths: output channels.
        depths: numbers of layers.
        stride: of the first layer.
        kernels: of the depthwise or regular convolutions.
        expansions: hidden channels of inverted bottlenecks as multiples of a layer's input channels.
        squeeze_excite: ratios of the gates' width to the input channels; 0 is no gate.
        operations: what a layer is: an inverted bottleneck, a depthwise-separable convolution, which is one
            without expansion, or a regular convolution.
        skips: what is added to the output of a layer that keeps its shape: its input, the 3x3 averages of
            its input, or nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    widths: Counts
    depths: Counts = (1, 2, 3)
    stride: Literal[1, 2] = 2
    kernels: Kernels = (3, 5, 7)
    expansions: Counts = (3, 6)
    squeeze_excite: Ratios = (0.0, 0.25)
    operations: Operations = ("inverted",)
    skips: Skips = ("identity",)

    @model_validator(mode="after")
    def _operations_differ(self) -> Self:
        if {"inverted", "separable"} <= set(self.operations) and 1 in self.expansions:
            raise ValueError("an inverted bottleneck of expansion 1 is a separable convolution: offer one")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_usual(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Digests of spaces that offer no choice of operation and skip are those from before there was one.
        return {
            name: value
            for name, value in serialise(self).items()
            if name not in ("operations", "skips") or getattr(self, name) != _USUAL[name]
        }


Stages = Annotated[tuple[StageConfig, ...], Field(min_length=1, max_length=100)]
_USUAL = {name: StageConfig.model_fields[name].default for name in ("operations", "skips")}


Preset = Literal["mobile", "akd"]
"""A space that is planned for the size of the input."""


class SpaceConfig(BaseModel):
    """The table ``[space]`` of a recipe: a preset for the size of the input, or a plan by hand."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset | None = None
    stem_width: Positive | None = None
    stem_stride: Literal[1, 2] = 1
    head_width: Positive | None = None
    stages: Stages | None = None

    @model_validator(mode="after")
    def _preset_or_plan(self) -> Self:
        by_hand = sorted(self.model_fields_set - {"preset"})
        missing = [name for name in ("stem_width", "head_width", "stages") if getattr(self, name) is None]
        if self.preset is not None and by_hand:
            raise ValueError(f"a preset decides {', '.join(by_hand)}: remove them, or the preset")
        if self.preset is None and missing:
            raise ValueError(f"without a preset, {', '.join(missing)} must be given")
        return self


class MobileSpaceConfig(BaseModel):
    """A mobile space apart from the task: stem, stages and head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stem_width: Positive
    stem_stride: Literal[1, 2] = 1
    head_width: Positive
    stages: Stages

    @classmethod
    def for_input(cls, input_shape: tuple[int, int, int]) -> MobileSpaceConfig:
        """Defaults by the smaller side: below 16, below 64, and MnasNet's seven stages from 64 pixels on."""
        side = min(input_shape[1:])
        if side < 16:
            return _tiny()
        if side < 64:
            return _small()
        return _large()


def _tiny() -> MobileSpaceConfig:
    """Two stages; 43 distinct blocks, 576 architectures."""
    kernels: tuple[Literal[3, 5, 7], ...] = (3, 5)
    return MobileSpaceConfig(
        stem_width=8,
        head_width=64,
        stages=(
            StageConfig(widths=(16,), stride=1, kernels=kernels, expansions=(2, 4), squeeze_excite=(0.0,)),
            StageConfig(widths=(24, 32), kernels=kernels, expansions=(2, 4)),
        ),
    )


def _small() -> MobileSpaceConfig:
    """Three stages for 28x28 and 32x32 images."""
    return MobileSpaceConfig(
        stem_width=16,
        head_width=256,
        stages=(
            StageConfig(widths=(16, 24), stride=1, kernels=(3, 5), expansions=(1, 3), squeeze_excite=(0.0,)),
            StageConfig(widths=(32, 48)),
            StageConfig(widths=(64, 96)),
        ),
    )


def _large() -> MobileSpaceConfig:
    """MnasNet's seven stages (1807.11626, figure 7), each with a narrower choice of width."""
    kernels: tuple[Literal[3, 5, 7], ...] = (3, 5)
    return MobileSpaceConfig(
        stem_width=32,
        stem_stride=2,
        head_width=1280,
        stages=(
            StageConfig(
                widths=(16,), depths=(1,), stride=1, kernels=(3,), expansions=(1,), squeeze_excite=(0.0,)
            ),
            StageConfig(widths=(16, 24), kernels=kernels),
            StageConfig(widths=(32, 40), kernels=kernels),
            StageConfig(widths=(64, 80), depths=(1, 2, 3, 4), kernels=kernels),
            StageConfig(widths=(80, 112), stride=1, kernels=kernels),
            StageConfig(widths=(128, 160), depths=(1, 2, 3, 4), kernels=kernels),
            StageConfig(widths=(256, 320), depths=(1,), stride=1, kernels=kernels),
        ),
    )
