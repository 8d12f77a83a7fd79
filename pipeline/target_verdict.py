"""Verification: the very artifact runs on its target, for accuracy on the test split and for latency."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from devices.artifacts import artifact_digest
from devices.errors import MeasurementError
from devices.measurement import (
    BetweenBatches,
    Interval,
    Measurement,
    MeasurementFailure,
    MeasuringProtocol,
    Outcome,
    Ratio,
    Verdict,
    paired_ratio,
)
from devices.measuring import Job, measure
from devices.requests import outputs_target, predict
from devices.target import Target
from devices.words import count_of
from pipeline.budget import Budget
from pipeline.data.base import Preprocessing, Split
from pipeline.errors import VerificationError
from pipeline.tasks import Task

Layout = Literal["NCHW", "NHWC"]


RETRY_PAUSES_S = (5.0, 20.0, 60.0)
"""Waits before a measurement that decides nothing is repeated: what disturbs a machine often passes."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Labelled images, and how they become an artifact's input: preprocessed, with its order of axes."""

    split: Split
    preprocessing: Preprocessing
    layout: Layout


@dataclass(frozen=True)
class ClassCount:
    """Test images of one class, and how many of them were classified correctly."""

    correct: int
    total: int


@dataclass(frozen=True)
class Accuracy:
    """How well an artifact does its task on the test images, by the task's metric.

    Attributes:
        correct: of ``total``; ``None`` where the metric counts no images.
        total: test images.
        by_class: correct images class by class, in the order of the labels.
        target: where that was found out, as text, if the artifact's own target gives no outputs for given
            inputs; ``None`` for the target itself.
        metric: its name.
        value: of the metric, where it counts no images.
    """

    correct: int | None
    total: int
    by_class: tuple[ClassCount, ...]
    target: str | None = None
    metric: str = "accuracy"
    value: float | None = None

    @property
    def share(self) -> float:
        """The metric: where it counts images, correct ones as a share of all."""
        if self.correct is not None:
            return self.correct / self.total
        if self.value is None:
            raise ValueError("neither images nor a value of the metric")
        return self.value

    @property
    def words(self) -> str:
        """The metric, by its name where that is not accuracy."""
        return f"{self.share:.2%}" if self.metric == "accuracy" else f"{self.metric} {self.share:.2%}"

    @property
    def count_words(self) -> str:
        """What it was taken on."""
        images = count_of(self.total, "test image")
        return f"on {images}" if self.correct is None else f"{self.correct} of {images}"

    @property
    def note(self) -> str:
        """What to add where the accuracy is shown: where it was taken, unless on the target itself."""
        return f" (taken on {self.target})" if self.target else ""


@dataclass(frozen=True)
class TargetVerdict:
    """What was seen of one artifact on one target, and whether it keeps the budget there.

    Attributes:
        target: as text; ``Target.parse`` reads it.
        artifact_digest: SHA-256 of the file that ran.
        accuracy: on the test images; ``None`` if there are none.
        measurement: of the artifact, raw samples included.
        reference: of what it is compared with, measured in the same launches; ``None`` without one.
        ratio: latency relative to the reference; ``None`` without one.
        budget: that was asked for; ``None`` if none was.
        feasible: the upper end of the measured interval is within the budget; without one, that the
            measurement can be trusted.
        why: one sentence with the figures behind ``feasible``.
        between: how far batches differ on the target's device, by which a budget in milliseconds is judged;
            ``None`` in bundles of earlier versions, which judged by the launches alone.
    """

    target: str
    artifact_digest: str
    accuracy: Accuracy | None
    measurement: Measurement
    reference: Measurement | None
    ratio: Ratio | None
    budget: Budget | None
    feasible: bool
    why: str
    between: BetweenBatches | None = None

    @property
    def accuracy_words(self) -> str:
        """The accuracy, and where it was taken; or that there is none."""
        if self.accuracy is None:
            return "no accuracy, since there are no test images"
        return f"{self.accuracy.words} on the test split{self.accuracy.note}"

    @property
    def acceptable(self) -> bool:
        """The budget is kept, or was soft and the measurement can be trusted."""
        return self.feasible or (self.budget is not None and self.budget.soft and self.measured)

    @property
    def measured(self) -> bool:
        """Latencies are known as far as the budget needs them; else nothing is known of it."""
        return not _open(self.budget, self.measurement, self.reference, self.ratio, self.between)

    @property
    def on_device(self) -> Interval | None:
        """The latency with the interval that holds at another time too; ``None`` where nothing is known."""
        return None if self.between is None else self.measurement.on_device(self.between)

    @property
    def used(self) -> float | None:
        """Upper end of the measured latency as a share of the budget; ``None`` without one of them."""
        if self.budget is None or not self.measured:
            return None
        if self.budget.limit_ns is not None:
            return self.measurement.on_device(self.between).high_ns / self.budget.limit_ns
        assert self.ratio is not None
        assert self.budget.relative is not None
        return self.ratio.high / self.budget.relative

    def to_json(self) -> dict[str, Any]:
        """All fields as JSON; ``from_json`` reads it back."""
        document: dict[str, Any] = _VERDICT.dump_python(self, mode="json")
        return document

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """Read what ``to_json`` wrote.

        Raises:
            pydantic.ValidationError: the document has another form.
        """
        verdict = _VERDICT.validate_python(document)
        assert isinstance(verdict, cls)
        return verdict


