"""Stage ``search``: candidates within the budgets, evaluated in short; the best of them measured whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from devices.words import count_of
from pipeline.search.base import (
    Evaluator,
    FidelityStrategy,
    Posterior,
    RankingStrategy,
    Score,
    TrustingStrategy,
)
from pipeline.search.evaluated_before import PastEvaluation
from pipeline.search.evaluators.workers import MakePool, Workers
from pipeline.search.journal import Candidate, Journal
from pipeline.search.loop import search
from pipeline.search.rewards import hard_reward
from pipeline.search.strategies.base import ConstrainedStrategy
from pipeline.spaces.base import Architecture
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.searching.candidates import (
    EvaluatedCandidate,
    RatingWorth,
    Round,
    Searched,
    after_words,
    joined,
    shortlist,
    tied,
    worth_lines,
)
from pipeline.stages.searching.clock import Clock
from pipeline.stages.searching.evaluation import Evaluation
from pipeline.stages.searching.known import KnownBefore, drawer_of, evaluator_of
from pipeline.stages.searching.learning import Learning, MeasuredOn
from pipeline.stages.searching.ratings import Rating, Ratings, affordable
from pipeline.stages.searching.size import size_tau
from pipeline.stages.searching.strategy import StrategySettings, strategy_of
from pipeline.stages.services import Services
from pipeline.work.stage import StageFolder, stage

_MOST_TIES = 4
"""Candidates evaluated again because nothing but noise tells them apart."""


@dataclass(frozen=True)
class SearchInput:
    """One round of a search.

    Attributes:
        this: the round.
        evaluation: how candidates are evaluated.
        strategy: who proposes them.
        ratings: what the strategy is told of every candidate that it thinks of, by cheap evaluators.
        minutes: after which no more candidates are begun, nor the best evaluated again; those of processes
            that were killed count.
        reevaluated: how many of the best are evaluated again, closer; or ``ties``, those that are within the
            noise of the best.
        where: the best are measured whole.
        before: candidates of searches under other budgets.
    """

    this: Round
    evaluation: Evaluation
    strategy: StrategySettings
    reevaluated: int | Literal["ties"]
    where: MeasuredOn
    before: KnownBefore = field(default_factory=KnownBefore)
    ratings: tuple[Evaluation, ...] = ()
    minutes: float | None = None

    @property
    def evaluations(self) -> int:
        """How many candidates are to be evaluated; those known stand for as many."""
        return self.strategy.evaluations - self.before.drawn_as_freely


def _told(given: SearchInput, value: Searched) -> Sequence[str]:
    failed = sum(candidate.score is None for candidate in value.candidates)
    first = value.candidates[0]
    best = first.decided_by or Score(0.0)
    error = "" if best.spread is None else f" ± {best.spread:.2%}"
    shown = f"score {best.value:.4g}"
    if value.evaluated_by == "accuracy":
        shown = f"{given.evaluation.data.task.shown(best.value)}{error} on the validation slice"
    shown += after_words(first.fidelity)
    past = {each.architecture for each in (*given.before.candidates, *given.this.known)}
    known = sum(candidate.architecture in past for candidate in value.candidates)
    evaluated = f"{count_of(len(value.candidates) - known, 'candidate')} evaluated, {failed} failed"
    if len(given.strategy.fidelities) > 1:
        whole = sum(each.fidelity == 1 for each in value.candidates)
        evaluated += f", {whole} by the whole training"
    lines = [
        f"search       {evaluated}{f', {known} known before' if known else ''}; best {shown}; "
        f"{len(value.order)} of those measured go on"
    ]
    if value.no_time_for:
        left = f"{value.no_time_for} of {given.evaluations}"
        lines.append(f"             {given.minutes:g} minutes left no time for {left}")
    lines += [f"             {line}" for line in worth_lines(value)]
    return lines


def _begun(given: SearchInput) -> SearchInput:
    """All but what decides only when candidates are enough, and what is done with them then."""
    return replace(
        given,
        this=replace(given.this, tries=0),
        strategy=given.strategy.begun(),
        reevaluated=0,
        minutes=None,
    )


@stage("search", packages=("torch", "pymoo"), resumes=True, tell=_told, begun=_begun)
def search_candidates(given: SearchInput, folder: StageFolder, services: Services) -> Searched:
    """Evaluate candidates drawn under the upper end of their estimated latency, and put them in order.

    Raises:
        BudgetError: no member of the space can keep the budgets, as they are tightened in this round.
    """
    this, clock = given.this, Clock(folder / "seconds.json")
    learning = Learning(services, given.where, this.predictors, folder)
    memory = _Memory(given, services)
    evaluators = {each: memory.evaluator(each, folder) for each in given.strategy.fidelities}
    wanted = [Rating(each, folder, services.evaluated) for each in given.ratings]
    ratings = Ratings(wanted, this.predictors.space.reference())
    rated = affordable(given.ratings, given.evaluation.at(given.strategy.fidelities[0]))
    strategy = strategy_of(given.strategy, learning.predictors, this.number, ratings, rated)
    strategy.pass_over(each.architecture for each in given.before.candidates)
    fresh = list[Candidate]()
    if given.evaluations > 0:
        fresh = _searched(
            given,
            strategy,
            evaluators,
            learning,
            memory,
            ratings=ratings,
            clock=clock,
            folder=folder,
            services=services,
        )
    over = given.minutes is not None and clock.seconds() >= 60 * given.minutes
    past = (*given.before.candidates, *this.known)
    within = [each for each in past if this.predictors.constraints.feasible(each.architecture)]
    every, cheaper = _dearest((*within, *fresh))
    ranked = _ranked(given, learning.predictors, list(every.values()))
    if isinstance(strategy, RankingStrategy):
        _teach(strategy, [each for each in within if each.fidelity == 1 and each not in fresh])
        ranked = _ranked_by(strategy, ranked)
    count = _ties(ranked) if given.reevaluated == "ties" else given.reevaluated
    if over:
        count = 0
    best, rest = ranked[:count], ranked[count:]
    again: dict[Architecture, Candidate] = {}
    if best:
        closer = Known(given.evaluation.evaluator(folder, 1), memory.scores(1, 1.0))
        architectures = [each.architecture for each in best]
        reevaluations = _evaluated_again(
            closer, architectures, folder / "again.jsonl", services.pool, given.strategy.ahead
        )
        for each in reevaluations:
            memory.add(each, 1)
        again = {each.architecture: each for each in reevaluations}
        expected = _posterior(strategy, reevaluations)
        weighed = [joined(each, expected.get(each.architecture)) for each in reevaluations]
        best = [again[each.architecture] for each in _ranked(given, learning.predictors, weighed)]
    ranked = [*best, *rest]
    order = shortlist(learning, ranked, this)
    constraints = learning.predictors.constraints
    posterior = _posterior(strategy, ranked)
    tau, worth = ratings.worth(strategy)
    worth += _worth_of_fidelities(strategy, fresh)
    return Searched(
        tuple(
            EvaluatedCandidate.of(
                every[each.architecture],
                again.get(each.architecture),
                learning.predictors,
                ratings=ratings.known(each.architecture),
                posterior=posterior.get(each.architecture),
                cheaper=cheaper.get(each.architecture, {}),
            )
            for each in ranked
        ),
        tuple(learning.measured.values()),
        tuple(order),
        evaluated_by=given.evaluation.score,
        ratings=worth,
        left_out=ratings.left_out,
        tau=tau,
        could_grow=tuple(filter(constraints.can_grow, order)),
        size_tau=size_tau(constraints, [each for each in ranked if each.fidelity == 1]),
        no_time_for=max(0, math.ceil(given.evaluations - sum(each.fidelity for each in fresh)))
        if over
        else 0,
    )


def _dearest(
    candidates: Sequence[Candidate],
) -> tuple[dict[Architecture, Candidate], dict[Architecture, dict[float, float]]]:
    """Of each architecture, the dearest candidate, and scores of cheaper fidelities by these."""
    every: dict[Architecture, Candidate] = {}
    scores: dict[Architecture, dict[float, float]] = {}
    for each in candidates:
        before = every.get(each.architecture)
        if before is None or each.fidelity >= before.fidelity:
            every[each.architecture] = each
        if each.score is not None:
            scores.setdefault(each.architecture, {})[each.fidelity] = each.score.value
    cheaper = {
        architecture: {share: value for share, value in its.items() if share < every[architecture].fidelity}
        for architecture, its in scores.items()
    }
    return every, cheaper


def _worth_of_fidelities(
    strategy: ConstrainedStrategy, candidates: Sequence[Candidate]
) -> tuple[RatingWorth, ...]:
    """What each fidelity but the dearest was worth as a rating, where the strategy chose among some."""
    if not isinstance(strategy, FidelityStrategy):
        return ()
    found = []
    for fidelity, trust, without in strategy.worth_of_fidelities():
        its = [each for each in candidates if each.fidelity == fidelity]
        failures = [each.failure for each in its if each.failure is not None]
        name = f"{fidelity:g} of the training"
        why = next(iter(failures), "")
        found.append(RatingWorth(name, len(its), len(failures), why, trust, without))
    return tuple(found)


def _teach(strategy: ConstrainedStrategy, candidates: Sequence[Candidate]) -> None:
    """Tell a strategy that ranks of scores that it never asked for."""
    for each in candidates:
        if each.score is not None:
            strategy.know(each.architecture, each.score)


def _posterior(
    strategy: ConstrainedStrategy, candidates: Sequence[Candidate]
) -> Mapping[Architecture, Posterior]:
    """By architecture, of those that did not fail, where the strategy has one."""
    if not isinstance(strategy, TrustingStrategy):
        return {}
    scored = [each.architecture for each in candidates if each.score is not None]
    return dict(zip(scored, strategy.posterior(scored), strict=False))


def _ties(ranked: Sequence[Candidate]) -> int:
    """How many of the best are worth a closer look; none where the best stands alone."""
    first, count = ranked[0].score if ranked else None, 0
    for candidate in ranked[:_MOST_TIES]:
        if first is None or candidate.score is None or not tied(first, candidate.score):
            break
        count += 1
    return count if count > 1 else 0


class Known:
    """An evaluator that knows some scores already."""

    def __init__(self, evaluator: Evaluator, scores: Mapping[Architecture, Score]) -> None:
        self._evaluator, self._scores = evaluator, scores

    def evaluate(self, architecture: Architecture) -> Score:
        """The score known, else the evaluator's."""
        return self._scores.get(architecture) or self._evaluator.evaluate(architecture)


