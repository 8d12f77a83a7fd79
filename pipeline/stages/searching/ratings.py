"""Ratings of candidates by cheap evaluators, each made once and kept for later searches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

from devices.errors import LatheError
from pipeline.recipe.ratings import rated_for_each
from pipeline.search.base import Evaluator, Score, Strategy, TrustingStrategy
from pipeline.search.evaluated_before import EvaluatedBefore, PastEvaluation
from pipeline.search.evaluators.registry import SHORT_TRAINING
from pipeline.search.evaluators.workers import evaluated
from pipeline.search.journal import Candidate, Journal
from pipeline.spaces.base import Architecture
from pipeline.stages.searching.candidates import RatingWorth
from pipeline.stages.searching.evaluation import Evaluation
from pipeline.stages.searching.known import evaluator_of
from pipeline.work.stage import StageFolder


class _Refusing:
    """An evaluator, made when it is first asked, and what it said if a user could mend that it failed."""

    def __init__(self, make: Callable[[], Evaluator]) -> None:
        self._make = make
        self.refused: LatheError | None = None

    @cached_property
    def _evaluator(self) -> Evaluator:
        return self._make()

    def evaluate(self, architecture: Architecture) -> Score:
        try:
            return self._evaluator.evaluate(architecture)
        except LatheError as error:
            self.refused = error
            raise


class Rating:
    """What one evaluator says; not a number where it fails.

    Where it failed it is not asked again, also after a kill: what a search asks for next follows from it.
    What it refuses it refuses again.

    Args:
        evaluation: by a cheap evaluator.
        folder: of the stage that asks.
        kept: ratings of earlier searches, and where these are kept.
    """

    def __init__(self, evaluation: Evaluation, folder: StageFolder, kept: EvaluatedBefore) -> None:
        self._evaluation, self._kept = evaluation, kept
        self._evaluator = _Refusing(lambda: evaluation.evaluator(folder, 0))
        self._name = evaluator_of(evaluation)
        self._asked: dict[Architecture, Candidate] = {}
        self._failures = Journal(folder / f"failed-{evaluation.name}.jsonl")
        self._known = {past.candidate.architecture: past.candidate for past in kept.of(self._name)}
        self._known |= {past.architecture: past for past in self._failures.past}

    @property
    def name(self) -> str:
        """Of the evaluator."""
        return self._evaluation.name

    def known(self, architecture: Architecture) -> float | None:
        """The rating if it was made."""
        candidate = self._known.get(architecture)
        return None if candidate is None or candidate.score is None else candidate.score.value

    def worth(self, trust: float, tau_without: float | None) -> RatingWorth:
        """What is to be said of it at the end."""
        failures = [each.failure for each in self._asked.values() if each.score is None]
        why = next((each for each in failures if each), "")
        return RatingWorth(self.name, len(self._asked), len(failures), why, trust, tau_without)

    def refusal(self, architecture: Architecture) -> str | None:
        """Why there can be no such ratings with this teacher or recipe; any other failure may pass."""
        self.of(architecture)
        error = self._evaluator.refused
        return None if error is None else f"{error.what}: {error.why}" if error.why else error.what

    def of(self, architecture: Architecture) -> float:
        """The rating."""
        if architecture not in self._known:
            candidate = evaluated(self._evaluator, architecture)
            self._known[architecture] = candidate
            if candidate.score is None:
                if self._evaluator.refused is None:
                    self._failures.append(candidate)
            else:
                self._kept.add(self._name, PastEvaluation(candidate, 0, "", {}))
        self._asked[architecture] = self._known[architecture]
        found = self.known(architecture)
        return math.nan if found is None else found


class Ratings:
    """Several of them, as a strategy asks for them.

    Args:
        ratings: those that are wanted.
        reference: of the space; a rating that refuses it is left out.

    Attributes:
        left_out: why, by name.
        on_rated: called with how many architectures have been rated, with each.
    """

    def __init__(self, ratings: Sequence[Rating], reference: Architecture) -> None:
        self.on_rated: Callable[[int], None] = lambda count: None
        self._count = 0
        refusals = {each.name: each.refusal(reference) for each in ratings}
        self.left_out = {name: why for name, why in refusals.items() if why is not None}
        self._ratings = [each for each in ratings if each.name not in self.left_out]

    def __call__(self, architecture: Architecture) -> tuple[float, ...]:
        """One number for each."""
        found = tuple(each.of(architecture) for each in self._ratings)
        if found:
            self._count += 1
            self.on_rated(self._count)
        return found

    def known(self, architecture: Architecture) -> dict[str, float]:
        """By name, as far as they were asked for and did not fail."""
        found = {each.name: each.known(architecture) for each in self._ratings}
        return {name: value for name, value in found.items() if value is not None}

    def worth(self, strategy: Strategy) -> tuple[float | None, tuple[RatingWorth, ...]]:
        """How well all together predict scores that they are not told, and what each was worth to that."""
        if not isinstance(strategy, TrustingStrategy):
            return None, ()
        unknown: list[float | None] = [None] * (1 + len(self._ratings))
        tau, *without = strategy.held_out() or unknown
        each = zip(self._ratings, strategy.trust(), without, strict=False)
        return tau, tuple(rating.worth(trust, its) for rating, trust, its in each)


def affordable(ratings: Sequence[Evaluation], evaluation: Evaluation) -> int | None:
    """For how many new candidates they may be asked for each that is evaluated, see ``rated_for_each``.

    Nobody knows this of evaluators that do not train: then there is no limit.
    """
    if not ratings or evaluation.name != SHORT_TRAINING:
        return None
    images = evaluation.data.counts[0]
    trained = evaluation.training.epochs * min(images, evaluation.train_limit or images)
    return rated_for_each([each.name for each in ratings], trained)
