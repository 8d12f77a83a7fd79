"""What was shipped: ``open_bundle`` reads a bundle, ``verify`` measures it again."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from devices.measurement import Interval
from latency_db.estimate import Estimate
from lathe.result import Result, Rows, reporter


@dataclass(frozen=True)
class BundleTarget:
    """One artifact of a bundle, and what was seen of it when the bundle was written.

    Attributes:
        target: where it runs.
        artifact: the model file.
        infer: script that runs it.
        budget: in words; ``None`` if none was asked for.
        predicted: before the artifact existed, nanoseconds; ``None`` if nothing was.
        measured: nanoseconds.
        verdict: how far the measurement may be trusted.
        accuracy: share of the test split; ``None`` without one.
        kept: the upper end of the measured interval is within the budget.
    """

    target: str
    artifact: Path
    infer: Path
    budget: str | None
    predicted: Estimate | None
    measured: Interval
    verdict: str
    accuracy: float | None
    kept: bool


@dataclass(frozen=True, repr=False)
class Bundle(Result):
    """A bundle of which every file is as it was written.

    Attributes:
        folder: where it is.
        name: of the recipe or the model.
        digest: of everything in it.
        labels: classes, in the order of the logits; none if it is no classifier.
        network: architecture of the student in words, or the name of the model that was compiled.
        teacher_accuracy: share of the test split, in torch; ``None`` of a model that was compiled.
        student_accuracy: the same of the student.
        targets: its artifacts.
    """

    folder: Path
    name: str
    digest: str
    labels: tuple[str, ...]
    network: str
    teacher_accuracy: float | None
    student_accuracy: float | None
    targets: tuple[BundleTarget, ...]

    def _title(self) -> str:
        return f"{self.name} in {self.folder}"

    def _rows(self) -> Rows:
        return [
            (
                each.target,
                f"{each.measured} measured",
                each.budget or "no budget",
                _percent(each.accuracy),
                str(each.artifact),
            )
            for each in self.targets
        ]


@dataclass(frozen=True)
class VerifiedTarget:
    """One target verified again.

    Attributes:
        target: where.
        latency: as measured now, nanoseconds.
        latency_on_device: the same with the interval that holds at another time too, on this machine, by
            which a budget in milliseconds is judged; ``None`` where neither your database nor the bundle
            knows the device.
        accuracy: share of the test split, now; ``None`` without one.
        holds: accuracy and budget are kept.
        why: one sentence with the figures behind that.
    """

    target: str
    latency: Interval
    latency_on_device: Interval | None
    accuracy: float | None
    holds: bool
    why: str


@dataclass(frozen=True, repr=False)
class Verification(Result):
    """An unchanged bundle, verified again on its targets.

    Attributes:
        folder: of the bundle.
        holds: on every target.
        targets: one for each of the bundle's.
    """

    folder: Path
    holds: bool
    targets: tuple[VerifiedTarget, ...]

    def _title(self) -> str:
        return f"{self.folder} {'holds' if self.holds else 'does not hold'}"

    def _rows(self) -> Rows:
        return [
            (each.target, _measured(each.latency, each.latency_on_device), _percent(each.accuracy), each.why)
            for each in self.targets
        ]


def _measured(narrow: Interval, wide: Interval | None) -> str:
    return f"{narrow} measured here and now" + ("" if wide is None else f", {wide.ends} on this machine")


def _percent(share: float | None) -> str:
    return "no test images" if share is None else f"{share:.2%}"


def open_bundle(folder: str | PathLike[str]) -> Bundle:
    """Check every byte of a bundle against its manifest, and read what it says.

    Raises:
        VerificationError: naming the file that is missing, changed, not listed, or outside the bundle.
    """
    from pipeline.bundle import RunOrigin, read_bundle

    where = Path(folder)
    manifest = read_bundle(where)
    origin = manifest.origin
    run = origin if isinstance(origin, RunOrigin) else None
    return Bundle(
        where,
        manifest.name,
        manifest.digest,
        manifest.classifier.labels if manifest.classifier else (),
        origin.student.architecture if isinstance(origin, RunOrigin) else origin.model,
        run.teacher.accuracy if run else None,
        run.student.accuracy if run else None,
        tuple(
            BundleTarget(
                each.target,
                where / each.artifact,
                where / each.infer,
                each.budget.words if each.budget else None,
                None
                if (predicted := each.predicted) is None
                else Estimate(predicted.low_ns, predicted.value_ns, predicted.high_ns, predicted.coverage),
                Interval(
                    each.measured.low_ns,
                    each.measured.value_ns,
                    each.measured.high_ns,
                    each.measured.confidence,
                ),
                each.measured.verdict.value,
                each.accuracy.share if each.accuracy else None,
                each.feasible,
            )
            for each in manifest.targets
        ),
        _document=manifest.model_dump(mode="json"),
    )


def verify(
    folder: str | PathLike[str],
    *,
    key: str | PathLike[str] | None = None,
    db: str | None = None,
    progress: bool = False,
) -> Verification:
    """Repeat integrity, accuracy and latency of a bundle; nothing is written into it.

    Args:
        folder: of the bundle.
        key: file of the public key of whoever must have signed it.
        db: URL or file of the latency database that knows how far the device changes; your own by default.
        progress: show it on standard error.

    Raises:
        VerificationError: the bundle was changed. A promise that does not hold is no error: see ``holds``.
        UnsignedError, SignatureError: it was not signed with that key.
        TargetError: a target cannot be reached, or its runtime is not installed.
        MeasurementError: an artifact does not run on its target.
        StoreError: the database cannot be read.
    """
    from latency_db.history import own_history
    from pipeline.bundle import verify_bundle

    where = Path(folder)
    with own_history(db) as between, reporter(progress).task(f"verifying {where}", "targets") as advance:
        found = verify_bundle(where, advance, key=None if key is None else Path(key), between=between)
    return Verification(
        where,
        found.holds,
        tuple(
            VerifiedTarget(
                each.verdict.target,
                each.verdict.measurement.latency,
                each.verdict.on_device,
                each.verdict.accuracy.share if each.verdict.accuracy else None,
                each.accuracy_holds and each.verdict.acceptable,
                each.verdict.why,
            )
            for each in found.targets
        ),
        _document=found.to_json(),
    )