_INPUT_BYTES = 256_000_000
_VERDICT = TypeAdapter(TargetVerdict)


def verify_artifact(
    artifact: Path,
    test: LabelledImages | None,
    target: Target,
    *,
    budget: Budget | None,
    reference: Path | None,
    protocol: MeasuringProtocol,
    outputs: Target | None = None,
    between: Callable[[Measurement], BetweenBatches | None] = lambda measurement: None,
) -> TargetVerdict:
    """Run one artifact on its target over all test images, measure it, and judge it by the budget.

    Where the target gives no outputs, the same file is run for its accuracy on ``outputs``; by default what
    ``devices.requests.outputs_target`` finds.

    With a ``reference`` both are measured in the same launches, so that a ratio compares like with like.
    A measurement that was disturbed is repeated, see ``RETRY_PAUSES_S``, unless it shows all the same that
    the budget is kept or exceeded; an invalid one is never called feasible. A budget in milliseconds is
    judged by the interval that holds at another time too: ``between`` tells how far batches differ on the
    device of a measurement. A ratio needs no such allowance.

    Raises:
        VerificationError: the budget is relative and there is no reference.
        MeasurementError: the artifact or the reference does not run on the target.
        TargetError: the target cannot be reached, or its runtime is not installed.
    """
    if budget is not None and budget.relative is not None and reference is None:
        raise VerificationError(
            f"the budget of {budget.words} on {target} cannot be checked",
            why=f"a relative budget needs the {budget.reference_name}, and none was given",
            fix=f"give the artifact of the {budget.reference_name}, or a budget in milliseconds",
        )
    digest = artifact_digest(artifact)
    accuracy = None
    if test is not None:
        place = outputs or outputs_target(target, artifact.suffix)
        accuracy = replace(
            artifact_accuracy(artifact, test, place), target=None if place == target else str(place)
        )
    known: BetweenBatches | None = None

    def decides(student: Measurement, other: Measurement | None) -> bool:
        nonlocal known
        known = between(student)
        return not _open(budget, student, other, _ratio(student, other), known)

    student, other = measure_artifact(artifact, reference, target, protocol, decides)
    ratio = _ratio(student, other)
    feasible, why = judge(budget, student, other, ratio, known)
    return TargetVerdict(
        target=str(target),
        artifact_digest=digest,
        accuracy=accuracy,
        measurement=student,
        reference=other,
        ratio=ratio,
        budget=budget,
        feasible=feasible,
        why=why,
        between=known,
    )


