"""From the order of the candidates to the winner: finalists trained in full, the best verified one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from devices.measurement import Verdict
from pipeline.acceptance import TargetVerdict
from pipeline.budget import Budget
from pipeline.spaces.base import Architecture
from pipeline.stages.context import Context
from pipeline.stages.rounds import Failure
from pipeline.stages.search import Searched
from pipeline.stages.space import Task
from pipeline.stages.student import (
    Compiled,
    Distilled,
    Exported,
    Trained,
    Verified,
    compile_for,
    distil,
    export,
    verify,
)


@dataclass(frozen=True)
class Winner:
    """A student with everything that was made of it; ``rejected`` are candidates tried before it."""

    distilled: Distilled
    exported: Exported
    compiled: Mapping[str, Compiled]
    verified: Verified
    rejected: tuple[Failure, ...]


def make_winner(
    context: Context, task: Task, reference: Architecture, searched: Searched
) -> tuple[Winner | None, tuple[Failure, ...]]:
    """Train as many candidates as are finalists, verify the best of them first; then the next ones.

    Finalists are compared on the validation slice: the test split is for the report alone.

    Returns:
        The winner, if a candidate keeps every budget, and the candidates that were tried before.

    Raises:
        ParityError: an exported student differs from torch beyond the tolerance.
    """
    rejected = list[Failure]()
    waiting = searched.order[: context.tries]
    while waiting:
        finalists = waiting[: context.recipe.search.finalists]
        waiting = waiting[len(finalists) :]
        students = [distil(context, task, architecture) for architecture in finalists]
        for student in sorted(students, key=_validation_accuracy, reverse=True):
            exported = export(context, task, student, reference)
            compiled = {str(target): compile_for(context, exported, target) for target in context.budgets}
            verified = verify(context, task, student, compiled)
            if verified.acceptable:
                winner = Winner(student.distilled, exported, compiled, verified, tuple(rejected))
                return winner, winner.rejected
            architecture = student.distilled.architecture
            rejected.append(_failure(architecture, verified))
            context.reporter.note(f"             not feasible, trying the next candidate: {architecture}")
    return None, tuple(rejected)


def _validation_accuracy(student: Trained) -> float:
    return student.distilled.validation_accuracy


def _failure(architecture: Architecture, verified: Verified) -> Failure:
    verdicts = verified.verdicts
    shares = {name: share for name, verdict in verdicts.items() if (share := _share(verdict)) is not None}
    why = "; ".join(verdict.why for verdict in verdicts.values() if not verdict.acceptable)
    return Failure(architecture, shares, why)


def _share(verdict: TargetVerdict) -> float | None:
    """The measured upper end over the limit; ``None`` if nothing was measured that can be compared."""
    budget = Budget.parse(verdict.budget)
    if verdict.measurement.verdict is Verdict.INVALID:
        return None
    if budget.limit_ns is not None:
        return verdict.measurement.latency.high_ns / budget.limit_ns
    return verdict.ratio.high / budget.relative if verdict.ratio and budget.relative else None
