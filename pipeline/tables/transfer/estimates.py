"""Estimates of a target as a file of their own kind, and as a document for people's programs.

Neither is ever taken for a table, nor stored among measurements.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from devices.measurement import Measurement
from latency_db.errors import EstimateError
from latency_db.estimate import Estimate
from latency_db.few_shot import TransferredModel
from pipeline.spaces.base import Architecture, Block
from pipeline.tables.documents import Content, Document
from pipeline.tables.transfer.estimating import Sample, Transferred

_ESTIMATES = Document(
    "lathe-estimates",
    1,
    "a file of estimates",
    "lathe table transfer --save",
    TypeAdapter(TransferredModel),
)


def write_estimates(
    path: Path, model: TransferredModel, space: dict[str, object], blocks: dict[str, str]
) -> None:
    """Write a model, the description of its space, and what its blocks are, by identity.

    Raises:
        EstimateError, WorkFolderError: as of ``check_place``, or the file cannot be written.
    """
    check_place(path)
    _ESTIMATES.write(path, Content(model, space, blocks))


def read_estimates(path: Path) -> TransferredModel:
    """The model of a file that ``write_estimates`` wrote.

    Raises:
        EstimateError: the file is missing, too long, damaged, of another version, or something else.
    """
    return _ESTIMATES.read(path).model


def check_place(path: Path) -> None:
    """Check that estimates may be written here: over older estimates at most, never over measurements.

    Raises:
        EstimateError: there is no such folder, or something else has the name.
    """
    if not path.parent.is_dir():
        raise EstimateError(f"there is no folder '{path.parent}'", fix="make it, or save somewhere else")
    if path.exists():
        try:
            read_estimates(path)
        except EstimateError as error:
            raise EstimateError(
                f"'{path}' is there already, and holds something else than estimates",
                why=error.why,
                fix="save under another name: nothing else is written over",
            ) from error


def transferred_json(transferred: Transferred, blocks: dict[str, str]) -> dict[str, Any]:
    """What was measured, and what is estimated, in milliseconds."""
    model = transferred.model
    return {
        "kind": "estimates",
        "target": str(model.target),
        "sources": [str(source) for source in model.sources],
        "measured_blocks": [_sample_json(sample) for sample in transferred.blocks],
        "measured_networks": [_sample_json(sample) for sample in transferred.networks],
        "estimated_blocks": [
            {"what": blocks[name], **_estimate_json(row)} for name, row in model.estimated.items()
        ],
        "estimated_networks": [
            {"what": str(network), **_estimate_json(row)}
            for network, row in transferred.others
            if math.isfinite(row.value_ns)
        ],
        "unknown_blocks": [str(block) for block in transferred.unknown],
        "upper_factor": model.upper_factor,
        "coverage": model.coverage,
    }


def _estimate_json(estimate: Estimate) -> dict[str, float]:
    return {
        "estimate_ms": estimate.value_ns / 1e6,
        "low_ms": estimate.low_ns / 1e6,
        "high_ms": estimate.high_ns / 1e6,
        "coverage": estimate.coverage,
    }


def _sample_json(sample: Sample[Block] | Sample[Architecture]) -> dict[str, Any]:
    what = {"what": str(sample.what), "drawn": sample.drawn}
    if not isinstance(sample.outcome, Measurement):
        reason = sample.outcome.reason
        return {**what, "failed": {"code": reason.code, "detail": reason.detail}}
    latency = sample.outcome.latency
    return {
        **what,
        "latency_ms": latency.value_ns / 1e6,
        "low_ms": latency.low_ns / 1e6,
        "high_ms": latency.high_ns / 1e6,
    }
