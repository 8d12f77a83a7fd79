"""Latency tables over the space of AKD: sizes of its blocks, and estimates of many architectures at once."""

from __future__ import annotations

import numpy as np

from pipeline.spaces.mobile.config import SpaceConfig
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.tables.building.block_sizes import sizes_of
from pipeline.tables.transfer.descriptors import describe


def akd(side: int) -> MobileSpace:
    return MobileSpace.from_config(SpaceConfig(preset="akd"), (3, side, side), 10)


def test_every_block_has_traits_and_finite_descriptors() -> None:
    blocks = akd(32).distinct_blocks()
    assert sizes_of(blocks).keys() == {block.identity for block in blocks}
    assert np.isfinite(describe(blocks)).all()
