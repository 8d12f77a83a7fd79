"""The main job: from a recipe to a verified bundle. Each line hands values to the next."""

from __future__ import annotations

from functools import partial

from latency_db.store import open_store
from pipeline.bundle import publish
from pipeline.progress import Reporter
from pipeline.recipe.beginnings import deciding
from pipeline.recipe.loading import Recipe
from pipeline.run.context import Context
from pipeline.run.finalists import make_winner
from pipeline.run.forecast import Forecast, forecast
from pipeline.run.looking import look
from pipeline.run.missed_budgets import search_and_try
from pipeline.run.preparation import check_budgets, measure_blocks_of, prepare_task
from pipeline.run.result import RunResult, SearchResult
from pipeline.run.searching import search_round
from pipeline.stages.delivery.bundle import BundleInput, make_bundle
from pipeline.stages.delivery.report import Findings, ReportInput, write_report
from pipeline.stages.searching.candidates import Round
from pipeline.work.folder import WorkFolder


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
    with work.opened(deciding(recipe)), open_store(db) as store:
        context = Context(recipe, recipe_text, work, store, reporter)
        targets = context.targets
        with reporter.task("estimating the run", ""):
            estimated = forecast(context, look(context))
        for line in estimated.lines():
            reporter.note(line)
        task = prepare_task(context)
        tables = measure_blocks_of(context, task)
        feasible, predictors = check_budgets(context, task, tables)
        searched, winner = search_and_try(
            context,
            predictors,
            search=partial(search_round, context, task),
            attempt=partial(make_winner, context, task, tables, feasible),
        )
        findings = Findings(task.plan, task.teacher, targets, tables, feasible, searched, winner)
        report = context.do(write_report, ReportInput(recipe.name, recipe_text, findings))
        made = context.do(make_bundle, BundleInput(recipe.name, recipe_text, task.data, findings, report))
        bundle = publish(work.find(made.manifest).parent, recipe.name, work.path / "bundles")
        return RunResult(
            recipe,
            task.data,
            task.teacher,
            tables,
            feasible,
            searched,
            winner,
            bundle / "report.html",
            bundle,
            {fmt: work.find(file) for fmt, file in tables.teacher_models.items()},
            tuple(work.records),
        )


def foresee(
    recipe: Recipe, recipe_text: str, work: WorkFolder, db: str | None, reporter: Reporter
) -> Forecast:
    """What ``run`` with these arguments would still do, and how long that may take; nothing is trained or
    measured, and the arguments and errors are those of ``run``.
    """
    with work.opened(deciding(recipe)), open_store(db) as store:
        context = Context(recipe, recipe_text, work, store, reporter)
        with reporter.task("estimating the run", ""):
            return forecast(context, look(context))


def search(
    recipe: Recipe, recipe_text: str, work: WorkFolder, db: str | None, reporter: Reporter
) -> SearchResult:
    """Run a recipe up to its search, with the arguments and errors of ``run``, which goes on from there."""
    with work.opened(deciding(recipe)), open_store(db) as store:
        context = Context(recipe, recipe_text, work, store, reporter)
        look(context)
        task = prepare_task(context)
        feasible, predictors = check_budgets(context, task, measure_blocks_of(context, task))
        searched = search_round(context, task, Round(predictors, context.tries))
        return SearchResult(recipe, feasible, searched, tuple(work.records))
