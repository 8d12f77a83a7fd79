"""Stage ``verify``: the compiled artifacts on their targets, accuracy and latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from devices.measurement import MeasuringProtocol
from devices.measuring import GoingOn, side_by_side
from latency_db.history import history_of
from pipeline.budget import Budget
from pipeline.spaces.base import Architecture
from pipeline.stages.inputs.data import DataSummary, open_data
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, open_teacher
from pipeline.stages.latency.targets import BoundTarget, OutputsPlace, outputs_place
from pipeline.stages.services import Services
from pipeline.stages.student.compile import Compiled
from pipeline.stages.student.distil import open_student
from pipeline.target_verdict import LabelledImages, TargetVerdict, verify_artifact
from pipeline.work.canonical import StoredFile, by_digest
from pipeline.work.stage import StageFolder, stage


@dataclass(frozen=True)
class VerifyInput:
    """The compiled networks of a candidate, and what they have to keep.

    Attributes:
        compiled: by target, as are ``budgets``.
        targets: where they run.
        outputs: where the outputs are taken of targets that give none, by target.
        protocol: of the measurement.
        plan: with ``architecture`` and ``weights``, the student in torch.
    """

    compiled: Mapping[str, Compiled]
    targets: tuple[BoundTarget, ...]
    protocol: MeasuringProtocol
    budgets: Mapping[str, Budget]
    plan: SpacePlan
    architecture: Architecture
    weights: StoredFile
    outputs: Mapping[str, OutputsPlace]
    data: DataSummary = by_digest()
    teacher: TeacherSummary = by_digest()


@dataclass(frozen=True)
class Verified:
    """What the targets said of one candidate; accuracies are on the test split."""

    teacher_accuracy: float
    student_accuracy: float
    verdicts: Mapping[str, TargetVerdict]

    @property
    def valid(self) -> bool:
        """Every measurement says something: else the next run measures again."""
        return all(each.measured for each in self.verdicts.values())

    @property
    def acceptable(self) -> bool:
        """Every budget is kept that is not soft."""
        return all(verdict.acceptable for verdict in self.verdicts.values())

    @property
    def exceeded(self) -> bool:
        """A budget that is not soft was exceeded, whatever else could not be measured."""
        return any(verdict.measured and not verdict.acceptable for verdict in self.verdicts.values())


def _told(given: VerifyInput, value: Verified) -> Sequence[str]:
    return [
        f"verify       {name}: {_word(verdict)}, {verdict.accuracy_words}; {verdict.why}"
        for name, verdict in value.verdicts.items()
    ]


def _word(verdict: TargetVerdict) -> str:
    if not verdict.measured:
        return "NOT MEASURED"
    return "FEASIBLE" if verdict.feasible else "NOT FEASIBLE"


def _is_final(value: Verified) -> bool:
    return value.valid


@stage("verify", packages=("torch", "numpy"), final=_is_final, tell=_told)
def verify_student(given: VerifyInput, folder: StageFolder, services: Services) -> Verified:
    """Run the artifacts on their targets: accuracy on the test split, latency against the budget.

    Raises:
        MeasurementError: an artifact does not run on its target.
    """
    from pipeline.distill.training import accuracy

    dataset = open_data(given.data, folder)
    done: list[str] = []
    with services.reporter.task("verifying on the targets", "targets") as advance:

        def verify(target: BoundTarget, going_on: GoingOn) -> TargetVerdict:
            going_on()
            compiled = given.compiled[target.name]
            verdict = verify_artifact(
                folder.find(compiled.student.file),
                LabelledImages(dataset.test, dataset.preprocessing, compiled.student.format.layout),
                target.target,
                budget=given.budgets[target.name],
                reference=folder.find(compiled.reference.file) if compiled.reference else None,
                protocol=given.protocol,
                outputs=outputs_place(target, given.outputs),
                between=lambda measurement: history_of(services.store, measurement.device).between,
            )
            done.append(target.name)
            advance(len(done), len(given.targets))
            return verdict

        advance(0, len(given.targets))
        work = {target.target: partial(verify, target) for target in given.targets}
        found = side_by_side(work, services.reporter.note)
    verdicts = {target.name: found[target.target] for target in given.targets}
    with services.reporter.task("testing teacher and student in torch", ""):
        student = open_student(given.plan, given.architecture, given.weights, folder)
        teacher = open_teacher(given.teacher, folder).module
        return Verified(
            accuracy(teacher, dataset.test, dataset.preprocessing),
            accuracy(student, dataset.test, dataset.preprocessing),
            verdicts,
        )
