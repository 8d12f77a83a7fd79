"""What a gate does: integrity first, then every limit on every artifact, the cheap ones before the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devices.errors import MeasurementError, TargetError
from devices.inventory import ignore_project_file_in
from devices.measurement import MeasuringProtocol
from devices.target import Target
from pipeline.bundle import Manifest, TargetEntry, read_bundle, read_test, read_verdict
from pipeline.errors import UsageError
from pipeline.gate.checks import (
    Check,
    CheckFinding,
    check_accuracy,
    check_latency,
    check_regression,
    check_size,
    not_measured,
)
from pipeline.gate.limits import Limits
from pipeline.progress import Reporter


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle of which every file is as it was written."""

    folder: Path
    manifest: Manifest

    @classmethod
    def read(cls, folder: Path) -> OpenedBundle:
        """Check every byte.

        Raises:
            VerificationError: see ``read_bundle``.
        """
        return cls(folder, read_bundle(folder))

    def entry(self, target: Target) -> TargetEntry | None:
        """What it has for a target."""
        found = (each for each in self.manifest.targets if Target.parse(each.target) == target)
        return next(found, None)


@dataclass(frozen=True)
class GateResult:
    """Every check of a gate, in the order in which they were made."""

    bundle: str
    against: str | None
    checks: tuple[Check, ...]

    def of(self, finding: CheckFinding) -> tuple[Check, ...]:
        """The checks that ended so."""
        return tuple(check for check in self.checks if check.finding is finding)

    @property
    def finding(self) -> CheckFinding:
        """The worst finding: failed, not measured, undecided, passed."""
        order = (CheckFinding.FAILED, CheckFinding.NOT_MEASURED, CheckFinding.UNDECIDED)
        return next((each for each in order if self.of(each)), CheckFinding.PASSED)

    @property
    def passed(self) -> bool:
        """The gate is open: nothing failed, and everything could be measured."""
        return self.finding in (CheckFinding.PASSED, CheckFinding.UNDECIDED)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {**asdict(self), "finding": self.finding, "passed": self.passed}


def gate_bundle(
    folder: Path,
    limits: Limits,
    *,
    against: Path | None,
    targets: Sequence[Target],
    reporter: Reporter,
) -> GateResult:
    """Hold a bundle to limits. Nothing is written into it.

    Args:
        folder: the bundle.
        limits: what is asked for.
        against: an older bundle to compare latencies with.
        targets: which of the bundle's; all if there are none.
        reporter: told of every measurement.

    Raises:
        UsageError: no limit is given, a regression is limited without an older bundle, or the bundle has
            nothing for a target.
        VerificationError: one of the bundles was changed.
    """
    if not limits.any:
        raise UsageError(
            "the gate has no limit",
            why="it would let every bundle through that is unchanged",
            fix="give --against, --max-latency-ms, --min-accuracy or --max-size; "
            "'lathe verify' checks what the manifest promises",
        )
    if limits.max_regression is not None and against is None:
        raise UsageError("--max-regression needs an older bundle", fix="give it with --against")
    for each in filter(None, (folder, against)):
        ignore_project_file_in(each)
    new = OpenedBundle.read(folder)
    old = OpenedBundle.read(against) if against is not None else None
    chosen = tuple(dict.fromkeys(targets)) or tuple(
        Target.parse(each.target) for each in new.manifest.targets
    )
    for target in chosen:
        if new.entry(target) is None:
            has = ", ".join(each.target for each in new.manifest.targets)
            raise UsageError(f"the bundle {folder} has no artifact for {target}", why=f"it has {has}")
    files = len(new.manifest.files)
    checks = [Check("", "integrity", CheckFinding.PASSED, f"{files} files are as they were written")]
    for target in chosen:
        checks += _checks(new, old, target, limits, reporter)
    return GateResult(str(folder), None if against is None else str(against), tuple(checks))


def _checks(
    new: OpenedBundle, old: OpenedBundle | None, target: Target, limits: Limits, reporter: Reporter
) -> Iterator[Check]:
    entry = new.entry(target)
    assert entry is not None
    artifact, verdict = new.folder / entry.artifact, read_verdict(new.folder, entry)
    protocol = verdict.measurement.protocol
    size, accuracy, latency_ms = limits.max_size_bytes, limits.min_accuracy, limits.max_latency_ms
    if size is not None:
        yield check_size(artifact, target, size)
    if accuracy is not None:
        test = read_test(new.folder, new.manifest, entry)
        yield _attempt(target, "accuracy", lambda: check_accuracy(artifact, test, target, accuracy))
    if latency_ms is not None:
        with reporter.task(f"measuring on {target}", "launches") as task:
            found = _attempt(
                target,
                "latency",
                lambda: check_latency(
                    artifact, target, latency_ms, protocol=protocol, between=verdict.between, task=task
                ),
            )
        yield found
    if old is not None and limits.max_regression is not None:
        yield _regression(old, artifact, target, limits.max_regression, protocol=protocol, reporter=reporter)


def _regression(
    old: OpenedBundle,
    artifact: Path,
    target: Target,
    limit: float,
    *,
    protocol: MeasuringProtocol,
    reporter: Reporter,
) -> Check:
    entry = old.entry(target)
    if entry is None:
        return not_measured(target, "regression", f"{old.folder} has no artifact for this target")
    before = old.folder / entry.artifact
    with reporter.task(f"comparing on {target}", "launches") as task:
        return _attempt(
            target,
            "regression",
            lambda: check_regression(before, artifact, target, limit, protocol=protocol, task=task),
        )


def _attempt(target: Target, name: str, check: Callable[[], Check]) -> Check:
    """A check, or why it could not be made: the others are made all the same."""
    try:
        return check()
    except (TargetError, MeasurementError) as error:
        return not_measured(target, name, f"{error.what}: {error.why}" if error.why else error.what)
