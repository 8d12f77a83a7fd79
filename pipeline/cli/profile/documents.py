"""Results as ``--json`` prints them: every figure that the tables show, without the raw samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from devices.artifacts import hints_of
from devices.measurement import (
    BetweenBatches,
    InputUse,
    Interval,
    Measurement,
    MeasurementFailure,
    Outcome,
    Placement,
    launch_interval,
    pooled_ns,
    quantile,
)
from devices.measuring import Comparison
from devices.requests import OperationProfile, SustainedRun
from devices.result_file import Entry
from devices.target import Target
from pipeline.cli.between import between_json

PHASES = ("process_start_ns", "load_ns", "first_inference_ns")


Between = Callable[[Measurement], BetweenBatches]
"""What is known of the batches of a measurement's device."""


def entry_json(entry: Entry, between: Between | None = None) -> dict[str, Any]:
    """One result as a JSON object; ``kind`` says which. ``between`` adds the interval on the device."""
    result = entry.result
    if isinstance(result, Comparison):
        first, second = entry.models
        return _comparison(result, first, second, between)
    head: dict[str, Any] = {"kind": result.kind, "model": entry.models[0], "target": result.target}
    if isinstance(result, Measurement | OperationProfile):
        head["hints"] = _hints(entry.models[0], result.target)
    match result:
        case OperationProfile():
            return head | _operations(result)
        case SustainedRun():
            return head | _sustained(result)
        case _:
            return head | _outcome(result, between)


def median_interval(measurement: Measurement) -> Interval | None:
    """Median over launches of their medians, with its interval; ``None`` where the tool tells no median."""
    try:
        return launch_interval([launch.quantile_ns(0.5) for launch in measurement.counted])
    except ValueError:
        return None


def phases_ns(measurement: Measurement) -> dict[str, float | None]:
    """Median over launches of each phase before the steady state, nanoseconds; ``None`` where unknown."""
    found = {}
    for phase in PHASES:
        values = [getattr(launch, phase) for launch in measurement.counted]
        known = [value for value in values if value is not None]
        found[phase] = quantile(known, 0.5) if known else None
    return found


def copies_ns(measurement: Measurement) -> dict[str, float | None]:
    """Median time of the copies to and from an accelerator, nanoseconds; ``None`` where there are none."""
    found: dict[str, float | None] = {}
    for name in ("to_device_ns", "from_device_ns"):
        pooled = [sample for launch in measurement.counted for sample in getattr(launch, name)]
        found[name] = quantile(pooled, 0.5) if pooled else None
    return found


def assumed(measurement: Measurement) -> list[InputUse]:
    """The inputs with open sizes for which none were given."""
    return [each for each in measurement.inputs if each.assumed]


def inferences(measurement: Measurement) -> int:
    """Timed inferences of the launches that count."""
    return sum(
        launch.summary.count
        if launch.summary is not None and not launch.samples_ns
        else len(launch.samples_ns)
        for launch in measurement.counted
    )


def peak_memory_bytes(measurement: Measurement) -> int | None:
    """The highest of all launches, of the whole process."""
    return max((launch.peak_memory_bytes or 0 for launch in measurement.launches), default=0) or None


def _outcome(outcome: Outcome, between: Between | None) -> dict[str, Any]:
    common = {"artifact_digest": outcome.artifact_digest}
    if isinstance(outcome, MeasurementFailure):
        return common | {"reason": asdict(outcome.reason)}
    median = median_interval(outcome)
    return {
        "verdict": outcome.verdict.value,
        "reasons": [asdict(reason) for reason in outcome.reasons],
        "latency_ns": _interval(outcome.latency),
        **({} if between is None else _on_device(outcome, between(outcome))),
        "headline_quantile": outcome.protocol.headline_quantile,
        "median_ns": None if median is None else _interval(median),
        "p10_ns": pooled_ns(outcome, 0.1),
        "p90_ns": pooled_ns(outcome, 0.9),
        "launches": len(outcome.launches),
        "launches_counted": len(outcome.counted),
        "inferences": inferences(outcome),
        **phases_ns(outcome),
        **copies_ns(outcome),
        "peak_memory_bytes": peak_memory_bytes(outcome),
        "placement": _placement(outcome.placement),
        "inputs": [asdict(each) for each in outcome.inputs],
        "open_inputs": [
            {"name": each.name, "said": each.assumption, "option": each.option} for each in assumed(outcome)
        ],
        "warnings": [asdict(warning) for warning in outcome.warnings],
        "runtime": asdict(outcome.runtime),
        "device": asdict(outcome.device),
        "protocol": asdict(outcome.protocol),
        "before": asdict(outcome.launches[0].before),
        "after": asdict(outcome.launches[-1].after),
        "started_at": outcome.started_at,
        **common,
    }


def _hints(path: str, target: str) -> list[dict[str, str]]:
    """What the file shows that is worth knowing beside its times."""
    return [asdict(hint) for hint in hints_of(Path(path), Target.parse(target))]


def _operations(profile: OperationProfile) -> dict[str, Any]:
    return {
        "artifact_digest": profile.artifact_digest,
        "operations": [
            {
                "name": operation.name,
                "kind": operation.kind,
                "where": operation.where,
                "time_ns": operation.time_ns,
                "share": profile.share(operation.time_ns),
            }
            for operation in profile.operations
        ],
        "by_kind": [asdict(part) for part in profile.by_kind()],
        "moving": None if profile.moving is None else asdict(profile.moving),
        "sum_ns": profile.sum_ns,
        "whole_ns": profile.whole_ns,
        "inferences": len(profile.total_ns),
        "runtime": asdict(profile.runtime),
        "device": asdict(profile.device),
        "started_at": profile.started_at,
    }


def _sustained(run: SustainedRun) -> dict[str, Any]:
    return {
        "artifact_digest": run.artifact_digest,
        "pace": run.pace.value,
        "said": str(run),
        "ratio": run.ratio,
        "onset_ns": run.onset_ns,
        "elapsed_ns": run.elapsed_ns,
        "ended_early": None if run.ended_early is None else asdict(run.ended_early),
        "windows": [
            {
                "start_ns": window.start_ns,
                "median_ns": window.median_ns,
                "inferences": window.count,
                "conditions": asdict(window.conditions),
            }
            for window in run.windows
        ],
        "runtime": asdict(run.runtime),
        "device": asdict(run.device),
        "started_at": run.started_at,
    }


def _on_device(measurement: Measurement, between: BetweenBatches) -> dict[str, Any]:
    """The interval that holds at another time too, and the part of it that lies between batches."""
    return {
        "latency_on_device_ns": _interval(between.around(measurement.latency)),
        "between_batches": between_json(between),
    }


def _comparison(comparison: Comparison, first: str, second: str, between: Between | None) -> dict[str, Any]:
    ratio = comparison.ratio
    return {
        "kind": comparison.kind,
        "target": comparison.first.target,
        "finding": comparison.finding.value,
        "said": comparison.describe(first, second),
        "ratio": None if ratio is None else asdict(ratio),
        "first": {"kind": comparison.first.kind, "model": first, **_outcome(comparison.first, between)},
        "second": {"kind": comparison.second.kind, "model": second, **_outcome(comparison.second, between)},
    }


def _interval(interval: Interval) -> dict[str, float]:
    return {
        "value": interval.value_ns,
        "low": interval.low_ns,
        "high": interval.high_ns,
        "confidence": interval.confidence,
    }


def _placement(placement: Placement | None) -> dict[str, Any] | None:
    return None if placement is None else {**asdict(placement), "full": placement.full}
