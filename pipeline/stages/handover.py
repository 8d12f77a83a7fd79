"""Stages ``report`` and ``bundle``: what people read, and what the edge team ships."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devices.digests import file_digest
from devices.measurement import Interval
from devices.target import Target
from latency_db.estimate import Estimate
from pipeline.bundle import BundleContent, TargetContent, read_bundle, write_bundle
from pipeline.distill.settings import EpochRecord
from pipeline.errors import VerificationError
from pipeline.export.base import INPUT_NAME, OUTPUT_NAME, format_of
from pipeline.report import (
    BlockLatencies,
    CandidatePoint,
    Comparison,
    ReportData,
    TargetReport,
    TrainingCurve,
    render,
)
from pipeline.spaces.base import Architecture, Space
from pipeline.stages.context import Context, versions
from pipeline.stages.inputs import FrozenTeacher
from pipeline.stages.latency import Feasible, Tables
from pipeline.stages.networks import MeasuredNetwork
from pipeline.stages.search import EvaluatedCandidate, Searched
from pipeline.stages.space import Task
from pipeline.stages.winner import Winner

_REPORT = "report.html"


@dataclass(frozen=True)
class ReportFile:
    """The rendered report, by digest; it lies in the stage's folder."""

    digest: str


@dataclass(frozen=True)
class Findings:
    """Everything a finished run found out, for the report."""

    tables: Tables
    feasible: Feasible
    searched: Searched
    winner: Winner


def write_report(context: Context, task: Task, findings: Findings) -> Path:
    """Render the report of a finished run; returns its path in the work folder."""
    winner = findings.winner
    inputs = {
        "recipe": context.recipe_text,
        "teacher": task.teacher.summary.digest,
        "artifacts": {name: compiled.student.digest for name, compiled in winner.compiled.items()},
        "measured": {name: v.measurement.started_at for name, v in winner.verified.verdicts.items()},
        "versions": versions(),
    }

    def compute(folder: Path) -> ReportFile:
        return ReportFile(file_digest(render(_report(context, task, findings), folder / _REPORT)))

    context.work.stage("report", inputs, ReportFile, compute)
    return context.work.folder_of("report") / _REPORT


def write_bundle_of(context: Context, task: Task, findings: Findings, report: Path) -> Path:
    """Write the bundle to ``bundles/NAME`` of the work folder; an equal one that is whole is left alone."""
    folder = context.work.path / "bundles" / context.recipe.name
    winner, data = findings.winner, task.data
    estimates = _estimates(findings.searched, winner.distilled.architecture)
    targets = []
    for target in context.budgets:
        name, layout = str(target), format_of(target).layout
        compiled = winner.compiled[name]
        targets.append(
            TargetContent(
                artifact=compiled.student.path,
                reference=compiled.reference.path,
                layout=layout,
                input_name=INPUT_NAME,
                output_name=OUTPUT_NAME,
                predicted=estimates.get(name),
                verdict=winner.verified.verdicts[name],
            )
        )
    if _is_current(folder, report):
        return folder
    return write_bundle(
        BundleContent(
            name=context.recipe.name,
            targets=tuple(targets),
            test=data.dataset.test,
            preprocessing=data.summary.preprocessing,
            labels=data.summary.classes,
            teacher_digest=task.teacher.summary.digest,
            teacher_accuracy=winner.verified.teacher_accuracy,
            student_architecture=str(winner.distilled.architecture),
            student_accuracy=winner.verified.student_accuracy,
            recipe=context.recipe_text,
            report=report,
            versions=versions(),
        ),
        folder,
    )


def _is_current(folder: Path, report: Path) -> bool:
    """The report names every artifact and measurement, so a whole bundle with this report is this bundle."""
    if not (folder / _REPORT).is_file() or file_digest(folder / _REPORT) != file_digest(report):
        return False
    try:
        read_bundle(folder)
    except VerificationError:
        return False
    return True


