"""From the order of the candidates to the winner: finalists trained in full, the best verified one."""

from __future__ import annotations

from devices.measurement import Verdict
from pipeline.acceptance import TargetVerdict
from pipeline.budget import Budget
from pipeline.run.context import Context
from pipeline.run.preparation import Task
from pipeline.spaces.base import Architecture
from pipeline.stages.candidates import Searched
from pipeline.stages.compile import Compiled, CompileInput, compile_student
from pipeline.stages.distil import DistilInput, Distilled, distil_student
from pipeline.stages.export import Exported, ExportInput, export_student
from pipeline.stages.targets import BoundTarget
from pipeline.stages.verify import Verified, VerifyInput, verify_student
from pipeline.stages.winner import Failure, Winner


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
        students = [_distilled(context, task, architecture) for architecture in finalists]
        for student in sorted(students, key=_validation_accuracy, reverse=True):
            exported = _exported(context, task, student, reference)
            compiled = {each.name: _compiled(context, exported, each) for each in context.targets}
            verified = _verified(context, task, student, compiled)
            if verified.acceptable:
                winner = Winner(student, exported, compiled, verified, tuple(rejected))
                return winner, winner.rejected
            rejected.append(_failure(student.architecture, verified))
            context.reporter.note(
                f"             not feasible, trying the next candidate: {student.architecture}"
            )
    return None, tuple(rejected)


def _distilled(context: Context, task: Task, architecture: Architecture) -> Distilled:
    recipe = context.recipe
    teacher = task.teacher if recipe.distil.needs_teacher else None
    given = DistilInput(task.plan, architecture, recipe.distil, recipe.seed, task.data, teacher)
    return context.do(distil_student, given)


def _exported(context: Context, task: Task, student: Distilled, reference: Architecture) -> Exported:
    where = context.where
    return context.do(
        export_student,
        ExportInput(
            task.plan,
            student.architecture,
            student.weights,
            reference,
            where.targets,
            where.exporters,
            context.recipe.export,
            task.data,
        ),
    )


def _compiled(context: Context, exported: Exported, target: BoundTarget) -> Compiled:
    fmt = target.format
    return context.do(compile_student, CompileInput(exported.students[fmt], exported.references[fmt], target))


def _verified(context: Context, task: Task, student: Distilled, compiled: dict[str, Compiled]) -> Verified:
    return context.do(
        verify_student,
        VerifyInput(
            compiled,
            context.targets,
            context.verification_protocol,
            context.budgets,
            task.plan,
            student.architecture,
            student.weights,
            task.data,
            task.teacher,
        ),
    )


def _validation_accuracy(student: Distilled) -> float:
    return student.validation_accuracy


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
