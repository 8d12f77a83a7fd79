"""What is known of a block besides its latency, and the terms that a network model may be made of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latency_db.tables.table import BlockSizes, LatencyTable

Floats = NDArray[np.float64]

PROPERTIES = 4
"""A block's latency in ns, 1, boundary bytes and weight bytes: its cost in a network is linear in them."""


def block_properties(table: LatencyTable, blocks: Sequence[str]) -> Floats:
    """Shape (n_blocks, PROPERTIES); the latency is infinite where a block has none.

    Raises:
        EstimateError: the table does not know a block.
    """
    table.require(blocks)
    return np.array([_properties(table, block) for block in blocks], np.float64).reshape(-1, PROPERTIES)


def network_properties(table: LatencyTable, networks: Sequence[Sequence[str]]) -> Floats:
    """Sums over each network's blocks, shape (n_networks, PROPERTIES).

    Raises:
        EstimateError: the table does not know a block.
    """
    names = sorted(set(itertools.chain.from_iterable(networks)))
    positions = {name: position for position, name in enumerate(names)}
    properties = block_properties(table, names)
    counts = np.array([len(network) for network in networks], np.int64)
    flat = np.fromiter((positions[name] for network in networks for name in network), np.int64, counts.sum())
    owners = np.repeat(np.arange(len(networks)), counts)
    columns = [np.bincount(owners, column[flat], len(networks)) for column in properties.T]
    return np.stack(columns, axis=1).astype(np.float64)


@dataclass(frozen=True)
class Terms:
    """The terms of a model; ``matrix``, shape (n_terms, PROPERTIES), has their weights on the properties.

    Each term gives every block of the table a cost of at least 0. So any sum of terms with coefficients of at
    least 0 does too, which keeps the model monotone: no block makes a network faster.
    """

    matrix: Floats

    @classmethod
    def of(cls, table: LatencyTable) -> Terms:
        """The terms that the blocks of ``table`` allow to tell apart.

        They are the latency with that of the cheapest block taken off; one for each block; the latency with
        the cost of crossing its boundaries taken off, at the least rate per byte of any block; boundary
        bytes; weight bytes.
        """
        properties = block_properties(table, list(table.rows))
        latency, _, boundary, weights = properties.T
        cheapest = float(latency.min()) if len(latency) else 0.0
        rows = [[1.0, -cheapest, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
        if len(set(boundary)) > 1 and boundary.min() > 0:
            rows += [[1.0, 0.0, -float((latency / boundary).min()), 0.0], [0.0, 0.0, 1.0, 0.0]]
        if len(set(weights)) > 1:
            rows.append([0.0, 0.0, 0.0, 1.0])
        return cls(np.array(rows, np.float64))


def _properties(table: LatencyTable, block: str) -> tuple[float, ...]:
    sizes = table.sizes.get(block, BlockSizes())
    return (table.latency_ns(block), 1.0, float(sizes.boundary_bytes), float(sizes.weight_bytes))
