"""Which candidates are not worth a training: those that exceed a relative budget before."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.budget import Budget
from pipeline.run.context import Context
from pipeline.run.preparation import LearningTask
from pipeline.spaces.base import Architecture
from pipeline.stages.latency.feasibility import Feasible
from pipeline.stages.latency.table import Tables
from pipeline.stages.latency.targets import BoundTarget
from pipeline.stages.student.rehearse import RehearsalInput, rehearse
from pipeline.stages.student.winner import Failure


def failed_rehearsal(
    context: Context, task: LearningTask, tables: Tables, feasible: Feasible, architecture: Architecture
) -> Failure | None:
    """Why not to train a candidate; ``None`` where it keeps its relative budgets more likely than not.

    A budget in milliseconds needs no rehearsal: the search knew its limit.
    """
    targets = tuple(each for each in context.targets if _is_rehearsed(context, tables, each))
    if not targets:
        return None
    budgets = {each.name: context.budgets[each.name] for each in targets}
    teachers = {
        each.name: tables.teacher_models[each.format.in_float]
        for each in targets
        if budgets[each.name].relative_to == "teacher"
    }
    given = RehearsalInput(
        task.plan,
        architecture,
        feasible.reference,
        teachers,
        targets,
        context.verification_protocol,
        context.where.exporters,
        budgets,
    )
    ratios = context.do(rehearse, given).ratios
    shares = {name: ratio.high / _allowed(budgets, name) for name, ratio in ratios.items()}
    reasons = [
        f"untrained, it takes {ratio} of the {budgets[name].reference_name}'s latency on {name}, more than "
        f"{budgets[name].words}"
        for name, ratio in ratios.items()
        if ratio.value > _allowed(budgets, name)
    ]
    return Failure(architecture, shares, "; ".join(reasons)) if reasons else None


def _is_rehearsed(context: Context, tables: Tables, target: BoundTarget) -> bool:
    """Whether its budget is relative to what can be measured, and an artifact as fast as its network.

    Where the fastest way to compile is chosen by measurement, an artifact may be faster.
    """
    budget = context.budgets[target.name]
    if budget.relative is None or budget.soft:
        return False
    if budget.relative_to == "teacher" and target.format.in_float not in tables.teacher_models:
        return False
    return target.is_int8 or context.recipe.compile.choose == "default"


def _allowed(budgets: Mapping[str, Budget], name: str) -> float:
    relative = budgets[name].relative
    assert relative is not None
    return relative
