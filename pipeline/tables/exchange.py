"""A table with its network model as one JSON file, and what differs between two tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from latency_db.errors import EstimateError
from latency_db.models import NetworkModel, spearman
from latency_db.tables import LatencyTable
from pipeline.tables.documents import Content, Document

_TABLE = Document("lathe-table", 2, "a latency table", "lathe table export", TypeAdapter(NetworkModel))


def write_table(path: Path, model: NetworkModel, space: dict[str, object], blocks: dict[str, str]) -> None:
    """Write a model with its table, the description of its space, and what its blocks are, by identity.

    Raises:
        WorkFolderError: the file cannot be written.
    """
    _TABLE.write(path, Content(model, space, blocks))


def table_file(name: str) -> Path | None:
    """The file that a name of a table means; ``None`` where it is a target.

    Raises:
        EstimateError: it is no target, and there is no such file.
    """
    path = Path(name)
    if path.suffix == ".json" and not path.is_file():
        raise EstimateError(
            f"there is no file '{name}'", fix="name a file of 'lathe table export', or a target"
        )
    return path if path.is_file() else None


def read_table(path: Path) -> Content[NetworkModel]:
    """What ``write_table`` wrote to a file: the model has its table.

    Raises:
        EstimateError: the file is missing, too long, damaged, of another version, or something else.
    """
    return _TABLE.read(path)


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


def table_json(model: NetworkModel, blocks: dict[str, str]) -> dict[str, Any]:
    """A table as a document for people's programs: milliseconds, and what the blocks are."""
    table = model.table
    disturbed = set(table.disturbed)
    return {
        "target": str(table.target),
        "blocks": [
            {
                "block": blocks.get(name, name),
                "latency_ms": row.value_ns / 1e6,
                "low_ms": row.low_ns / 1e6,
                "high_ms": row.high_ns / 1e6,
                "disturbed": name in disturbed,
            }
            for name, row in table.rows.items()
        ],
        "failed": [
            {"block": blocks.get(name, name), "code": reason.code, "detail": reason.detail}
            for name, reason in table.failed.items()
        ],
        "missing": [
            {"block": blocks.get(name, name), "code": reason.code, "detail": reason.detail}
            for name, reason in table.missing.items()
        ],
        "model": {
            "scale": model.scale,
            "per_block_ns": model.per_block_ns,
            "fixed_ns": model.fixed_ns,
            "boundary_ns_per_byte": model.boundary_ns_per_byte,
            "weights_ns_per_byte": model.weights_ns_per_byte,
            "upper_factor": model.upper_factor,
            "coverage": model.coverage,
            "fitted_networks": model.fitted_networks,
        },
    }
