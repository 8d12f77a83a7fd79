"""The main job: from a recipe to a verified bundle. Each line hands one value to the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latency_db.store import open_store
from pipeline.progress import Reporter
from pipeline.recipe.loading import Recipe
from pipeline.stages.context import Context
from pipeline.stages.handover import Findings, write_bundle_of, write_report
from pipeline.stages.inputs import DataSummary, TeacherSummary, prepare_data, prepare_teacher
from pipeline.stages.latency import Feasible, Tables, build_tables, check_feasibility, outlook_of
from pipeline.stages.method import searcher, space_of
from pipeline.stages.rounds import search_and_try
from pipeline.stages.search import Round, Searched, describe
from pipeline.stages.space import Task, describe_space
from pipeline.stages.winner import Winner, make_winner
from pipeline.work.folder import StageRecord, WorkFolder


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
                    "limit_ms": self.feasible.limits_ns[found.target] / 1e6,
                    "fastest_ms": _milliseconds(found.fastest_estimate),
                    "slowest_ms": _milliseconds(found.slowest_estimate),
                }
                for found in self.feasible.certificate.ranges
            ],
            "candidates": [describe(candidate, self.searched) for candidate in self.searched.candidates],
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
            "stages": _stages(self.stages),
        }


@dataclass(frozen=True)
class SearchResult:
    """What a run knows after its search; ``to_json`` is what ``lathe search --json`` prints."""

    recipe: Recipe
    feasible: Feasible
    searched: Searched
    stages: tuple[StageRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON document; latencies in milliseconds."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "limits_ms": {name: limit / 1e6 for name, limit in self.feasible.limits_ns.items()},
            "candidates": [describe(candidate, self.searched) for candidate in self.searched.candidates],
            "within_budget": [dict(architecture.choices) for architecture in self.searched.order],
            "stages": _stages(self.stages),
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
        task, tables, feasible = _prepare(context)
        searched, winner = search_and_try(
            context,
            outlook_of(context, task.space, feasible),
            search=searcher(context, task),
            attempt=lambda searched: make_winner(context, task, feasible.reference, searched),
        )
        findings = Findings(tables, feasible, searched, winner)
        report = write_report(context, task, findings)
        bundle = write_bundle_of(context, task, findings, report)
        return RunResult(
            recipe,
            task.data.summary,
            task.teacher.summary,
            tables,
            feasible,
            searched,
            winner,
            bundle / "report.html",
            bundle,
            tuple(work.records),
        )


def search(
    recipe: Recipe, recipe_text: str, work: WorkFolder, db: str | None, reporter: Reporter
) -> SearchResult:
    """Run a recipe up to its search, with the arguments and errors of ``run``, which goes on from there."""
    with work.opened(), open_store(db) as store:
        context = Context(recipe, recipe_text, work, store, reporter)
        task, _, feasible = _prepare(context)
        searched = searcher(context, task)(Round(outlook_of(context, task.space, feasible)))
        return SearchResult(recipe, feasible, searched, tuple(work.records))


def _prepare(context: Context) -> tuple[Task, Tables, Feasible]:
    """All that stands before a search."""
    context.check_targets()
    data = prepare_data(context)
    teacher = prepare_teacher(context, data)
    task = Task(data, teacher, space_of(context, data, teacher))
    describe_space(context, task.space)
    tables = build_tables(context, task)
    return task, tables, check_feasibility(context, task.space, tables.by_target)


def _milliseconds(value: Any) -> dict[str, float]:
    return {"low": value.low_ns / 1e6, "value": value.value_ns / 1e6, "high": value.high_ns / 1e6}


def _stages(records: tuple[StageRecord, ...]) -> list[dict[str, Any]]:
    return [{"name": each.name, "cached": each.cached, "seconds": each.seconds} for each in records]
