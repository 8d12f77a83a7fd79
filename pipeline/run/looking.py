"""How far earlier runs of a recipe have come, before anything is trained or measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from pipeline.progress import SilentReporter
from pipeline.run.context import Context
from pipeline.run.finalists import make_winner
from pipeline.run.missed_budgets import search_and_try
from pipeline.run.preparation import check_budgets, measure_blocks_of, prepare_task
from pipeline.run.searching import search_round
from pipeline.search.evaluators.workers import require_executor
from pipeline.stages.delivery.bundle import BundleInput, make_bundle
from pipeline.stages.delivery.report import Findings, ReportInput, write_report
from pipeline.stages.inputs.data import DataInput, DataSummary, prepare_data
from pipeline.stages.searching.known import known_before
from pipeline.stages.services import Services
from pipeline.work.stage import Stage, StageFolder

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")

PART_OF = {
    "teacher": "teacher",
    "cut": "teacher",
    "structures": "teacher",
    "importance": "teacher",
    "space": "table",
    "table": "table",
    "feasibility": "table",
    "scores": "search",
    "shared": "search",
    "supernet": "search",
    "proposals": "search",
    "known": "search",
    "search": "search",
    "rehearse": "distil",
    "mixtures": "distil",
    "distil": "distil",
    "export": "verify",
    "quantise": "verify",
    "compile": "verify",
    "verify": "verify",
    "report": "verify",
    "bundle": "verify",
}
"""Stages that are estimated together, under the name of the one that takes the most time."""


_DROPPED_BY = {
    **dict.fromkeys(
        ("teacher", "cut", "structures", "importance", "space"),
        ("scores", "shared", "supernet", "proposals", "search"),
    ),
    **dict.fromkeys(("table", "feasibility"), ("proposals", "search")),
    **dict.fromkeys(("scores", "shared", "supernet", "proposals"), ("search",)),
}
"""Where one of these is done anew, what was begun of those is of no use any more: they follow from it."""


@dataclass(frozen=True)
class Looked:
    """How far earlier runs of a recipe have come.

    Attributes:
        data: loaded if they were not.
        done: stages that are done.
        part: that the first open stage belongs to, one of the values of ``PART_OF``; ``None`` where all is
            done.
    """

    data: DataSummary
    done: tuple[str, ...]
    part: str | None


def look(context: Context) -> Looked:
    """Find where a run would begin, and whether what it needs from there on answers.

    A search that is done needs no executor.

    Raises:
        LatheError: of the kind of that which does not answer; the data cannot be read; or the recipe changed
            since something was interrupted that would be of no use any more.
    """
    looking = _Looking(context)
    data = looking.data()
    open_from = looking.first_open()
    if open_from is None:
        return Looked(data, tuple(looking.done), None)
    context.work.require_unchanged(_DROPPED_BY.get(open_from, ()))
    part = PART_OF[open_from]
    if part in {"teacher", "table", "search"}:
        require_executor(context.recipe.search.executor)
    return Looked(data, tuple(looking.done), part)


class _NotDone(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Looking(Context):
    """A run that reads what stages have left, and ends at the first that is not done; it changes nothing."""

    def __init__(self, context: Context) -> None:
        super().__init__(context.recipe, context.recipe_text, context.work, context.store, SilentReporter())
        self.done: list[str] = []

    def do(self, stage: Stage[I, Services, R], given: I) -> R:
        result = self.work.finished(stage, given)
        if result is None and stage.name == prepare_data.name:
            result = self.work.run(stage, given, self.services)
        if result is None and stage.name == known_before.name:
            # It takes no time, and is kept by the run alone: until then others may evaluate more.
            return stage.function(given, StageFolder(self.work.stages), self.services)
        if result is None:
            raise _NotDone(stage.name)
        if stage.name not in self.done:
            self.done.append(stage.name)
        return result

    def forget(self, stage: Stage[I, Services, R], given: I) -> None:
        """Take it for not done: the run will forget it."""
        raise _NotDone(stage.name)

    def data(self) -> DataSummary:
        """The data, loaded if they were not."""
        return self.do(prepare_data, DataInput.of(self.recipe.data, self.recipe.seed))

    def first_open(self) -> str | None:
        """Name of the first stage that is not done; the way of ``recipe_to_bundle.run`` is gone for it."""
        try:
            task = prepare_task(self)
            tables = measure_blocks_of(self, task)
            feasible, predictors = check_budgets(self, task, tables)
            searched, winner = search_and_try(
                self,
                predictors,
                search=partial(search_round, self, task),
                attempt=partial(make_winner, self, task, tables, feasible),
            )
            findings = Findings(task.plan, task.teacher, self.targets, tables, feasible, searched, winner)
            report = self.do(write_report, ReportInput(self.recipe.name, self.recipe_text, findings))
            self.do(make_bundle, BundleInput(self.recipe.name, self.recipe_text, task.data, findings, report))
        except _NotDone as reached:
            return reached.name
        return None
