"""Sizes of blocks, for the terms of a network model that their latencies alone do not tell."""

from __future__ import annotations

import math
from collections.abc import Iterable

from latency_db.tables import BlockSizes
from pipeline.spaces.base import Block
from pipeline.spaces.cost import block_cost

_FLOAT_BYTES = 4


def sizes_of(blocks: Iterable[Block]) -> dict[str, BlockSizes]:
    """Sizes in fp32 by block identity; blocks of a kind that is not known here are left out."""
    found = {}
    for block in blocks:
        try:
            cost = block_cost(block)
        except ValueError:
            continue
        values = math.prod(block.input_shape) + _output_values(block)
        found[block.identity] = BlockSizes(values * _FLOAT_BYTES, cost.parameters * _FLOAT_BYTES, cost.macs)
    return found


def _output_values(block: Block) -> int:
    arguments = {name: int(value) for name, value in block.arguments}
    if block.kind == "head":
        return arguments["classes"]
    _, height, width = block.input_shape
    stride = arguments["stride"]
    return arguments["out_channels"] * -(-height // stride) * -(-width // stride)
