"""A Gaussian process over what was evaluated says where to look next: few scores, each well spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.search.base import Posterior, Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.rewards import Reward, hard_reward
from pipeline.search.strategies.base import ConstrainedStrategy, tau, tau_within, to_pairs, trusted
from pipeline.search.strategies.gaussian_process import (
    Floats,
    GaussianProcess,
    Levels,
    Link,
    Shape,
    better_shape,
    initial_shape,
    normal_scores,
)
from pipeline.spaces.base import Architecture, architecture_of

INITIAL = 20
"""Scores of draws, before the process is asked; fewer in a short search."""

_POOL, _DRAWS, _MUTANTS, _PARENTS = 64, 2, 8, 5
_RATED_FIRST = 20
"""Draws that are rated for each of the first scores, at most: the best of many more are errors of ratings."""

_MEMORY = 300
_TELLING = 5
"""Scores from which on a rank correlation with them is told."""

_SHAPED_EVERY = 10
_RATIOS = (1e-9, 1e9)

Ratings = Callable[[Architecture], Sequence[float]]
"""What several cheap evaluators say of an architecture; not a number where one failed."""

Code = tuple[Floats, Floats, Floats]
"""An architecture's features, the logarithms of its latencies in limits, and its ratings."""


class PredictorStrategy(ConstrainedStrategy):
    """Draws at first, those that are rated best; then asks for the architecture of a pool that promises most.

    docs/methods/predictor.md says how, and why. What an architecture promises is the mean of a Gaussian
    process plus ``boldness`` standard deviations (GP-UCB, 0912.3995), and its ratings, each by the trust
    that it has earned. The process is over ``SearchSpace.encode``, the latencies and the ratings, and learns
    the normal scores of the scores.

    Args:
        constraints: space and budgets.
        seed: of all draws.
        reward: from an architecture and its score, and learned in its place; the score by default.
        initial: scores of draws, before the process is asked; half as many where there are ratings.
        boldness: how much what is uncertain is preferred.
        ratings: of an architecture, asked once for each that joins the pool; the same number every time.
        rated: most new architectures that join the pool, and so are rated, before each ask: those that
            promise most while their ratings are unknown. All by default. Before the first ask, as many as
            for all first draws, at most 20 for each.

    Raises:
        ValueError: fewer than two initial scores, nothing that is rated, or a boldness below zero.
        BudgetError: no member of the space is known to keep the budgets.
    """

    _dearest = 0
    """The fidelity that counts, by number."""

    def __init__(
        self,
        constraints: Constraints,
        seed: int,
        *,
        reward: Reward = hard_reward,
        initial: int = INITIAL,
        boldness: float = 0.5,
        ratings: Ratings = lambda architecture: (),
        rated: int | None = None,
    ) -> None:
        if rated is not None and rated < 1:
            raise ValueError("a predictor that rates nothing new has nothing to choose from")
        if initial < 2 or not 0 <= boldness < math.inf:
            raise ValueError("a predictor needs two scores to begin with, and a boldness of at least zero")
        super().__init__(constraints, seed)
        self._reward, self._ratings, self._rated_at_once = reward, ratings, rated
        self._rated: dict[Architecture, Floats] = {}
        self._initial, self._boldness = initial, boldness
        self._evaluated: list[tuple[Architecture, float]] = []
        self._levels: list[int] = []
        self._codes: list[Code] = []
        self._pool: dict[Architecture, Code] = {}
        self._process: GaussianProcess | None = None
        self._trust: list[float] | None = None
        self._shape: Shape | None = None

    def proposals(self) -> Iterator[Architecture]:
        """First draws; then the pool, the most promising first; then mutants of the best, ever further."""
        if len(self._evaluated) < self._needed:
            yield from self._first_draws()
        parents = self._best_first()[:_PARENTS]
        fresh = [self.constraints.draw(self.generator) for _ in range(_DRAWS)]
        fresh += [self._mutant(self.generator.choice(parents)) for _ in range(_MUTANTS)]
        new = [each for each in dict.fromkeys(fresh) if each not in self._pool and each not in self._asked]
        joining = {each: self._code(each) for each in self._worth_rating(new)}
        pool = list((self._left() | joining).items())
        if pool:
            order = self._order([code for _, code in pool], self._boldness)
            self._pool = dict(pool[index] for index in order[:_POOL])
            # Quantiles of ratings are those in the pool.
            self._process = None
            # Budgets may have become narrower since an architecture joined the pool.
            yield from filter(self.constraints.feasible, list(self._pool))
        child = parents[0]
        while True:
            child = self._mutant(child)
            yield child

    @property
    def _needed(self) -> int:
        """Scores before the process is asked: half as many where ratings choose what is scored."""
        has_ratings = any(map(len, self._rated.values()))
        return max(2, self._initial // 2) if has_ratings else self._initial

    def _first_draws(self) -> Iterator[Architecture]:
        """Of as many draws as may be rated until the process is asked, those rated best first; then more.

        An architecture is as good as the rating that likes it least. A sum of ratings follows the one that
        likes it most, and that is often where a rating errs.
        """
        draws = iter(partial(self.constraints.draw, self.generator), None)
        if not self._left():
            first = next(draws)
            self._pool = {first: self._code(first)}
            share = min(self._rated_at_once or _RATED_FIRST, _RATED_FIRST)
            more = share * (self._needed - len(self._evaluated)) - 1
            self._pool |= {each: self._code(each) for each in dict.fromkeys(islice(draws, more))}
        left = self._left()
        if left:
            _, _, *ratings = self._groups(list(left.values()))
            trusts = self.trust() or [1.0] * len(ratings)
            trusted = [column[:, 0] for trust, column in zip(trusts, ratings, strict=True) if trust > 0]
            worst = np.min(trusted, axis=0) if trusted else np.zeros(len(left))
            best_first = [list(left)[index] for index in np.argsort(-worst, kind="stable")]
            yield from filter(self.constraints.feasible, best_first)
        yield from draws

    def _left(self) -> dict[Architecture, Code]:
        """Of the pool, what was not asked."""
        return {each: code for each, code in self._pool.items() if each not in self._asked}

    def ranking(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """By the mean of the process and the ratings: scores are noisy, and the best of them flattered.

        As they are given, before any score is known.
        """
        if not self._evaluated or not architectures:
            return list(architectures)
        order = self._order(list(map(self._code, architectures)), boldness=0.0)
        return [architectures[index] for index in order]

    def learn(self, architecture: Architecture, score: Score) -> None:
        """The process is fitted anew when it is asked; its shape after every tenth score.

        Raises:
            ValueError: the reward is not finite.
        """
        reward = self._reward(architecture, score)
        if not math.isfinite(reward):
            raise ValueError(f"the reward of {architecture} is {reward}")
        self._evaluated.append((architecture, reward))
        self._levels.append(self._level_of(architecture))
        self._codes.append(self._code(architecture))
        self._process = self._trust = None
        if len(self._evaluated) % _SHAPED_EVERY == 0:
            groups, scores, levels = self._known()
            self._shape = better_shape(groups, scores, self._shape_of(groups), levels)

    def learned(self) -> dict[str, Any]:
        """Scores in the order they were told, their fidelities, the pool, and the shape of the kernel."""
        return {
            "evaluated": [[to_pairs(architecture), value] for architecture, value in self._evaluated],
            "levels": self._levels,
            "pool": list(map(to_pairs, self._pool)),
            "shape": self._shape and [*self._shape],
        }

    def relearn(self, learned: dict[str, Any]) -> None:
        """Take back all four."""
        space = self.constraints.space
        self._evaluated = [(architecture_of(space, pairs), value) for pairs, value in learned["evaluated"]]
        self._levels = list(learned["levels"])
        self._codes = [self._code(architecture) for architecture, _ in self._evaluated]
        pool = (architecture_of(space, pairs) for pairs in learned["pool"])
        self._pool = {architecture: self._code(architecture) for architecture in pool}
        self._process = self._trust = None
        self._shape = None
        if learned["shape"]:
            lengths, noise, links = learned["shape"]
            self._shape = Shape(tuple(lengths), noise, tuple(Link(*each) for each in links))

    def trust(self) -> list[float]:
        """What each rating counts beside the process: by its tau within the scores of each fidelity."""
        if not self._evaluated:
            return []
        if self._trust is None:
            *_, ratings = map(np.stack, zip(*self._codes, strict=True))
            values, levels = self._values()
            self._trust = [trusted(tau_within(column, values, levels), len(values)) for column in ratings.T]
        return self._trust

    def posterior(self, architectures: Sequence[Architecture]) -> list[Posterior]:
        """What is promised, as a score, and how sure the process is; as rewards, in the order of ``ranking``.

        Process and ratings together promise too much. By how much is known from what they promised of each
        score without it: the slope of the scores over that. All of this is of the dearest fidelity; empty
        where nothing was evaluated by it.
        """
        dear = self._dear()
        if not dear.any() or not architectures:
            return []
        promised, deviations = self._promised(list(map(self._code, architectures)))
        known, scores = self._held_out(self._every_rating()), self._known()[1][dear]
        slope = max(0.0, float(known @ scores) / (float(known @ known) or 1.0))
        rewards = np.sort(self._values()[0][self._remembered()][dear])

        def as_reward(normal: Floats) -> Floats:
            found: Floats = np.interp(normal, np.sort(scores), rewards)
            return found

        means = slope * promised
        spans = (as_reward(means + deviations) - as_reward(means - deviations)) / 2
        # A reward is a multiple of the score.
        units = np.array([self._reward(each, Score(1.0)) or 1.0 for each in architectures])
        found = zip(as_reward(means) / units, spans / units, strict=True)
        return [Posterior(float(mean), float(span) or None) for mean, span in found]

    def held_out(self) -> list[float]:
        """By the shape of the kernel for all; its last ``_MEMORY`` scores. From ``_TELLING`` scores on."""
        if self._dear().sum() < _TELLING:
            return []
        every = self._every_rating()
        without = [[other for other in every if other != each] for each in every]
        return [self._held_out_tau(kept) for kept in (every, *without)]

    def _held_out_tau(self, ratings: Sequence[int], without: int | None = None) -> float:
        """Kendall's tau between scores of the dearest fidelity and what is promised without each of them."""
        scores = self._values()[0][self._remembered()][self._dear()]
        return tau(self._held_out(ratings, without), scores.tolist())

    def _every_rating(self) -> list[int]:
        return list(range(len(self._codes[0][2])))

    def _held_out(self, ratings: Sequence[int], without: int | None = None) -> Floats:
        """What process and these ratings promise of each network of the dearest fidelity without that score.

        Args:
            ratings: by their place.
            without: a fidelity that is not known either.
        """
        groups, scores, levels = self._known()
        chosen = [*range(len(groups) - len(self._every_rating()))]
        chosen += [len(chosen) + each for each in ratings]
        shape = self._shape_of(groups)
        shape = shape._replace(lengths=tuple(shape.lengths[each] for each in chosen))
        rows = levels != (-1 if without is None else without)
        kept, dear = [groups[each][rows] for each in chosen], self._dear()[rows]
        promised: Floats = GaussianProcess(kept, scores[rows], shape, levels[rows]).held_out()[dear]
        values, places = self._values()[0][self._remembered()][rows], np.flatnonzero(dear).tolist()
        codes = [self._codes[each] for each in self._remembered()[rows]]
        for each, column in zip(ratings, kept[len(kept) - len(ratings) :], strict=True):
            rating = np.array([code[2][each] for code in codes])
            alone = [_trust_without(rating, values, levels[rows], place) for place in places]
            promised = promised + np.array(alone) * column[dear, 0]
        return promised

    def _worth_rating(self, architectures: Sequence[Architecture]) -> Sequence[Architecture]:
        if self._rated_at_once is None or len(architectures) <= self._rated_at_once:
            return architectures
        order = self._order(list(map(self._unrated, architectures)), self._boldness)
        return [architectures[index] for index in order[: self._rated_at_once]]

    def _order(self, codes: Sequence[Code], boldness: float) -> list[int]:
        """Places of what promises most first."""
        promised, deviations = self._promised(codes)
        order: list[int] = np.argsort(-promised - boldness * deviations, kind="stable").tolist()
        return order

    def _promised(self, codes: Sequence[Code]) -> tuple[Floats, Floats]:
        """The mean of the process and the ratings by their trust, and the deviation of the process."""
        groups = self._groups(codes)
        promised, deviations = self._fitted().predict(groups)
        for trust, column in zip(self.trust(), groups[2:], strict=True):
            promised = promised + trust * column[:, 0]
        return promised, deviations

    def _fitted(self) -> GaussianProcess:
        if self._process is None:
            groups, scores, levels = self._known()
            self._process = GaussianProcess(groups, scores, self._shape_of(groups), levels)
        return self._process

    def _known(self) -> tuple[list[Floats], Floats, Levels]:
        """Features, normal scores within each fidelity, and fidelities of what is remembered."""
        remembered = self._remembered()
        values, levels = self._values()
        values, levels = values[remembered], levels[remembered]
        scores = np.zeros(len(values))
        for level in np.unique(levels):
            scores[levels == level] = normal_scores(values[levels == level].tolist())
        return self._groups([self._codes[each] for each in remembered]), scores, levels

    def _values(self) -> tuple[Floats, Levels]:
        """Every score and its fidelity."""
        return np.array([value for _, value in self._evaluated]), np.array(self._levels, int)

    def _remembered(self) -> Levels:
        """Places of the last ``_MEMORY`` scores, dear ones before cheap ones; in order."""
        return np.sort(np.argsort(self._levels, kind="stable")[-_MEMORY:])

    def _dear(self) -> NDArray[np.bool_]:
        """Which of what is remembered is of the dearest fidelity."""
        dear: NDArray[np.bool_] = self._values()[1][self._remembered()] == self._dearest
        return dear

    def _shape_of(self, groups: Sequence[Floats]) -> Shape:
        return self._shape or initial_shape(len(groups), 1 + self._dearest)

    def _level_of(self, architecture: Architecture) -> int:
        """The fidelity of a score that is told."""
        return self._dearest

    def _best_first(self) -> list[Architecture]:
        """What was evaluated, in the order in which it has mutants."""
        return [architecture for architecture, _ in sorted(self._evaluated, key=lambda each: -each[1])]

    def _comparable(self) -> list[tuple[Architecture, float]]:
        """What was evaluated by one fidelity, with its scores."""
        return self._evaluated

    def _mutant(self, parent: Architecture) -> Architecture:
        mutant = self.constraints.space.mutate(parent, self.generator)
        return self.used_up(self.constraints.repair(mutant, self.generator), self._comparable())

    def _code(self, architecture: Architecture) -> Code:
        if architecture not in self._rated:
            self._rated[architecture] = np.array(self._ratings(architecture), np.float64)
        encoded, ratios = self._features(architecture)
        return encoded, ratios, self._rated[architecture]

    def _unrated(self, architecture: Architecture) -> Code:
        """As if every rating had failed, and so is in the middle."""
        known = self._codes[0][2]
        return *self._features(architecture), np.full_like(known, math.nan)

    def _features(self, architecture: Architecture) -> tuple[Floats, Floats]:
        ratios = np.clip(self.constraints.ratios(architecture), *_RATIOS)
        encoded = self.constraints.space.encode(architecture).astype(np.float64)
        return encoded, np.log(ratios)

    def _groups(self, codes: Sequence[Code]) -> list[Floats]:
        """Features by group, each rating one of its own: its quantile in the pool and what was evaluated."""
        encoded, ratios, ratings = (np.stack(features) for features in zip(*codes, strict=True))
        seen = np.stack([each for _, _, each in (*self._codes, *self._pool.values())])
        columns = [quantiles(seen[:, [index]], ratings[:, [index]]) for index in range(ratings.shape[1])]
        return [encoded, ratios, *columns]


def quantiles(seen: Floats, values: Floats) -> Floats:
    """Normal scores of values among those that were seen, shape ``(n, 1)`` each; 0 for what is not finite."""
    known = np.sort(seen[np.isfinite(seen)])
    if not known.size:
        return np.zeros_like(values)
    levels = normal_scores(known.tolist())
    return np.where(np.isfinite(values), np.interp(values, known, levels), 0.0)


def _trust_without(rating: Floats, values: Floats, levels: Levels, place: int) -> float:
    """The trust in a rating by all scores but one."""
    others = np.delete(rating, place), np.delete(values, place), np.delete(levels, place)
    return trusted(tau_within(*others), len(values) - 1)
