"""What is refused before a search, and what the next run does about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devices.measurement import Interval
from latency_db.estimate import Estimate
from latency_db.tables import LatencyTable
from pipeline.errors import BudgetError
from pipeline.run import looking
from pipeline.run.preparation import LearningTask, check_budgets
from pipeline.search.budgets.feasibility import Feasibility, TargetRange
from pipeline.stages.latency.feasibility import Feasible
from pipeline.stages.latency.table import Tables
from pipeline.stages.latency.teacher_parts import TeacherLatency
from tests.pipeline.run.made_up_run import MEMBERS, SPACE_PLAN, TARGET, made_up_context, recipe_of


def feasible(estimate: Estimate, limit_ns: float) -> Feasible:
    """The fastest network is estimated like this."""
    fastest = TargetRange(str(TARGET), limit_ns, MEMBERS[0], estimate, MEMBERS[-1], estimate)
    ratio = estimate.high_ns / limit_ns
    certificate = Feasibility((fastest,), MEMBERS[0], (estimate,), ratio, ratio, True)
    return Feasible({}, {str(TARGET): limit_ns}, frozenset(), MEMBERS[-1], certificate, ())


NOTHING: Any = None
TASK = LearningTask(NOTHING, NOTHING, SPACE_PLAN)


def tables_with(disturbed: tuple[str, ...]) -> Tables:
    block = Interval(1000, 1000, 1000, 0.95)
    return Tables({str(TARGET): LatencyTable(TARGET, {"block": block}, {}, disturbed=disturbed)}, {}, {})


def checked(folder: Path, estimate: Estimate, disturbed: tuple[str, ...]) -> tuple[BudgetError, list[str]]:
    """The error under a budget of 0.002 ms, and the stages that the next run does again."""
    forgotten = []
    with made_up_context(folder, recipe_of("0.002ms")) as context:
        context.do = lambda stage, given: feasible(estimate, 2000)  # type: ignore[method-assign]
        context.work.forget = lambda stage, given: forgotten.append(stage.name)  # type: ignore[method-assign]
        with pytest.raises(BudgetError) as caught:
            check_budgets(context, TASK, tables_with(disturbed))
    return caught.value, forgotten


def test_a_budget_inside_an_interval_that_a_disturbance_made_wide_is_measured_again(tmp_path: Path) -> None:
    error, forgotten = checked(tmp_path, Estimate(500, 1500, 3000, 0.9), ("block",))
    assert error.what == "it cannot be told whether a network of the space keeps the budgets"
    assert "disturbed 1 measurement" in error.why
    assert error.fix.startswith("run again when the machine is quiet")
    assert "budget_ms = 0.003" in error.fix
    assert forgotten == ["table", "feasibility"]


@pytest.mark.parametrize(
    ("estimate", "disturbed"),
    [(Estimate(500, 1500, 3000, 0.9), ()), (Estimate(500, 2500, 3000, 0.9), ("block",))],
)
def test_a_budget_that_quiet_would_not_help_is_refused_as_it_is(
    tmp_path: Path, estimate: Estimate, disturbed: tuple[str, ...]
) -> None:
    error, forgotten = checked(tmp_path, estimate, disturbed)
    assert error.what.startswith("No network of the space keeps the budget of 0.0020 ms")
    assert forgotten == []


def test_a_teacher_that_was_disturbed_is_measured_again_where_a_budget_refers_to_it(tmp_path: Path) -> None:
    whole = Interval(8000, 8000, 12_000, 0.95)
    forgotten = []
    with made_up_context(tmp_path, recipe_of("0.25x teacher")) as context:
        found = feasible(Estimate(500, 1500, 3000, 0.9), 2000)
        context.do = lambda stage, given: found  # type: ignore[method-assign]
        context.work.forget = lambda stage, given: forgotten.append(stage.name)  # type: ignore[method-assign]
        for disturbed in (False, True):
            latency = TeacherLatency(whole, (), disturbed=disturbed)
            with pytest.raises(BudgetError) as caught:
                check_budgets(context, TASK, replace(tables_with(()), teacher={str(TARGET): latency}))
    assert "disturbed 1 measurement" in caught.value.why
    assert forgotten == ["table", "feasibility"]


@pytest.mark.parametrize(
    ("missing", "what", "fix"),
    [
        (("whole network",), "it is not known yet what the budget of 0.25x of the teacher", "run again"),
        ((), "the budget of 0.25x of the teacher", "give a budget of the reference network"),
    ],
)
def test_a_teacher_without_a_latency_is_measured_again_or_another_budget_is_asked_for(
    tmp_path: Path, missing: tuple[str, ...], what: str, fix: str
) -> None:
    tables = replace(tables_with(()), teacher={str(TARGET): TeacherLatency(None, (), missing)})
    recipe = recipe_of("0.25x teacher")
    with made_up_context(tmp_path, recipe) as context, pytest.raises(BudgetError) as caught:
        check_budgets(context, TASK, tables)
    assert caught.value.what.startswith(what)
    assert caught.value.fix.startswith(fix)


def test_who_only_looks_forgets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run finds that the table will be measured again, and leaves it as it is."""
    forgotten: list[str] = []
    monkeypatch.setattr(looking, "prepare_task", lambda context: TASK)
    monkeypatch.setattr(looking, "measure_blocks_of", lambda context, task: tables_with(("block",)))
    with made_up_context(tmp_path, recipe_of("0.002ms")) as context:
        found = feasible(Estimate(500, 1500, 3000, 0.9), 2000)
        context.work.finished = lambda stage, given: found  # type: ignore[method-assign]
        context.work.forget = lambda stage, given: forgotten.append(stage.name)  # type: ignore[method-assign]
        assert looking.look(context).part == "table"
    assert forgotten == []
