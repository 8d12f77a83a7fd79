"""The main job: from a recipe to a verified bundle. Each line hands one value to the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency_db.store import open_store
from pipeline.progress import Reporter
from pipeline.recipe import Recipe
from pipeline.stages.context import Context
from pipeline.stages.handover import Findings, write_bundle_of, write_report
from pipeline.stages.inputs import DataSummary, TeacherSummary, prepare_data, prepare_teacher
from pipeline.stages.latency import Feasible, Tables, build_tables, check_feasibility
from pipeline.stages.search import Searched, describe, search_students
from pipeline.stages.space import Task, prepare_space
from pipeline.stages.student import Winner, make_winner
from pipeline.work import StageRecord, WorkFolder


@dataclass(frozen=True)
class RunResult:
    """Everything a finished run knows; ``to_json`` is what ``lathe run --json`` prints."""

    recipe: Recipe
    data: DataSummary
    teacher: TeacherSummary
    tables: Tables
    feasible: Feasible
    searched: Searched
    winner: Winner
    report: Path
    bundle: Path
    stages: tuple[StageRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON document; latencies in milliseconds."""
        verified = self.winner.verified
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "data": {"name": self.data.name, "digest": self.data.digest, "counts": list(self.data.counts)},
            "teacher": {
                "name": self.teacher.name,
                "digest": self.teacher.digest,
                "test_accuracy": verified.teacher_accuracy,
                "measured_ms": {
                    name: _milliseconds(latency.whole) if latency.whole else None
                    for name, latency in self.tables.teacher.items()
                },
            },
            "feasibility": [
                {
                    "target": found.target,
                    "limit_ms": found.limit_ns / 1e6,
                    "fastest_ms": _milliseconds(found.fastest_estimate),
                    "slowest_ms": _milliseconds(found.slowest_estimate),
                }
                for found in self.feasible.certificate.ranges
            ],
            "candidates": [describe(candidate) for candidate in self.searched.candidates],
            "winner": {
                "architecture": dict(self.winner.distilled.architecture.choices),
                "tried": len(self.winner.rejected) + 1,
                "test_accuracy": verified.student_accuracy,
                "targets": [
                    {
                        "target": name,
                        "feasible": verdict.feasible,
                        "why": verdict.why,
                        "budget": verdict.budget,
                        "test_accuracy": verdict.accuracy,
                        "measured_ms": _milliseconds(verdict.measurement.latency),
                        "verdict": verdict.measurement.verdict.value,
                        "ratio_to_reference": verdict.ratio.value if verdict.ratio else None,
                        "ratio_upper": verdict.ratio.high if verdict.ratio else None,
                        "artifact_digest": verdict.artifact_digest,
                        "parity_max_abs": self.winner.exported.parity[name].max_abs,
                    }
                    for name, verdict in verified.verdicts.items()
                ],
            },
            "report": str(self.report),
            "bundle": str(self.bundle),
            "stages": [
                {"name": record.name, "cached": record.cached, "seconds": record.seconds}
                for record in self.stages
            ],
        }


def run(recipe: Recipe, recipe_text: str, work: WorkFolder, db: str | None, reporter: Reporter) -> RunResult:
    """Run a recipe to the end; what an earlier run finished with the same inputs is not done again.

    Args:
        recipe: what to do.
        recipe_text: its source, for provenance.
        work: where stages are kept.
        db: URL or file of the latency database; the user's own if ``None``.
        reporter: is told what happens.

    Raises:
        LatheError: of the kind that says what went wrong; what was finished before stays finished.
    """
    with work.opened(), open_store(db) as store:
        context = Context(recipe, recipe_text, work, store, reporter)
        context.check_targets()
        data = prepare_data(context)
        teacher = prepare_teacher(context, data)
        task = Task(data, teacher, prepare_space(context, data))
        tables = build_tables(context, task)
        feasible = check_feasibility(context, task.space, tables)
        searched = search_students(context, task, feasible)
        winner = make_winner(context, task, feasible.reference, searched)
        findings = Findings(tables, feasible, searched, winner)
        report = write_report(context, task, findings)
        bundle = write_bundle_of(context, task, findings, report)
        return RunResult(
            recipe,
            data.summary,
            teacher.summary,
            tables,
            feasible,
            searched,
            winner,
            bundle / "report.html",
            bundle,
            tuple(work.records),
        )


def _milliseconds(value: Any) -> dict[str, float]:
    return {"low": value.low_ns / 1e6, "value": value.value_ns / 1e6, "high": value.high_ns / 1e6}