def in_layout(images: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    """Preprocessed images ``(N, H, W, C)`` in the layout that an artifact takes."""
    return images if layout == "NHWC" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def predict_split(artifact: Path, images: LabelledImages, target: Target) -> NDArray[np.float32]:
    """Outputs ``(N, K)`` of an artifact for all images; not all of them are in memory at a time.

    Raises:
        MeasurementError: the artifact does not run.
    """
    split = images.split
    per_image = 4 * int(np.prod(split.images.shape[1:]))
    at_once = max(1, _INPUT_BYTES // per_image)
    found = []
    for start in range(0, len(split), at_once):
        some = images.preprocessing(split.images[start : start + at_once])
        found.append(predict(artifact, in_layout(some, images.layout), target))
    return np.concatenate(found)


def artifact_accuracy(artifact: Path, test: LabelledImages, target: Target) -> Accuracy:
    """How well the artifact, run on the target, does the task of the test images.

    Raises:
        MeasurementError: the artifact does not run, or answers with numbers that are not finite.
    """
    labels, task = test.split.labels, test.split.task
    outputs = predict_split(artifact, test, target)
    if not np.isfinite(outputs).all():
        raise MeasurementError(
            f"{artifact.name} answers with numbers that are not finite on {target}",
            why="the network overflows, or was damaged in conversion",
            fix="compare it with the exported model on the same images",
        )
    return accuracy_of(outputs, labels, task)


def accuracy_of(outputs: NDArray[np.float32], labels: NDArray[Any], task: Task) -> Accuracy:
    """How well finite outputs ``(N, K)`` do the task of the labels."""
    counts = task.counts(outputs, labels)
    if counts is None:
        return Accuracy(None, len(labels), (), metric=task.metric, value=task.value(outputs, labels))
    by_class = tuple(ClassCount(int(one), int(other)) for one, other in zip(*counts, strict=True))
    correct, total = (sum(getattr(each, name) for each in by_class) for name in ("correct", "total"))
    return Accuracy(correct, total, by_class, metric=task.metric)


def judge(
    budget: Budget | None,
    student: Measurement,
    reference: Measurement | None,
    ratio: Ratio | None,
    between: BetweenBatches | None = None,
) -> tuple[bool, str]:
    """Whether the budget is kept, and one sentence that says why."""
    needed = _needed(budget, student, reference)
    for name, measurement in needed:
        if measurement.verdict is Verdict.INVALID:
            return (
                False,
                f"the measurement of the {name} is invalid, also when repeated: {_reasons(measurement)}",
            )
    if budget is None:
        wide = "" if between is None else f" here and now, {student.on_device(between).ends} on this machine"
        return True, f"the measured latency is {student.latency}{wide}, and no budget limits it"
    if budget.limit_ns is not None:
        latency, limit = student.on_device(between), budget.limit_ns
        low, high, seen = latency.low_ns, latency.high_ns, f"the measured latency {latency}"
        if between is not None:
            seen += f" on this machine, {student.latency.ends} here and now,"
    elif ratio is not None and budget.relative is not None:
        limit = budget.relative
        low, high = ratio.low, ratio.high
        seen = f"the measured latency, {ratio} of the {budget.reference_name}'s,"
    else:
        return False, f"the launches of the artifact and the {budget.reference_name} cannot be paired"
    outcome = "keeps" if high <= limit else "exceeds" if low > limit else "may exceed"
    doubt = (
        f"; something disturbed it, also when repeated: {_reasons(*(each for _, each in needed))}"
        if _open(budget, student, reference, ratio, between)
        else ""
    )
    return high <= limit, f"{seen} {outcome} the budget of {budget.words}{doubt}"


def _reasons(*measurements: Measurement) -> str:
    details = [reason.detail for measurement in measurements for reason in measurement.reasons]
    return "; ".join(dict.fromkeys(details))


def _needed(
    budget: Budget | None, student: Measurement, reference: Measurement | None
) -> list[tuple[str, Measurement]]:
    """The measurements on which a budget rests, with what they are of."""
    needed = [("artifact", student)]
    if budget is not None and budget.relative is not None and reference is not None:
        needed.append((budget.reference_name, reference))
    return needed


def _open(
    budget: Budget | None,
    student: Measurement,
    reference: Measurement | None,
    ratio: Ratio | None,
    between: BetweenBatches | None,
) -> bool:
    """Measurements leave open whether a budget is kept: they are invalid, or wide and on both sides of it."""
    needed = [measurement for _, measurement in _needed(budget, student, reference)]
    if any(each.verdict is Verdict.INVALID for each in needed):
        return True
    if budget is not None and budget.relative is not None and ratio is None:
        return True
    return not (all(each.sharp for each in needed) or _shown(budget, student, ratio, between))


def _shown(
    budget: Budget | None, student: Measurement, ratio: Ratio | None, between: BetweenBatches | None
) -> bool:
    """The whole interval is on one side of the budget, where there is one."""
    if budget is None:
        return True
    if budget.limit_ns is not None:
        latency = student.on_device(between)
        return latency.high_ns <= budget.limit_ns or latency.low_ns > budget.limit_ns
    if budget.relative is not None and ratio is not None:
        return ratio.high <= budget.relative or ratio.low > budget.relative
    return False


def _ratio(student: Measurement, reference: Measurement | None) -> Ratio | None:
    return None if reference is None else paired_ratio(student, reference)


def _sharp(student: Measurement, reference: Measurement | None) -> bool:
    return student.sharp and (reference is None or reference.sharp)


def measure_artifact(
    artifact: Path,
    reference: Path | None,
    target: Target,
    protocol: MeasuringProtocol,
    decides: Callable[[Measurement, Measurement | None], bool] = _sharp,
) -> tuple[Measurement, Measurement | None]:
    """Measure an artifact, and a reference in the same launches; again after each pause until that decides.

    Raises:
        MeasurementError: one of them does not run on the target.
        TargetError: the target cannot be reached, or its runtime is not installed.
    """
    jobs = [Job("artifact", artifact)]
    if reference is not None:
        jobs.append(Job("reference", reference))
    for pause_s in (*RETRY_PAUSES_S, None):
        outcomes = measure(jobs, target, protocol, paired=True)
        measured = {job.name: _ran(job, outcomes[job.name]) for job in jobs}
        found = measured["artifact"], measured.get("reference")
        if pause_s is None or decides(*found):
            break
        time.sleep(pause_s)
    return found


def _ran(job: Job, outcome: Outcome) -> Measurement:
    if isinstance(outcome, MeasurementFailure):
        raise MeasurementError(
            f"the {job.name} {job.artifact.name} could not be measured on {outcome.target}",
            why=f"{outcome.reason.code}: {outcome.reason.detail}",
            fix="try the file alone with the same runtime, or choose another target",
        )
    return outcome
