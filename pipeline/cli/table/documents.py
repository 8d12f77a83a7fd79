"""What ``lathe table`` prints with ``--json``, where no other interface has the same document."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from devices.measurement import Measurement, MeasurementFailure, Outcome
from devices.target import Target
from latency_db.estimate import Estimate
from latency_db.tables import is_settled
from pipeline.spaces.base import Architecture, Block
from pipeline.tables.transfer.estimating import Sample, Transferred


def measured_json(target: Target, outcomes: Collection[Outcome]) -> dict[str, Any]:
    """How many workloads of a package have an outcome, and of what kind."""
    failures = [each for each in outcomes if isinstance(each, MeasurementFailure)]
    missing = sum(each.passing for each in failures)
    return {
        "target": str(target),
        "workloads": len(outcomes),
        "failed": len(failures) - missing,
        "missing": missing,
        "disturbed": sum(not is_settled(each) for each in outcomes) - missing,
    }


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
        "explained": {
            "well": transferred.explanation.is_good,
            "error": transferred.explanation.error,
            "known_errors": list(transferred.explanation.known_errors),
            "wanted_samples": transferred.wanted_samples,
        },
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
        kind = "missing" if sample.outcome.passing else "failed"
        return {**what, kind: {"code": reason.code, "detail": reason.detail}}
    latency = sample.outcome.latency
    return {
        **what,
        "latency_ms": latency.value_ns / 1e6,
        "low_ms": latency.low_ns / 1e6,
        "high_ms": latency.high_ns / 1e6,
        "disturbed": not sample.outcome.sharp,
    }
