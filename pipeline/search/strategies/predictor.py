"""A Gaussian process over what was evaluated says where to look next: few scores, each well spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from pipeline.search.base import Posterior, Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.rewards import Reward, hard_reward
from pipeline.search.strategies.base import (
    ConstrainedStrategy,
    tau,
    to_pairs,
    trust_in,
    trust_without_each,
)
from pipeline.search.strategies.gaussian_process import (
    Floats,
    GaussianProcess,
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
        self._codes: list[Code] = []
        self._pool: dict[Architecture, Code] = {}
        self._process: GaussianProcess | None = None
        self._trust: list[float] | None = None
        self._shape: Shape | None = None

    def proposals(self) -> Iterator[Architecture]:
        """First draws; then the pool, the most promising first; then mutants of the best, ever further."""
        if len(self._evaluated) < self._needed:
            yield from self._first_draws()
        ranking = sorted(self._evaluated, key=lambda each: -each[1])
        parents = [architecture for architecture, _ in ranking[:_PARENTS]]
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
        self._codes.append(self._code(architecture))
        self._process = self._trust = None
        if len(self._evaluated) % _SHAPED_EVERY == 0:
            groups, scores = self._known()
            self._shape = better_shape(groups, scores, self._shape or initial_shape(len(groups)))

    def learned(self) -> dict[str, Any]:
        """Scores in the order they were told, the pool, and the shape of the kernel."""
        return {
            "evaluated": [[to_pairs(architecture), value] for architecture, value in self._evaluated],
            "pool": list(map(to_pairs, self._pool)),
            "shape": self._shape and [list(self._shape.lengths), self._shape.noise],
        }

    def relearn(self, learned: dict[str, Any]) -> None:
        """Take back all three."""
        space = self.constraints.space
        self._evaluated = [(architecture_of(space, pairs), value) for pairs, value in learned["evaluated"]]
        self._codes = [self._code(architecture) for architecture, _ in self._evaluated]
        pool = (architecture_of(space, pairs) for pairs in learned["pool"])
        self._pool = {architecture: self._code(architecture) for architecture in pool}
        self._process = self._trust = None
        shape = learned["shape"]
        self._shape = shape and Shape(tuple(shape[0]), shape[1])

    def trust(self) -> list[float]:
        """What each rating counts beside the process, see ``trust_in``."""
        if not self._evaluated:
            return []
        if self._trust is None:
            *_, ratings = map(np.stack, zip(*self._codes, strict=True))
            scores = [value for _, value in self._evaluated]
            self._trust = [trust_in(column, scores) for column in ratings.T]
        return self._trust

    def posterior(self, architectures: Sequence[Architecture]) -> list[Posterior]:
        """What is promised, as a reward, and how sure the process is; in the order of ``ranking``.

        Process and ratings together promise too much. By how much is known from what they promised of each
        score without it: the slope of the scores over that.
        """
        if not self._evaluated or not architectures:
            return []
        promised, deviations = self._promised(list(map(self._code, architectures)))
        known, scores = self._held_out(self._every_rating()), self._known()[1]
        slope = max(0.0, float(known @ scores) / (float(known @ known) or 1.0))
        rewards = sorted(value for _, value in self._evaluated[-_MEMORY:])

        def as_reward(normal: Floats) -> Floats:
            found: Floats = np.interp(normal, np.sort(scores), rewards)
            return found

        means = slope * promised
        spans = (as_reward(means + deviations) - as_reward(means - deviations)) / 2
        return [Posterior(float(m), float(s) or None) for m, s in zip(as_reward(means), spans, strict=True)]

    def held_out(self) -> list[float]:
        """By the shape of the kernel for all; its last ``_MEMORY`` scores. From ``_TELLING`` scores on."""
        if len(self._evaluated) < _TELLING:
            return []
        every = self._every_rating()
        without = [[other for other in every if other != each] for each in every]
        scores = [value for _, value in self._evaluated[-_MEMORY:]]
        return [tau(self._held_out(kept), scores) for kept in (every, *without)]

    def _every_rating(self) -> list[int]:
        return list(range(len(self._codes[0][2])))

    def _held_out(self, ratings: Sequence[int]) -> Floats:
        """What process and these ratings promise of each known architecture without its score."""
        groups, scores = self._known()
        kept = [*range(len(groups) - len(self._every_rating()))]
        kept += [len(kept) + each for each in ratings]
        lengths, noise = self._shape or initial_shape(len(groups))
        shape = Shape(tuple(lengths[each] for each in kept), noise)
        chosen = [groups[each] for each in kept]
        promised = GaussianProcess(chosen, scores, shape).held_out()
        values = [value for _, value in self._evaluated[-_MEMORY:]]
        codes = self._codes[-_MEMORY:]
        for each, column in zip(ratings, chosen[len(chosen) - len(ratings) :], strict=True):
            rating = np.array([code[2][each] for code in codes])
            promised = promised + trust_without_each(rating, values) * column[:, 0]
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
            groups, scores = self._known()
            self._process = GaussianProcess(groups, scores, self._shape or initial_shape(len(groups)))
        return self._process

    def _known(self) -> tuple[list[Floats], Floats]:
        """Features and scores of the last ``_MEMORY`` scores."""
        scores = normal_scores([value for _, value in self._evaluated[-_MEMORY:]])
        return self._groups(self._codes[-_MEMORY:]), scores

    def _mutant(self, parent: Architecture) -> Architecture:
        mutant = self.constraints.space.mutate(parent, self.generator)
        return self.used_up(self.constraints.repair(mutant, self.generator), self._evaluated)

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
