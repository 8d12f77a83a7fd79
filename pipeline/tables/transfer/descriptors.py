"""Blocks described by numbers, so that what is learned of some says something of others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latency_db.tables import BlockSizes
from pipeline.spaces.base import Block
from pipeline.tables.building.block_sizes import sizes_of

FEW_VALUES = 4
"""Up to so many values of an argument are kinds of their own too: runtimes favour some kernel sizes."""


def describe(blocks: Sequence[Block]) -> NDArray[np.float64]:
    """Kind, input shape, arguments and sizes, shape (n_blocks, n_features); for blocks of any space.

    A number stays one, and is the mean of the others for a block that lacks it; words, and arguments of few
    values, become columns of zeros and ones. Shapes and sizes are on a logarithmic scale.
    """
    sizes = sizes_of(blocks)
    values = Counter(name for name, _ in {pair for block in blocks for pair in block.arguments})
    numbers = [_numbers(block, sizes.get(block.identity)) for block in blocks]
    labels = [
        {block.kind}
        | {
            f"{name}={value}"
            for name, value in block.arguments
            if isinstance(value, str) or values[name] <= FEW_VALUES
        }
        for block in blocks
    ]
    names, known = sorted(set().union(*numbers)), sorted(set().union(*labels))
    table = np.array([[each.get(name, math.nan) for name in names] for each in numbers], np.float64)
    filled = np.where(np.isnan(table), np.nanmean(table, axis=0), table)
    return np.hstack([filled, np.array([[float(label in each) for label in known] for each in labels])])


def _numbers(block: Block, sizes: BlockSizes | None) -> dict[str, float]:
    channels, height, width = map(math.log, block.input_shape)
    found = {"channels": channels, "height": height, "width": width}
    found |= {
        f"argument {name}": float(value) for name, value in block.arguments if not isinstance(value, str)
    }
    if sizes is not None:
        found |= {f"log {name}": math.log1p(value) for name, value in vars(sizes).items()}
    return found
