"""A predictor that also chooses how dearly to evaluate: many networks cheaply, few of them dearly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import norm

from pipeline.search.base import Score, SearchExhausted
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.strategies.base import tau, to_pairs, trusted
from pipeline.search.strategies.gaussian_process import Floats
from pipeline.search.strategies.predictor import PredictorStrategy
from pipeline.spaces.base import Architecture, architecture_of

_CERTAIN = 2.0
"""Standard deviations within which a network surely is."""


class FidelityPredictor(PredictorStrategy):
    """A predictor whose scores are of several fidelities, each with a part of the dearest one's cost.

    A new network is evaluated by the cheapest one. One that was evaluated is asked for again by the next
    dearer one where that is worth more: its expected improvement on the best at the dearest fidelity, times
    how far a score of that fidelity tells of it, by its cost (Huang, Allen, Notz and Miller, "Sequential
    kriging optimization using multiple-fidelity evaluations", 2006). A network that is clearly worse than the
    best is not evaluated dearly. However little they cost, cheap scores take no more than half of all: what
    they tell of the truth is known from the dear ones alone.

    Args:
        constraints: space and budgets.
        seed: of all draws.
        fidelities: costs as shares of the dearest one's, ascending to 1.
        settings: as ``PredictorStrategy``.

    Raises:
        ValueError: the fidelities do not ascend from above 0 to 1, or as ``PredictorStrategy``.
        BudgetError: no member of the space is known to keep the budgets.
    """

    def __init__(
        self, constraints: Constraints, seed: int, *, fidelities: Sequence[float], **settings: Any
    ) -> None:
        ascending = all(one < other for one, other in pairwise((0.0, *fidelities)))
        if not fidelities or not ascending or fidelities[-1] != 1:
            raise ValueError(f"fidelities ascend from above 0 to 1, got {list(fidelities)}")
        super().__init__(constraints, seed, **settings)
        self._fidelities = fidelities
        self._dearest = len(fidelities) - 1
        self._asked_at: dict[Architecture, int] = {}
        self._known_at: dict[Architecture, int] = {}

    def fidelity(self, architecture: Architecture) -> float:
        """By which the architecture was asked for last."""
        return self._fidelities[self._asked_at[architecture]]

    def ask(self) -> Architecture:
        """The next architecture to evaluate: a new one, or one to look at more closely.

        Raises:
            SearchExhausted: nothing new is left, nor anything that may be the best.
        """
        chosen: list[Architecture] = []
        exhausted = None
        try:
            chosen.append(self._next_new())
        except SearchExhausted as error:
            exhausted = error
        if self._known_at and (exhausted or len(self._evaluated) >= self._needed):
            chosen += self._worth_a_closer_look()
            chosen = [each for each in chosen if self._affords(self._next_level(each))] or chosen
        if not chosen:
            assert exhausted is not None
            raise exhausted
        best = chosen[0] if len(chosen) == 1 else chosen[int(np.argmax(self._gains(chosen)))]
        self._asked_at[best] = self._next_level(best)
        self._asked[best] = None
        self._unanswered.append(best)
        return best

    def know(self, architecture: Architecture, score: Score) -> None:
        """As a predictor does; the score is of the dearest fidelity."""
        self._asked_at[architecture] = self._dearest
        super().know(architecture, score)

    def learn(self, architecture: Architecture, score: Score) -> None:
        """As a predictor does."""
        super().learn(architecture, score)
        self._known_at[architecture] = self._level_of(architecture)

    def learned(self) -> dict[str, Any]:
        """What a predictor has, and which fidelity each architecture was asked by last."""
        asked_at = [[to_pairs(each), level] for each, level in self._asked_at.items()]
        return super().learned() | {"asked_at": asked_at}

    def relearn(self, learned: dict[str, Any]) -> None:
        """Take back all of it."""
        super().relearn(learned)
        space = self.constraints.space
        self._asked_at = {architecture_of(space, pairs): level for pairs, level in learned["asked_at"]}
        known = (architecture for architecture, _ in self._evaluated)
        self._known_at = dict(zip(known, self._levels, strict=True))

    def ranking(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """As a predictor does, those evaluated by the dearest fidelity before the others."""
        ranking = super().ranking(architectures)
        return sorted(ranking, key=lambda each: self._known_at.get(each) != self._dearest)

    def worth_of_fidelities(self) -> list[tuple[float, float, float | None]]:
        """Each of the cheaper fidelities, see ``FidelityStrategy``."""
        told = bool(self.held_out())
        values, levels = self._values()
        known = [
            {
                each: value
                for (each, _), value, its in zip(self._evaluated, values, levels, strict=True)
                if its == level
            }
            for level in range(1 + self._dearest)
        ]
        found = []
        for level, (share, cheap) in enumerate(zip(self._fidelities[:-1], known[:-1], strict=True)):
            both = [each for each in known[-1] if each in cheap]
            its = tau(np.array([cheap[each] for each in both]), [float(known[-1][each]) for each in both])
            without = self._held_out_tau(self._every_rating(), level) if told else None
            found.append((share, trusted(its, len(both)), without))
        return found

    def _level_of(self, architecture: Architecture) -> int:
        return self._asked_at[architecture]

    def _worth_a_closer_look(self) -> list[Architecture]:
        """What was evaluated, but not by the dearest fidelity, and may be the best."""
        known = list(self._known_at)
        promised, deviations = self._promised(list(map(self._code, known)))
        least = np.max(promised - _CERTAIN * deviations)
        return [
            each
            for each, most in zip(known, promised + _CERTAIN * deviations, strict=True)
            if most >= least
            and self._known_at[each] == self._asked_at.get(each) != self._dearest
            and self.constraints.feasible(each)
        ]

    def _next_level(self, architecture: Architecture) -> int:
        return self._known_at.get(architecture, -1) + 1

    def _affords(self, level: int) -> bool:
        """Whether a fidelity has not cost more than all dearer ones and the next of these would."""
        asked = np.array(list(self._asked_at.values()))
        spent = [share * np.sum(asked >= each) for each, share in enumerate(self._fidelities)]
        dearer = self._fidelities[level + 1 : level + 2]
        return not dearer or bool(spent[level] < sum(spent[level + 1 :]) + dearer[0])

    def _gains(self, architectures: Sequence[Architecture]) -> Floats:
        """What it may bring to evaluate each by its next fidelity, by the cost of that."""
        promised, deviations = self._promised(list(map(self._code, self._known_at)))
        # What is the best is not sure either: a sure good one counts more than a promising guess.
        best = promised[np.argmax(promised - deviations)]
        codes = list(map(self._code, architectures))
        promised, deviations = self._promised(codes)
        deviations = np.maximum(deviations, 1e-9)
        distances = (promised - best) / deviations
        gains = deviations * (distances * norm.cdf(distances) + norm.pdf(distances))
        levels = np.array(list(map(self._next_level, architectures)))
        groups = self._groups(codes)
        for level in np.unique(levels):
            its = levels == level
            tells = self._fitted().tells([features[its] for features in groups], level)
            gains[its] *= tells / self._fidelities[level]
        return np.asarray(gains)

    def _best_first(self) -> list[Architecture]:
        known = list(self._known_at)
        return [known[each] for each in self._order(list(map(self._code, known)), boldness=0.0)]

    def _comparable(self) -> list[tuple[Architecture, float]]:
        return [each for each, level in zip(self._evaluated, self._levels, strict=True) if level == 0]
