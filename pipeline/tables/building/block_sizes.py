"""Sizes of blocks, for the terms of a network model that their latencies alone do not tell."""

from __future__ import annotations

import math
from collections.abc import Iterable

from latency_db.tables import BlockSizes
from pipeline.spaces.base import Block, SizedSpace
from pipeline.spaces.cost import block_cost, block_outputs

_FLOAT_BYTES = 4


def sizes_of(blocks: Iterable[Block], space: object = None) -> dict[str, BlockSizes]:
    """Sizes in fp32 by block identity; blocks of a kind that is not known are left out.

    Args:
        blocks: of one space.
        space: knows the sizes if it is a ``SizedSpace``; else the kinds of the mobile space are known.
    """
    cost_of, outputs_of = block_cost, block_outputs
    if isinstance(space, SizedSpace):
        cost_of, outputs_of = space.cost, space.outputs
    found = {}
    for block in blocks:
        try:
            cost, outputs = cost_of(block), outputs_of(block)
        except ValueError:
            continue
        values = math.prod(block.input_shape) + outputs
        found[block.identity] = BlockSizes(values * _FLOAT_BYTES, cost.parameters * _FLOAT_BYTES, cost.macs)
    return found
