"""What differs between two tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from latency_db.models import spearman
from latency_db.tables import LatencyTable


@dataclass(frozen=True)
class TableDifference:
    """Two tables, block by block; ratios are the second's latency over the first's.

    Attributes:
        key: what differs between what the tables are bound to.
        shared: how many blocks ran in both.
        only_first: blocks that ran in the first alone; ``only_second`` likewise.
        median_ratio: with the smallest and the largest; ``None`` where no block is shared.
        spearman: rank correlation of the shared blocks; ``None`` where undefined.
        beyond: blocks whose intervals do not meet, by identity, with their ratios, the most changed first.
    """

    key: tuple[str, ...]
    shared: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    smallest_ratio: float | None
    median_ratio: float | None
    largest_ratio: float | None
    spearman: float | None
    beyond: tuple[tuple[str, float], ...]


def difference(first: LatencyTable, second: LatencyTable) -> TableDifference:
    """Compare two tables, of one target at two times or of two targets."""
    shared = sorted(first.rows.keys() & second.rows.keys())
    one = np.array([first.rows[block].value_ns for block in shared])
    other = np.array([second.rows[block].value_ns for block in shared])
    ratios = other / one
    beyond = [
        (block, float(ratio))
        for block, ratio in zip(shared, ratios, strict=True)
        if first.rows[block].high_ns < second.rows[block].low_ns
        or second.rows[block].high_ns < first.rows[block].low_ns
    ]
    ranks = spearman(one, other) if shared else math.nan
    return TableDifference(
        tuple(first.key.differences(second.key)) if first.key and second.key else (),
        len(shared),
        tuple(sorted(first.rows.keys() - second.rows.keys())),
        tuple(sorted(second.rows.keys() - first.rows.keys())),
        float(ratios.min()) if shared else None,
        float(np.median(ratios)) if shared else None,
        float(ratios.max()) if shared else None,
        None if math.isnan(ranks) else ranks,
        tuple(sorted(beyond, key=lambda each: -abs(math.log(each[1])))),
    )
