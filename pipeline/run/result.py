"""What a finished run knows, and the documents that ``--json`` prints."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from devices.target import Target
from pipeline.bundle import comparable_name
from pipeline.distill.aggregation.result import FoundMixture
from pipeline.export.base import Format, format_of
from pipeline.recipe.loading import Recipe
from pipeline.spaces.base import Cost
from pipeline.stages.inputs.data import DataSummary
from pipeline.stages.inputs.teacher import TeacherSummary
from pipeline.stages.latency.feasibility import Feasible
from pipeline.stages.latency.table import Tables
from pipeline.stages.searching.candidates import EvaluatedCandidate, Searched
from pipeline.stages.searching.size import why_unused
from pipeline.stages.student.quantise import Quantised
from pipeline.stages.student.winner import Failure, Winner
from pipeline.target_verdict import Accuracy
from pipeline.teachers.ensemble import EnsembleFigures
from pipeline.work.folder import StageRecord


@dataclass(frozen=True)
class RunResult:
    """Everything a finished run knows; ``to_json`` is what ``lathe run --json`` prints.

    ``teacher_models`` are files of the teacher in the work folder, where it could be exported.
    """

    recipe: Recipe
    data: DataSummary
    teacher: TeacherSummary
    tables: Tables
    feasible: Feasible
    searched: Searched
    winner: Winner
    report: Path
    bundle: Path
    teacher_models: Mapping[Format, Path]
    stages: tuple[StageRecord, ...]

    @property
    def size(self) -> Cost:
        """Parameters and multiply-accumulates of the student."""
        return self.winner.size

    @property
    def tied(self) -> tuple[EvaluatedCandidate, ...]:
        """Candidates that nothing but the noise of the scores puts after the winner."""
        return self.searched.tied_with(self.winner.distilled.architecture)

    @property
    def why_unused(self) -> dict[str, str]:
        """Why the student takes less than its budgets, by target."""
        feasible = self.feasible
        architecture = self.winner.distilled.architecture
        return why_unused(self.searched, architecture, feasible.limits_ns, feasible.soft)

    def times_faster_than_teacher(self, target: str) -> float | None:
        """The teacher's latency over the student's: measured by one protocol, but not side by side."""
        whole = self.tables.teacher[target].whole
        student = self.winner.verified.verdicts[target].measurement.latency
        return None if whole is None else whole.value_ns / student.value_ns

    def comparison(self, target: str) -> str | None:
        """The command that measures teacher and student side by side on a target, if there is such a file."""
        fmt = format_of(Target.parse(target)).in_float
        if fmt not in self.teacher_models:
            return None
        models = (self.teacher_models[fmt], self.bundle / comparable_name(Target.parse(target), fmt.suffix))
        return shlex.join(["lathe", "compare", *map(str, models), "--target", target])

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON document; latencies in milliseconds."""
        verified = self.winner.verified
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "data": {
                "name": self.data.name,
                "digest": self.data.digest,
                "counts": list(self.data.counts),
                "task": self.data.task.kind,
                "metric": self.data.task.metric,
            },
            "teacher": {
                "name": self.teacher.name,
                "digest": self.teacher.digest,
                "parameters": self.teacher.parameters,
                "members": [
                    {"name": member.name, "validation_accuracy": member.validation_accuracy}
                    for member in self.teacher.members
                ],
                "ensemble": _ensemble(self.teacher.ensemble),
                "test_accuracy": verified.teacher_accuracy,
                "models": {fmt.value: str(path) for fmt, path in self.teacher_models.items()},
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
            "candidates": [_candidate(candidate, self.searched) for candidate in self.searched.candidates],
            "ratings": [asdict(each) for each in self.searched.ratings],
            "ratings_left_out": dict(self.searched.left_out),
            "tau": self.searched.tau,
            "winner": {
                "architecture": dict(self.winner.distilled.architecture.choices),
                "tried": len(self.winner.rejected) + len(self.winner.passed_over) + 1,
                "exceeded_a_budget": [_failure(each) for each in self.winner.rejected],
                "not_measured": [_failure(each) for each in self.winner.passed_over],
                "test_accuracy": verified.student_accuracy,
                "parameters": self.size.parameters,
                "macs": self.size.macs,
                "mixtures": [
                    [_mixture(group) for group in mixtures.groups]
                    for mixtures in self.winner.distilled.mixtures
                ],
                "within_noise_of": [dict(each.architecture.choices) for each in self.tied],
                "targets": [
                    {
                        "target": name,
                        "feasible": verdict.feasible,
                        "why": verdict.why,
                        "budget": asdict(verdict.budget) | {"words": verdict.budget.words}
                        if verdict.budget
                        else None,
                        "budget_used": verdict.used,
                        "budget_unused_because": self.why_unused.get(name),
                        "test_accuracy": verdict.accuracy.share if verdict.accuracy else None,
                        "measured_ms": _milliseconds(verdict.measurement.latency),
                        "verdict": verdict.measurement.verdict.value,
                        "ratio_to_reference": verdict.ratio.value if verdict.ratio else None,
                        "ratio_upper": verdict.ratio.high if verdict.ratio else None,
                        "times_faster_than_reference": verdict.ratio.inverse.value if verdict.ratio else None,
                        "times_faster_than_teacher": self.times_faster_than_teacher(name),
                        "size_bytes": self.winner.compiled[name].student.size_bytes,
                        "by_class": _by_class(self.data.classes, verdict.accuracy),
                        "artifact_digest": verdict.artifact_digest,
                        "int8": _int8(self.winner.quantised, name),
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
            "candidates": [_candidate(candidate, self.searched) for candidate in self.searched.candidates],
            "ratings": [asdict(each) for each in self.searched.ratings],
            "ratings_left_out": dict(self.searched.left_out),
            "tau": self.searched.tau,
            "within_budget": [dict(architecture.choices) for architecture in self.searched.order],
            "stages": _stages(self.stages),
        }


def _candidate(candidate: EvaluatedCandidate, searched: Searched) -> dict[str, Any]:
    """A candidate as JSON for people's tools."""
    measured = [each for each in searched.measured if each.architecture == candidate.architecture]
    return {
        "architecture": dict(candidate.architecture.choices),
        "score": candidate.score,
        "reevaluation": candidate.reevaluation,
        "reevaluation_spread": candidate.reevaluation_spread,
        "spread": candidate.spread,
        "failure": candidate.failure,
        "fidelity": candidate.fidelity,
        "cheaper": {f"{fidelity:g}": score for fidelity, score in candidate.cheaper},
        "ratings": dict(candidate.ratings),
        "posterior": None if candidate.posterior is None else asdict(candidate.posterior),
        "predicted_ms": {name: e.value_ns / 1e6 for name, e in candidate.estimates.items()},
        "predicted_lower_ms": {name: e.low_ns / 1e6 for name, e in candidate.estimates.items()},
        "predicted_upper_ms": {name: e.high_ns / 1e6 for name, e in candidate.estimates.items()},
        "measured_ms": {each.target: each.measured.value_ns / 1e6 for each in measured},
        "measured_upper_ms": {each.target: each.measured.high_ns / 1e6 for each in measured},
    }


def _by_class(classes: Sequence[str], accuracy: Accuracy | None) -> list[dict[str, Any]]:
    counts = () if accuracy is None else accuracy.by_class
    return [
        {"class": label, "correct": count.correct, "total": count.total}
        for label, count in zip(classes, counts, strict=False)
    ]


def _ensemble(figures: EnsembleFigures | None) -> dict[str, Any] | None:
    return None if figures is None else asdict(figures) | {"saturated": figures.saturated}


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        "architecture": dict(failure.architecture.choices),
        "budget_used": dict(failure.shares),
        "why": failure.why,
    }


def _mixture(group: FoundMixture) -> dict[str, Any]:
    return {
        "size": list(group.size),
        "student_layer": group.student_layer,
        "shares": dict(zip(group.teacher_layers, group.shares, strict=True)),
    }


def _int8(quantised: Quantised | None, target: str) -> dict[str, Any] | None:
    """Accuracies on the validation slice of a target in int8."""
    if quantised is None or target not in quantised.figures:
        return None
    fine_tuned = quantised.fine_tuned.get(target)
    return {
        "float_accuracy": quantised.float_accuracy,
        "post_training_accuracy": quantised.post_training[target].accuracy,
        "fine_tuned_accuracy": fine_tuned.accuracy if fine_tuned else None,
        "fine_tuning_epochs": len(quantised.history),
        "ships_fine_tuned": quantised.ships_fine_tuned,
        "agreement_with_float": quantised.figures[target].agreement,
    }


def _milliseconds(value: Any) -> dict[str, float]:
    return {"low": value.low_ns / 1e6, "value": value.value_ns / 1e6, "high": value.high_ns / 1e6}


def _stages(records: tuple[StageRecord, ...]) -> list[dict[str, Any]]:
    return [{"name": each.name, "cached": each.cached, "seconds": each.seconds} for each in records]