def _report(context: Context, task: Task, findings: Findings) -> ReportData:
    winner, teacher = findings.winner, task.teacher
    architecture = winner.distilled.architecture
    verified = winner.verified
    targets = tuple(_target(task.space, target, findings) for target in context.budgets)
    curves = [_curve(f"teacher {name}", history) for name, history in teacher.summary.members if history]
    rejected = len(winner.rejected)
    return ReportData(
        title=f"Lathe: {context.recipe.name}",
        summary=(
            f"The student reaches {verified.student_accuracy:.2%} on the test split, its teacher "
            f"{verified.teacher_accuracy:.2%}. Architecture: {architecture}. Candidates trained in "
            f"full before it that exceeded a budget: {rejected}."
        ),
        teacher_accuracy=verified.teacher_accuracy,
        student_accuracy=verified.student_accuracy,
        targets=targets,
        curves=(*curves, _curve("student", winner.distilled.history)),
        provenance=tuple(_provenance(context, teacher, findings).items()),
        recipe=context.recipe_text,
    )


def _target(space: Space, target: Target, findings: Findings) -> TargetReport:
    winner, searched, feasible = findings.winner, findings.searched, findings.feasible
    name, architecture = str(target), winner.distilled.architecture
    rows = findings.tables.by_target[name].rows
    return TargetReport(
        verdict=winner.verified.verdicts[name],
        predicted=_estimates(searched, architecture).get(name),
        limit_ns=feasible.limits_ns[name],
        candidates=tuple(
            CandidatePoint(
                str(c.architecture), c.score, c.spread, c.estimates[name], c.architecture == architecture
            )
            for c in searched.candidates
            if c.score is not None and searched.evaluated_by == "accuracy"
        ),
        comparisons=(
            *_comparisons(feasible.calibration, name, fitted=True),
            *_comparisons(searched.measured, name, fitted=False),
        ),
        blocks=(
            _blocks("winner", space, architecture, rows),
            BlockLatencies("teacher, modules measured alone", findings.tables.teacher[name].modules),
            _blocks("reference network", space, feasible.reference, rows),
        ),
    )


def _comparisons(networks: tuple[MeasuredNetwork, ...], target: str, *, fitted: bool) -> list[Comparison]:
    return [
        Comparison(str(network.architecture), network.predicted, network.measured, fitted)
        for network in networks
        if network.target == target
    ]


def _blocks(
    network: str, space: Space, architecture: Architecture, rows: Mapping[str, Interval]
) -> BlockLatencies:
    return BlockLatencies(
        network, tuple((str(block), rows[block.identity]) for block in space.blocks(architecture))
    )


def _estimates(searched: Searched, architecture: Architecture) -> Mapping[str, Estimate]:
    found: list[EvaluatedCandidate] = [c for c in searched.candidates if c.architecture == architecture]
    return found[0].estimates if found else {}


def _curve(name: str, history: tuple[EpochRecord, ...]) -> TrainingCurve:
    return TrainingCurve(
        name,
        tuple(record.loss for record in history),
        tuple(record.validation_accuracy for record in history),
    )


def _provenance(context: Context, teacher: FrozenTeacher, findings: Findings) -> dict[str, str]:
    winner = findings.winner
    rows = {"teacher": f"{teacher.summary.name}, digest {teacher.summary.digest}"}
    rows["student weights"] = winner.distilled.weights_digest
    for target, (runtime, device) in context.identities.items():
        name = str(target)
        rows[f"{name}: artifact"] = winner.compiled[name].student.digest
        rows[f"{name}: runtime"] = f"{runtime.name} {runtime.version}, binary {runtime.binary_digest[:16]}"
        rows[f"{name}: device"] = f"{device.cpu}, {device.cores} cores, {device.os}, {device.kernel}"
        rows[f"{name}: protocol"] = f"version {winner.verified.verdicts[name].measurement.protocol.version}"
        whole = findings.tables.teacher[name].whole
        rows[f"{name}: latency of the teacher"] = str(whole) if whole else "could not be measured"
        parity = winner.exported.parity[name]
        rows[f"{name}: parity with torch"] = (
            f"largest difference {parity.max_abs:.2e}, relative {parity.max_rel:.2e}, {parity.samples} images"
        )
    return rows | {f"version of {package}": number for package, number in versions().items()}
