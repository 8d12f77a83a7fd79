"""Which search a recipe's method does, and one round of it."""

from __future__ import annotations

from dataclasses import replace

from pipeline.recipe.ratings import ratings_of
from pipeline.run.context import Context
from pipeline.run.preparation import LearningTask
from pipeline.search.evaluators.registry import find_evaluator
from pipeline.stages.searching.candidates import Round, Searched
from pipeline.stages.searching.evaluation import Evaluation
from pipeline.stages.searching.known import KnownBefore, KnownInput, known_before
from pipeline.stages.searching.proposals import ProposalsInput, Proposed, propose_subgraphs
from pipeline.stages.searching.scores import ScoresInput, score_blocks
from pipeline.stages.searching.search import SearchInput, search_candidates
from pipeline.stages.searching.selection import SelectionInput, select_candidates
from pipeline.stages.searching.shared import train_shared
from pipeline.stages.searching.strategy import StrategySettings
from pipeline.stages.searching.supernet import SupernetInput, train_supernet


def search_round(context: Context, task: LearningTask, this: Round) -> Searched:
    """One round: candidates evaluated one by one, or networks selected by their blocks' scores.

    Raises:
        BudgetError: no member of the space can keep the budgets, as they are tightened in this round.
        WorkFolderError: a search of this recipe was interrupted, and the recipe changed since.
    """
    recipe = context.recipe
    if task.cut is not None:
        scored = ScoresInput(task.plan, task.cut, recipe.dna.training, recipe.seed, task.data)
        scores = context.do(score_blocks, scored)
        return context.do(
            select_candidates, SelectionInput(this, scores, recipe.search.evaluations, context.where)
        )
    shared = None if task.shared is None else context.do(train_shared, task.shared)
    evaluation = Evaluation.of(recipe, task.plan, task.data, task.teacher, shared)
    proposed = _proposed(context, task, this)
    strategy = StrategySettings.of(recipe, tuple(each.architecture for each in proposed))
    searched = search_by_evaluation(context, this, evaluation, strategy)
    for each in proposed:
        if searched.order[:1] == (each.architecture,):
            context.reporter.note(f"             the first to be trained was proposed by '{each.kind}'")
    return searched


def _proposed(context: Context, task: LearningTask, this: Round) -> tuple[Proposed, ...]:
    """Candidates to begin with, where the method has some."""
    if task.importance is None:
        return ()
    recipe = context.recipe
    subgraph = recipe.subgraph
    given = ProposalsInput(
        this.predictors,
        subgraph.proposals,
        subgraph.selection,
        task.importance,
        recipe.seed,
        task.data,
        task.teacher,
    )
    return context.do(propose_subgraphs, given).found


def search_by_evaluation(
    context: Context, this: Round, evaluation: Evaluation, strategy: StrategySettings
) -> Searched:
    """A round in which candidates are evaluated, beside those that searches under other budgets know."""
    before = KnownBefore()
    if this.number == 1:
        before = context.do(known_before, KnownInput(this, evaluation, strategy))
    reevaluated = context.recipe.search.reevaluated
    ratings = tuple(_rating(context, evaluation, name) for name in ratings_of(context.recipe))
    return context.do(
        search_candidates,
        SearchInput(
            this,
            evaluation,
            strategy,
            reevaluated,
            context.where,
            before,
            ratings,
            context.recipe.search.minutes,
        ),
    )


def _rating(context: Context, evaluation: Evaluation, name: str) -> Evaluation:
    """A cheap evaluator, with the weights that it shares between candidates, if it does."""
    rating = evaluation.by(name, context.recipe.search.supernet)
    if find_evaluator(name).train is None:
        return rating
    return replace(rating, shared=context.do(train_supernet, SupernetInput(rating)))
