"""Stage ``report``: what people read of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from devices.measurement import Interval
from devices.words import count_of
from latency_db.estimate import Estimate
from pipeline.bundle import comparable_name
from pipeline.distill.settings import EpochRecord
from pipeline.report import (
    BlockLatencies,
    CandidatePoint,
    CandidateRow,
    ComparedNetwork,
    LayerMixture,
    ReportData,
    TargetReport,
    TrainingCurve,
    render,
)
from pipeline.search.base import Score
from pipeline.spaces.base import Architecture, Space
from pipeline.spaces.teacher.space import TeacherSpace
from pipeline.stages.delivery.kept import kept_units
from pipeline.stages.inputs.space import SpacePlan
from pipeline.stages.inputs.teacher import TeacherSummary, ensemble_lines
from pipeline.stages.latency.feasibility import Feasible
from pipeline.stages.latency.table import Tables
from pipeline.stages.latency.targets import BoundTarget
from pipeline.stages.searching.candidates import (
    EvaluatedCandidate,
    Searched,
    after_words,
    ratings_words,
    score_words,
    worth_lines,
)
from pipeline.stages.searching.size import why_unused
from pipeline.stages.services import Services
from pipeline.stages.student.winner import Winner
from pipeline.tables.building.networks import MeasuredNetwork
from pipeline.tasks import Task
from pipeline.work.canonical import StoredFile
from pipeline.work.stage import StageFolder, installed, stage

_REPORT = "report.html"

PACKAGES = (
    "lathe-deploy",
    "torch",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "litert-torch",
    "ai-edge-litert",
)
"""Whose versions a report and a bundle name."""


@dataclass(frozen=True)
class Findings:
    """Everything that a finished run found out."""

    plan: SpacePlan
    teacher: TeacherSummary
    targets: tuple[BoundTarget, ...]
    tables: Tables
    feasible: Feasible
    searched: Searched
    winner: Winner

    def predicted(self, target: str) -> Estimate | None:
        """What the search predicted for the winner on a target."""
        architecture = self.winner.distilled.architecture
        found = [c for c in self.searched.candidates if c.architecture == architecture]
        return found[0].estimates.get(target) if found else None


@dataclass(frozen=True)
class ReportInput:
    """Findings, and the recipe that asked for them."""

    name: str
    recipe_text: str
    findings: Findings


@dataclass(frozen=True)
class ReportFile:
    """The rendered report."""

    file: StoredFile


@stage("report", packages=PACKAGES)
def write_report(given: ReportInput, folder: StageFolder, services: Services) -> ReportFile:
    """Render the report of a finished run."""
    render(_report(given, folder), folder / _REPORT)
    return ReportFile(folder.stored(_REPORT))


def _report(given: ReportInput, folder: StageFolder) -> ReportData:
    findings = given.findings
    winner, teacher = findings.winner, findings.teacher
    architecture = winner.distilled.architecture
    verified, task = winner.verified, teacher.data.task
    targets = tuple(_target(findings, target) for target in findings.targets)
    curves = [
        _curve(
            f"teacher {member.name}" if len(teacher.members) == 1 else f"member {place}, {member.name}",
            member.history,
        )
        for place, member in enumerate(teacher.members, start=1)
        if member.history
    ]
    return ReportData(
        title=f"Lathe: {given.name}",
        summary=(
            f"The student reaches {task.shown(verified.student_accuracy)} on the test split, its teacher "
            f"{verified.teacher_accuracy:.2%}. Architecture: {architecture.brief}.{_choice(findings)}"
            f"{_not_shipped(winner)}"
        ),
        teacher_accuracy=verified.teacher_accuracy,
        student_accuracy=verified.student_accuracy,
        teacher_parameters=teacher.parameters,
        student_parameters=winner.size.parameters,
        student_macs=winner.size.macs,
        metric=task.metric,
        labels=teacher.data.classes,
        targets=targets,
        ensemble=tuple(ensemble_lines(teacher)),
        curves=(*curves, _curve("student", winner.distilled.history), *_fine_tuning(winner)),
        provenance=tuple(_provenance(findings).items()),
        recipe=given.recipe_text,
        mixtures=tuple(
            LayerMixture(group.size, group.teacher_layers, group.shares)
            for mixtures in winner.distilled.mixtures
            for group in mixtures.groups
        ),
        units=kept_units(
            findings.plan,
            architecture,
            {name: table.rows for name, table in findings.tables.by_target.items()},
            folder,
        ),
        candidates=tuple(_row(findings.searched, each) for each in findings.searched.candidates),
        ratings=tuple(worth_lines(findings.searched)),
    )


def _row(searched: Searched, each: EvaluatedCandidate) -> CandidateRow:
    shown = partial(score_words, evaluated_by=searched.evaluated_by)
    score = None if each.score is None else Score(each.score, each.spread)
    again = None if each.reevaluation is None else Score(each.reevaluation, each.reevaluation_spread)
    return CandidateRow(
        str(each.architecture),
        "failed" if score is None else shown(score) + after_words(each.fidelity),
        "" if again is None else shown(again),
        "" if each.posterior is None else shown(Score(each.posterior.mean, each.posterior.deviation)),
        ratings_words(each, searched.evaluated_by),
    )


def _choice(findings: Findings) -> str:
    """Whether the scores can tell the winner from the next."""
    others = len(findings.searched.tied_with(findings.winner.distilled.architecture))
    if not others:
        return ""
    return (
        " The choice was within the noise of the scores: it differs by less than the combined standard error "
        f"from {count_of(others, 'other candidate')} that could keep the budgets."
    )


def _not_shipped(winner: Winner) -> str:
    """What was tried before: what exceeded a budget, and what could not be measured."""
    text = f" Candidates preferred to it that exceeded a budget: {len(winner.rejected)}."
    if winner.passed_over:
        names = "; ".join(f"{each.architecture.brief} ({each.why})" for each in winner.passed_over)
        text += f" Preferred to it, but passed over because they could not be measured: {names}."
    return text


def _target(findings: Findings, target: BoundTarget) -> TargetReport:
    winner, searched, feasible = findings.winner, findings.searched, findings.feasible
    name, architecture = target.name, winner.distilled.architecture
    space, rows = findings.plan.space, findings.tables.by_target[target.name].rows
    return TargetReport(
        verdict=winner.verified.verdicts[name],
        predicted=findings.predicted(name),
        limit_ns=feasible.limits_ns[name],
        size_bytes=winner.compiled[name].student.size_bytes,
        int8=_int8(winner, name, findings.teacher.data.task),
        why_unused=why_unused(searched, architecture, feasible.limits_ns, feasible.soft).get(name, ""),
        runs_on=winner.compiled[name].student.notes.get("cpu", "any"),
        teacher=findings.tables.teacher[name].whole,
        candidates=tuple(
            CandidatePoint(
                str(c.architecture), c.score, c.spread, c.estimates[name], c.architecture == architecture
            )
            for c in searched.candidates
            if c.score is not None and c.fidelity == 1 and searched.evaluated_by == "accuracy"
        ),
        comparisons=(
            *_comparisons(feasible.calibration, name, fitted=True),
            *_comparisons(searched.measured, name, fitted=False),
        ),
        blocks=(
            _blocks("winner", space, architecture, rows),
            BlockLatencies(
                "teacher, modules measured alone, in float", findings.tables.teacher[name].modules
            ),
            _blocks("reference network", space, feasible.reference, rows),
        ),
    )


def _comparisons(
    networks: tuple[MeasuredNetwork, ...], target: str, *, fitted: bool
) -> list[ComparedNetwork]:
    return [
        ComparedNetwork(str(network.architecture), network.predicted, network.measured, fitted)
        for network in networks
        if network.target == target
    ]


def _blocks(
    network: str, space: Space, architecture: Architecture, rows: Mapping[str, Interval]
) -> BlockLatencies:
    blocks = space.blocks(architecture)
    names = list(map(str, blocks))
    if isinstance(space, TeacherSpace):
        names = [space.layer_name(unit.name) for unit in space.units_left(architecture)]
    # The reference network may have blocks that do not run there.
    known = zip(names, (rows.get(block.identity) for block in blocks), strict=True)
    return BlockLatencies(network, tuple((name, its) for name, its in known if its is not None))


def _curve(name: str, history: tuple[EpochRecord, ...]) -> TrainingCurve:
    return TrainingCurve(
        name,
        tuple(record.loss for record in history),
        tuple(record.validation_accuracy for record in history),
    )


def _fine_tuning(winner: Winner) -> tuple[TrainingCurve, ...]:
    quantised = winner.quantised
    if quantised is None or not quantised.history:
        return ()
    return (_curve("student, fine-tuned for int8", quantised.history),)


def _int8(winner: Winner, target: str, task: Task) -> str:
    """Accuracy in float and in int8, in words; empty for a target in float."""
    words = winner.quantised_words(target)
    if not words or winner.quantised is None:
        return ""
    agreement = winner.quantised.figures[target].agreement
    return f"{words}; {task.agreement_shown(agreement)}"


def _provenance(findings: Findings) -> dict[str, str]:
    winner, teacher = findings.winner, findings.teacher
    rows = {"teacher": f"{teacher.name}, digest {teacher.digest}"}
    rows["student weights"] = winner.distilled.weights.digest
    if winner.quantised is not None and winner.quantised.ships_fine_tuned:
        rows["student weights, fine-tuned for int8"] = winner.quantised.weights.digest
    for target in findings.targets:
        name, runtime, device = target.name, target.runtime, target.device
        rows[f"{name}: artifact"] = winner.compiled[name].student.file.digest
        rows[f"{name}: runtime"] = f"{runtime.name} {runtime.version}, binary {runtime.binary_digest[:16]}"
        rows[f"{name}: device"] = (
            f"{device.cpu}, {count_of(device.cores, 'core')}, {device.os}, {device.kernel}"
        )
        rows[f"{name}: protocol"] = f"version {winner.verified.verdicts[name].measurement.protocol.version}"
        whole = findings.tables.teacher[name].whole
        rows[f"{name}: latency of the teacher"] = str(whole) if whole else "could not be measured"
        model = findings.tables.teacher_models.get(target.format.in_float)
        if model is not None:
            rows[f"{name}: the teacher to compare with"] = (
                f"{model.path} in the work folder, digest {model.digest}: lathe compare {model.path} "
                f"{comparable_name(target.target, target.format.suffix)} --target {name}"
            )
        parity, accuracy = winner.exported.parity[name], winner.verified.verdicts[name].accuracy
        rows[f"{name}: parity with torch"] = (
            ("before it was quantised: " if target.is_int8 else "")
            + f"largest difference {parity.max_abs:.2e}, relative {parity.max_rel:.2e}, "
            + count_of(parity.samples, "image")
            + (accuracy.note if accuracy else "")
        )
    return rows | {f"version of {package}": number for package, number in installed(PACKAGES).items()}
