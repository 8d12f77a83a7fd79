"""Which whole networks of a space are measured for its network model, and in which order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from latency_db.models import is_random, order
from latency_db.tables import BlockSizes
from pipeline.spaces.base import Architecture, Space
from pipeline.tables.building.block_sizes import sizes_of

_DRAWN, _POOL = 400, 300


@dataclass(frozen=True)
class PlannedNetwork:
    """A network of the plan; ``drawn`` at random, or chosen: only drawn ones make a model's interval."""

    architecture: Architecture
    drawn: bool


def calibration_plan(space: Space) -> list[PlannedNetwork]:
    """Networks in the order in which they are measured, none twice; it depends on the space alone.

    So whatever measures a space, on whatever target, measures the same networks. First comes the reference
    network, which relative budgets refer to. Of the others two of three are drawn; the third is chosen:
    first the members of the fewest and of the most multiply-accumulates, then those that tell most
    (``latency_db.models.order``).
    """
    sizes = sizes_of(space.distinct_blocks(), space)
    anchors = list(dict.fromkeys([space.reference(), *_extremes(space, sizes)]))
    limit = space.count()
    stream = (each for each in distinct_architectures(space, 0) if each not in anchors)
    drawn = _take(stream, min(_DRAWN, max((limit - len(anchors)) // 2, 1)))
    pool = _take(stream, min(_POOL, limit - len(anchors) - len(drawn)))
    features = []
    for network in drawn + pool:
        known = [sizes[name] for name in block_names(space, network) if name in sizes]
        rows = [(each.macs, each.boundary_bytes, each.weight_bytes) for each in known]
        features.append([len(space.blocks(network)), *np.sum(rows, axis=0, initial=0)] if rows else [1.0] * 4)
    ordered = order(np.array(features, np.float64), len(drawn)) if features else []
    informative = [pool[index - len(drawn)] for index in ordered if index >= len(drawn)]
    plan = [PlannedNetwork(anchors[0], drawn=False)]
    at_random = [PlannedNetwork(each, drawn=True) for each in drawn]
    chosen = [PlannedNetwork(each, drawn=False) for each in (*anchors[1:], *informative)]
    for position in range(len(at_random) + len(chosen)):
        first, second = (at_random, chosen) if is_random(position) else (chosen, at_random)
        plan.append((first or second).pop(0))
    return plan


def distinct_architectures(space: Space, seed: int) -> Iterator[Architecture]:
    """Random architectures, none twice; ends when no new one is drawn for long."""
    generator = random.Random(seed)
    seen: set[Architecture] = set()
    idle = 0
    while idle < 1000:
        drawn = space.sample(generator)
        idle += 1
        if drawn not in seen:
            idle = 0
            seen.add(drawn)
            yield drawn


def block_names(space: Space, network: Architecture) -> list[str]:
    """Identities of a network's blocks: the rows of a table that it is made of."""
    return [block.identity for block in space.blocks(network)]


def _extremes(space: Space, sizes: dict[str, BlockSizes]) -> list[Architecture]:
    if not sizes:
        return []
    unknown = BlockSizes()
    macs = {block: float(sizes.get(block.identity, unknown).macs) for block in space.distinct_blocks()}
    return [space.extreme(macs.__getitem__, largest=largest) for largest in (False, True)]


def _take(stream: Iterator[Architecture], count: int) -> list[Architecture]:
    return [architecture for _, architecture in zip(range(count), stream, strict=False)]
