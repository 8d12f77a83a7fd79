"""A table with its network model as one JSON file, and as a document for people's programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from devices.untrusted import regular_size
from latency_db.errors import EstimateError
from latency_db.models import NetworkModel
from pipeline.tables.exchange.documents import Content, Document

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
    try:
        regular_size(path)
    except (OSError, ValueError) as error:
        if path.suffix == ".json":
            raise EstimateError(
                f"there is no file '{name}'", fix="name a file of 'lathe table export', or a target"
            ) from error
        return None
    return path


def read_table(path: Path) -> Content[NetworkModel]:
    """What ``write_table`` wrote to a file: the model has its table.

    Raises:
        EstimateError: the file is missing, too long, damaged, of another version, or something else.
    """
    return _TABLE.read(path)


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
