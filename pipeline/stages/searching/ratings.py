"""Ratings of candidates by cheap evaluators, each made once and kept for later searches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from pipeline.search.base import Evaluator, Strategy, TrustingStrategy
from pipeline.search.evaluated_before import EvaluatedBefore, PastEvaluation
from pipeline.search.evaluators.workers import evaluated
from pipeline.spaces.base import Architecture
from pipeline.stages.searching.candidates import RatingWorth
from pipeline.stages.searching.evaluation import Evaluation
from pipeline.stages.searching.known import evaluator_of
from pipeline.work.stage import StageFolder


class Rating:
    """What one evaluator says; not a number where it fails.

    Args:
        evaluation: by a cheap evaluator.
        folder: of the stage that asks.
        kept: ratings of earlier searches, and where these are kept.
    """

    def __init__(self, evaluation: Evaluation, folder: StageFolder, kept: EvaluatedBefore) -> None:
        self._evaluation, self._folder, self._kept = evaluation, folder, kept
        self._name = evaluator_of(evaluation)
        self._known = {past.candidate.architecture: past.candidate for past in kept.of(self._name)}

    @cached_property
    def _evaluator(self) -> Evaluator:
        return self._evaluation.evaluator(self._folder, 0)

    @property
    def name(self) -> str:
        """Of the evaluator."""
        return self._evaluation.name

    def known(self, architecture: Architecture) -> float | None:
        """The rating if it was made."""
        candidate = self._known.get(architecture)
        return None if candidate is None or candidate.score is None else candidate.score.value

    def worth(self, trust: float) -> RatingWorth:
        """What is to be said of it at the end."""
        failures = [each.failure for each in self._known.values() if each.score is None]
        why = next((each for each in failures if each), "")
        return RatingWorth(self.name, len(self._known), len(failures), why, trust)

    def of(self, architecture: Architecture) -> float:
        """The rating."""
        if architecture not in self._known:
            candidate = evaluated(self._evaluator, architecture)
            self._known[architecture] = candidate
            if candidate.score is not None:
                self._kept.add(self._name, PastEvaluation(candidate, 0, "", {}))
        found = self.known(architecture)
        return math.nan if found is None else found


class Ratings:
    """Several of them, as a strategy asks for them."""

    def __init__(self, ratings: Sequence[Rating]) -> None:
        self._ratings = ratings

    def __call__(self, architecture: Architecture) -> tuple[float, ...]:
        """One number for each."""
        return tuple(each.of(architecture) for each in self._ratings)

    def known(self, architecture: Architecture) -> dict[str, float]:
        """By name, as far as they were asked for and did not fail."""
        found = {each.name: each.known(architecture) for each in self._ratings}
        return {name: value for name, value in found.items() if value is not None}

    def worth(self, strategy: Strategy) -> tuple[RatingWorth, ...]:
        """What each was worth to a strategy."""
        trust = strategy.trust() if isinstance(strategy, TrustingStrategy) else []
        return tuple(each.worth(its) for each, its in zip(self._ratings, trust, strict=False))
