"""The single checks of a gate, each with a finding and the figures behind it.

Those that run an artifact raise ``MeasurementError`` where it is a program that you do not trust.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from devices.artifacts import artifact_digest
from devices.measurement import BetweenBatches, MeasuringProtocol
from devices.measuring import AgainstLimit, LimitFinding, latency_against_limit, ratio_against_limit
from devices.requests import outputs_target
from devices.target import Target
from devices.trust import trusted_files
from devices.words import count_of
from pipeline.progress import Task
from pipeline.target_verdict import LabelledImages, artifact_accuracy


class CheckFinding(StrEnum):
    """How a check ended; only ``failed`` and ``not-measured`` close the gate."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not-measured"


@dataclass(frozen=True)
class Check:
    """One limit on one artifact.

    Attributes:
        target: of the artifact; empty for what concerns the whole bundle.
        name: ``integrity``, ``size``, ``accuracy``, ``latency`` or ``regression``.
        finding: how it ended.
        why: one sentence with the figures.
        value: what was seen, in ``unit``; ``None`` if nothing was.
        low: lower end of its interval; ``None`` for what has none.
        high: the upper end.
        confidence: of the interval.
        limit: in ``unit``.
        unit: ``bytes``, ``share``, ``ms``, or ``ratio``, the new latency over the old one.
        launches: that count.
    """

    target: str
    name: str
    finding: CheckFinding
    why: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    limit: float | None = None
    unit: str = ""
    launches: int | None = None


_FINDINGS = {
    LimitFinding.KEPT: CheckFinding.PASSED,
    LimitFinding.EXCEEDED: CheckFinding.FAILED,
    LimitFinding.UNDECIDED: CheckFinding.UNDECIDED,
    LimitFinding.NOT_MEASURED: CheckFinding.NOT_MEASURED,
}


def check_size(artifact: Path, target: Target, limit: int) -> Check:
    """The size of the artifact's file."""
    size = artifact.stat().st_size
    finding = CheckFinding.PASSED if size <= limit else CheckFinding.FAILED
    why = f"{size:,} bytes, at most {limit:,}"
    return Check(str(target), "size", finding, why, value=size, limit=limit, unit="bytes")


def check_accuracy(artifact: Path, test: LabelledImages | None, target: Target, limit: float) -> Check:
    """The accuracy on the bundle's test images, taken on the target as far as it gives outputs."""
    if test is None:
        return not_measured(target, "accuracy", "the bundle has no labelled test images")
    place = outputs_target(target, artifact.suffix)
    with trusted_files([artifact]) as files:
        found = artifact_accuracy(files[artifact], test, place)
    finding = CheckFinding.PASSED if found.share >= limit else CheckFinding.FAILED
    where = "" if place == target else f" on {place}"
    why = f"{found.words}, {found.count_words}{where}, at least {limit:.2%}"
    return Check(str(target), "accuracy", finding, why, value=found.share, limit=limit, unit="share")


def check_latency(
    artifact: Path,
    target: Target,
    limit_ms: float,
    *,
    protocol: MeasuringProtocol,
    between: BetweenBatches | None,
    task: Task,
) -> Check:
    """The latency on the target, against a limit in milliseconds; ``between`` as the bundle knows it."""
    with trusted_files([artifact]) as files:
        found = latency_against_limit(
            files[artifact],
            1e6 * limit_ms,
            target,
            protocol,
            between=between,
            on_progress=task,
            on_state=task.say,
        )
    return _against(found, target, "latency", "ms", 1e-6)


def check_regression(
    old: Path, new: Path, target: Target, limit: float, *, protocol: MeasuringProtocol, task: Task
) -> Check:
    """The latency relative to that of an older artifact, from launches in which both ran."""
    if artifact_digest(old) == artifact_digest(new):
        same = "both bundles have the same file"
        return Check(str(target), "regression", CheckFinding.PASSED, same, limit=1 + limit, unit="ratio")
    with trusted_files([old, new]) as files:
        found = ratio_against_limit(
            files[old], files[new], 1 + limit, target, protocol, on_progress=task, on_state=task.say
        )
    return _against(found, target, "regression", "ratio", 1.0)


def not_measured(target: Target, name: str, why: str) -> Check:
    """A check that could not be made."""
    return Check(str(target), name, CheckFinding.NOT_MEASURED, why)


def _against(found: AgainstLimit, target: Target, name: str, unit: str, scale: float) -> Check:
    seen, finding = found.interval, _FINDINGS[found.finding]
    if seen is None:
        return not_measured(target, name, "; ".join(found.obstacles))
    low, value, high, limit = (scale * each for each in (seen.low, seen.value, seen.high, found.limit))
    figures = (
        f"{value:.4f} ms [{low:.4f}, {high:.4f}], at most {limit:g} ms"
        if unit == "ms"
        else f"{value:.3f}x [{low:.3f}, {high:.3f}] of the old latency, at most {limit:.3f}x"
    )
    why = f"{figures}, {count_of(found.launches, 'launch')}"
    if finding is CheckFinding.UNDECIDED:
        why += "; more launches would not tell, and the interval holds the limit"
    return Check(
        str(target), name, finding, why, value, low, high, seen.confidence, limit, unit, found.launches
    )
