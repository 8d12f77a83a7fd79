"""What a search is asked and what it finds, whichever method searches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from devices.words import count_of
from latency_db.estimate import Estimate
from pipeline.search.base import Posterior, Score
from pipeline.search.journal import Candidate
from pipeline.spaces.base import Architecture
from pipeline.stages.latency.predictors import LatencyPredictors
from pipeline.stages.searching.learning import Learning
from pipeline.tables.building.networks import MeasuredNetwork

_SHORTLIST_ROUND = 4
"""Candidates measured whole at a time, best evaluated first, until enough keep their budgets."""


@dataclass(frozen=True)
class EvaluatedCandidate:
    """A candidate with its score, or the reason why it has none.

    Attributes:
        architecture: what was evaluated.
        score: in short; ``None`` if that failed.
        spread: one standard error of the score, if known.
        failure: why there is no score.
        estimates: latency by target, from the models at the end of the search.
        reevaluation: of the best ones, from other weights and on all images, if asked for.
        reevaluation_spread: one standard error of that, if known.
        ratings: what cheap evaluators say of it, by name.
        posterior: what its score is expected to be by all scores and ratings, if the strategy says so.
        fidelity: share of the training that the score is of.
        cheaper: smaller shares of it, with the scores after them.
    """

    architecture: Architecture
    score: float | None
    spread: float | None
    failure: str | None
    estimates: Mapping[str, Estimate]
    reevaluation: float | None = None
    reevaluation_spread: float | None = None
    ratings: Mapping[str, float] = field(default_factory=dict)
    posterior: Posterior | None = None
    fidelity: float = 1.0
    cheaper: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(
        cls,
        candidate: Candidate,
        again: Candidate | None,
        predictors: LatencyPredictors,
        *,
        ratings: Mapping[str, float] = MappingProxyType({}),
        posterior: Posterior | None = None,
        cheaper: Mapping[float, float] = MappingProxyType({}),
    ) -> EvaluatedCandidate:
        """A candidate with what is predicted of it, and perhaps evaluated again."""
        score, reevaluation = candidate.score, again.score if again else None
        return cls(
            candidate.architecture,
            score.value if score else None,
            score.spread if score else None,
            candidate.failure,
            predictors.estimates(candidate.architecture),
            reevaluation.value if reevaluation else None,
            reevaluation.spread if reevaluation else None,
            dict(ratings),
            posterior,
            candidate.fidelity,
            tuple(cheaper.items()),
        )

    @property
    def decided_by(self) -> Score | None:
        """The score that its rank rests on."""
        if self.reevaluation is not None:
            return Score(self.reevaluation, self.reevaluation_spread)
        return None if self.score is None else Score(self.score, self.spread)

    @property
    def candidate(self) -> Candidate:
        """As the search saw it."""
        score = None if self.score is None else Score(self.score, self.spread)
        return Candidate(self.architecture, score, self.failure, self.fidelity)


@dataclass(frozen=True)
class RatingWorth:
    """What a rating was worth.

    Attributes:
        name: of its evaluator.
        rated: candidates that it was asked for.
        failed: for how many of them it had no number, and why the first.
        trust: what it counts beside the scores, from 0; 1 if it puts candidates in the order of their scores.
        tau_without: ``Searched.tau`` without this rating.
    """

    name: str
    rated: int
    failed: int
    why: str
    trust: float
    tau_without: float | None = None


@dataclass(frozen=True)
class Searched:
    """All candidates, best first; those of them that were measured whole; the order in which to try.

    Attributes:
        candidates: every candidate that was evaluated or failed, those of earlier rounds as far as they are
            within the tighter limits; those evaluated again stand before the others.
        measured: whole-network measurements of the best candidates, with untrained weights, each beside what
            was predicted before.
        order: architectures to train in full, best first; none measured over a budget.
        evaluated_by: what a score is: accuracy on the validation slice, the loss of the blocks with a minus,
            or a number that only ranks.
        ratings: what cheap evaluators were worth to the strategy, where it looked at some.
        left_out: ratings that cannot look at this teacher, and why.
        tau: Kendall's tau between scores and what all but its own says of each; ``None`` where that is not
            known.
        could_grow: those in ``order`` of which a larger neighbour keeps the limits; ``None`` where nobody
            looked.
        size_tau: Kendall's tau between scores and shares of the limits that are used.
        no_time_for: evaluations that were wanted, and not begun because the time was over.
    """

    candidates: tuple[EvaluatedCandidate, ...]
    measured: tuple[MeasuredNetwork, ...]
    order: tuple[Architecture, ...]
    evaluated_by: Literal["accuracy", "loss", "number"] = "accuracy"
    ratings: tuple[RatingWorth, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    tau: float | None = None
    could_grow: tuple[Architecture, ...] | None = None
    size_tau: float | None = None
    no_time_for: int = 0

    def tied_with(self, architecture: Architecture) -> tuple[EvaluatedCandidate, ...]:
        """Others to try whose scores differ by less than the noise: nothing but chance prefers one of them.

        Only scores of one fidelity are compared.
        """
        mine = next((each for each in self.candidates if each.architecture == architecture), None)
        if mine is None or mine.decided_by is None:
            return ()
        return tuple(
            each
            for each in self.candidates
            if each is not mine
            and each.architecture in self.order
            and (each.reevaluation is None, each.fidelity) == (mine.reevaluation is None, mine.fidelity)
            and each.decided_by is not None
            and tied(mine.decided_by, each.decided_by)
        )


def worth_lines(searched: Searched) -> Iterator[str]:
    """How far the order of scores was known without each score itself, and what each rating was worth."""
    if searched.tau is not None:
        scores = sum(each.score is not None and each.fidelity == 1 for each in searched.candidates)
        yield (
            f"posterior: each score is predicted from the others with tau {searched.tau:.2f} "
            f"({count_of(scores, 'score')})"
        )
    for each in searched.ratings:
        failures = f"; {each.failed} failed ({each.why})" if each.failed else ""
        without = "" if each.tau_without is None else f", tau {each.tau_without:.2f} without it"
        rated = count_of(each.rated, "candidate")
        yield f"rating {each.name}: {rated}, trusted {each.trust:.2f}{without}{failures}"
    for name, why in searched.left_out.items():
        yield f"rating {name} left out: {why}"


def score_words(score: Score, evaluated_by: str) -> str:
    """A score, with one standard error where that is known."""
    if evaluated_by == "loss":
        return f"loss {-score.value:.4f}"
    if evaluated_by == "number":
        return f"{score.value:.4g}" + ("" if score.spread is None else f" ± {score.spread:.2g}")
    return f"{score.value:.2%}" + ("" if score.spread is None else f" ± {score.spread:.2%}")


def ratings_words(candidate: EvaluatedCandidate, evaluated_by: str) -> str:
    """Each with its name, and the scores of cheaper fidelities."""
    rated = [f"{name} {value:.4g}" for name, value in candidate.ratings.items()]
    for fidelity, value in candidate.cheaper:
        rated.append(score_words(Score(value), evaluated_by) + after_words(fidelity))
    return ", ".join(rated)


def after_words(fidelity: float) -> str:
    """What a score is of, where it is not of the whole training."""
    return "" if fidelity == 1 else f" after {fidelity:g} of the training"


def tied(one: Score, other: Score) -> bool:
    """Whether scores differ by less than their combined standard error, where that is known."""
    if one.spread is None or other.spread is None:
        return False
    return abs(one.value - other.value) < math.hypot(one.spread, other.spread)


def joined(again: Candidate, expected: Posterior | None) -> Candidate:
    """A candidate that was evaluated again, with what was expected of it weighed in by the inverse variances.

    A second score may be lucky, too. It stands alone where nothing was expected or its spread is not known.
    """
    score = again.score
    if score is None or expected is None or not score.spread or not expected.deviation:
        return again
    its, others = score.spread**-2, expected.deviation**-2
    value = (its * score.value + others * expected.mean) / (its + others)
    return replace(again, score=Score(value, (its + others) ** -0.5))


@dataclass(frozen=True)
class Round:
    """One search; a second one begins where the winners of the first broke their budgets.

    Attributes:
        predictors: what is known of latencies.
        number: 1 for the first.
        known: candidates of earlier rounds, which are not evaluated again.
        rejected: identities of architectures that broke a budget when they were verified.
        tries: how many candidates may be trained in full afterwards.
    """

    predictors: LatencyPredictors
    tries: int
    number: int = 1
    known: tuple[Candidate, ...] = ()
    rejected: frozenset[str] = frozenset()


def shortlist(learning: Learning, candidates: Sequence[Candidate], this: Round) -> list[Architecture]:
    """Measure candidates whole, some at a time, best first, until enough of them keep every budget.

    One whose measurement was disturbed has not failed: its artifact is measured again in any case.
    """
    hopeful = [
        each.architecture
        for each in candidates
        if each.score is not None and each.architecture.identity not in this.rejected
    ]
    order: list[Architecture] = []
    for start in range(0, len(hopeful), _SHORTLIST_ROUND):
        if len(order) >= this.tries:
            break
        group = hopeful[start : start + _SHORTLIST_ROUND]
        measured = learning.measure(group)
        for architecture in group:
            its_own = [each for each in measured if each.architecture == architecture]
            disturbed = {name for name, which in learning.disturbed if which == architecture}
            if learning.predictors.kept_by(its_own, disturbed):
                order.append(architecture)
    return order