class _Memory:
    """What the evaluator of a search gave in any search, and what it gives now, for later ones."""

    def __init__(self, given: SearchInput, services: Services) -> None:
        self._given, self._evaluated = given, services.evaluated
        self._evaluations = {each: given.evaluation.at(each) for each in given.strategy.fidelities}
        self._drawn_by = drawer_of(given.this, given.strategy)
        self._limits_ns = given.this.predictors.constraints.limits_ns
        self._names = {each: evaluator_of(its) for each, its in self._evaluations.items()}
        self._past = {each: self._evaluated.of(name) for each, name in self._names.items()}

    def evaluator(self, fidelity: float, folder: StageFolder) -> Evaluator:
        """That of a fidelity, which knows what was evaluated before."""
        mine = [each for each in self._given.this.known if each.fidelity == fidelity]
        known = {each.architecture: each.score for each in mine if each.score is not None}
        evaluator = self._evaluations[fidelity].evaluator(folder, 0)
        return Known(evaluator, self.scores(0, fidelity) | known)

    def scores(self, level: int, fidelity: float) -> dict[Architecture, Score]:
        """By architecture."""
        found = (past.candidate for past in self._past[fidelity] if past.level == level)
        return {each.architecture: each.score for each in found if each.score is not None}

    def add(self, candidate: Candidate, level: int) -> None:
        """Remember a score; a failure may pass."""
        past = PastEvaluation(candidate, level, self._drawn_by, self._limits_ns)
        if candidate.score is not None and past not in self._past[candidate.fidelity]:
            self._evaluated.add(self._names[candidate.fidelity], past)
            self._past[candidate.fidelity].append(past)


