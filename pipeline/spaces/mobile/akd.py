"""The space of AKD (1911.09074): MnasNet's factorised hierarchical space, planned for an input size.

In every stage the operation, kernel, squeeze-and-excite, skip, width and depth are chosen, and the layers of
a stage share them. Widths and depths vary around those of MobileNetV2 (1801.04381, table 2).
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.spaces.mobile.config import MobileSpaceConfig, StageConfig

_WIDTH_FACTORS = (0.75, 1.0, 1.25)
_DEPTH_STEPS = (-1, 0, 1)


class _Stage(NamedTuple):
    """Around what a stage varies."""

    width: int
    depth: int
    stride: int


_MOBILENET_V2 = (
    _Stage(16, 1, 1),
    _Stage(24, 2, 2),
    _Stage(32, 3, 2),
    _Stage(64, 4, 2),
    _Stage(96, 3, 1),
    _Stage(160, 3, 2),
    _Stage(320, 1, 1),
)


def akd_plan(input_shape: tuple[int, int, int]) -> MobileSpaceConfig:
    """AKD's space for an input of channels, height and width, by the smaller side.

    From 128 pixels on, MobileNetV2's stem, seven stages and head. From 64 on its first five stages, so that
    96 pixels end at 6x6. Below 64 three stages and below 16 two, which begin at full resolution.
    """
    side = min(input_shape[1:])
    if side < 16:
        return _plan(8, 1, 96, (_Stage(16, 1, 1), _Stage(24, 2, 2)))
    if side < 64:
        return _plan(16, 1, 256, (_Stage(16, 1, 1), _Stage(32, 2, 2), _Stage(64, 3, 2)))
    if side < 128:
        return _plan(32, 2, 384, _MOBILENET_V2[:5])
    return _plan(32, 2, 1280, _MOBILENET_V2)


def _plan(
    stem_width: int, stem_stride: int, head_width: int, stages: tuple[_Stage, ...]
) -> MobileSpaceConfig:
    first, *others = stages
    # A choice of the first width would triple the blocks that the second stage begins with.
    configs = [_config(first, (first.width,)), *(_config(stage, _widths(stage.width)) for stage in others)]
    return MobileSpaceConfig.model_validate(
        {
            "stem_width": stem_width,
            "stem_stride": stem_stride,
            "head_width": head_width,
            "stages": tuple(configs),
        }
    )


def _config(stage: _Stage, widths: tuple[int, ...]) -> StageConfig:
    return StageConfig.model_validate(
        {
            "widths": widths,
            "depths": sorted({max(1, stage.depth + step) for step in _DEPTH_STEPS}),
            "stride": stage.stride,
            "kernels": (3, 5),
            "expansions": (3, 6),
            "squeeze_excite": (0.0, 0.25),
            "operations": ("inverted", "separable", "regular"),
            "skips": ("identity", "pool", "none"),
        }
    )


def _widths(width: int) -> tuple[int, ...]:
    """Multiples of 8 channels, in which runtimes compute."""
    return tuple(8 * round(factor * width / 8) for factor in _WIDTH_FACTORS)