def _searched(
    given: SearchInput,
    strategy: ConstrainedStrategy,
    evaluators: Mapping[float, Evaluator],
    learning: Learning,
    memory: _Memory,
    *,
    ratings: Ratings,
    clock: Clock,
    folder: StageFolder,
    services: Services,
) -> list[Candidate]:
    """The candidates of a search, in the order in which they were asked for.

    Every ``measure_every`` candidates the models learn, and the search goes on under the new ones, as long as
    by them any network keeps the budgets: else measuring decides in the end.
    """
    settings = given.strategy
    found: list[Candidate] = []
    learned_at = 0
    with ExitStack() as shown:
        advance = shown.enter_context(services.reporter.task("scoring candidates", "candidates"))

        def on_rated(count: int) -> None:
            advance.also = f"{count} rated"

        ratings.on_rated = on_rated

        def on_candidate(done: int, total: int, candidate: Candidate) -> None:
            nonlocal advance, learned_at
            advance(done, total)
            found.append(candidate)
            memory.add(candidate, 0)
            clock.keep()
            if done - learned_at >= settings.measure_every and done < total:
                learned_at = done
                shown.close()
                learning.learn(found)
                if learning.predictors.constraints.certificate.reachable:
                    strategy.constraints = learning.predictors.constraints
                advance = shown.enter_context(services.reporter.task("scoring candidates", "candidates"))

        return search(
            strategy,
            evaluators[1.0],
            given.evaluations,
            folder / "journal.jsonl",
            on_progress=on_candidate,
            pool=services.pool,
            ahead=settings.ahead,
            cheaper={fidelity: each for fidelity, each in evaluators.items() if fidelity < 1},
            enough=lambda: given.minutes is not None and clock.seconds() >= 60 * given.minutes,
        )


def _ranked(
    given: SearchInput, predictors: LatencyPredictors, candidates: Sequence[Candidate]
) -> list[Candidate]:
    """The best first: by the score, and by the latency where a budget is soft; failures last."""
    reward = predictors.reward(given.strategy.exponent, everywhere=False) or hard_reward

    def merit(candidate: Candidate) -> float:
        return -math.inf if candidate.score is None else reward(candidate.architecture, candidate.score)

    return sorted(candidates, key=merit, reverse=True)


def _ranked_by(strategy: RankingStrategy, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best first as the strategy holds them, and not by the luckiest score; failures last."""
    scored = {each.architecture: each for each in candidates if each.score is not None}
    failed = [each for each in candidates if each.score is None]
    return [*(scored[architecture] for architecture in strategy.ranking(list(scored))), *failed]


def _evaluated_again(
    evaluator: Evaluator, architectures: Sequence[Architecture], journal: Path, pool: MakePool, ahead: int
) -> list[Candidate]:
    """Evaluate these in order; what the journal holds is not evaluated again."""
    workers = Workers(pool, evaluator)
    try:
        written = Journal(journal)
        known = {past.architecture: past for past in written.past}
        lacking = [each for each in architectures if each not in known]
        for index, architecture in enumerate(lacking):
            for each in lacking[index : index + ahead]:
                workers.start(each)
            known[architecture] = workers.finish(architecture)
            written.append(known[architecture])
    finally:
        workers.close()
    return [known[architecture] for architecture in architectures]
