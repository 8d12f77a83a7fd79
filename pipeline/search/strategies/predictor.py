"""A Gaussian process over what was evaluated says where to look next: few scores, each well spent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.rewards import Reward, hard_reward
from pipeline.search.strategies.base import ConstrainedStrategy, to_pairs
from pipeline.search.strategies.gaussian_process import (
    INITIAL_SHAPE,
    Floats,
    GaussianProcess,
    Shape,
    better_shape,
    normal_scores,
)
from pipeline.spaces.base import Architecture, architecture_of

INITIAL = 20
"""Scores of draws, before the process is asked; fewer in a short search."""

_POOL, _DRAWS, _MUTANTS, _PARENTS = 64, 2, 8, 5
_MEMORY = 300
_SHAPED_EVERY = 10
_RATIOS = (1e-9, 1e9)

Code = tuple[Floats, Floats]
"""An architecture's features, and the logarithms of its latencies in limits."""


class PredictorStrategy(ConstrainedStrategy):
    """Draws at first; then asks for the architecture of a pool whose score may be the highest.

    docs/methods/predictor.md says how, and why. What an architecture promises is the mean of a Gaussian
    process plus ``boldness`` standard deviations (GP-UCB, 0912.3995). The process is over
    ``SearchSpace.encode`` and the latencies, and learns the normal scores of the scores.

    Args:
        constraints: space and budgets.
        seed: of all draws.
        reward: from an architecture and its score, and learned in its place; the score by default.
        initial: scores of draws, before the process is asked.
        boldness: how much what is uncertain is preferred.

    Raises:
        ValueError: fewer than two initial scores, or a boldness below zero.
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
    ) -> None:
        if initial < 2 or not 0 <= boldness < math.inf:
            raise ValueError("a predictor needs two scores to begin with, and a boldness of at least zero")
        super().__init__(constraints, seed)
        self._reward = reward
        self._initial, self._boldness = initial, boldness
        self._evaluated: list[tuple[Architecture, float]] = []
        self._codes: list[Code] = []
        self._pool: dict[Architecture, Code] = {}
        self._process: GaussianProcess | None = None
        self._shape = INITIAL_SHAPE

    def proposals(self) -> Iterator[Architecture]:
        """Draws, then the pool, the most promising first, then mutants of the best, further and further."""
        while len(self._evaluated) < self._initial:
            yield self.constraints.draw(self.generator)
        ranking = sorted(self._evaluated, key=lambda each: -each[1])
        parents = [architecture for architecture, _ in ranking[:_PARENTS]]
        fresh = [self.constraints.draw(self.generator) for _ in range(_DRAWS)]
        fresh += [self._mutant(self.generator.choice(parents)) for _ in range(_MUTANTS)]
        new = {each: self._code(each) for each in dict.fromkeys(fresh) if each not in self._pool}
        pool = [pair for pair in (self._pool | new).items() if pair[0] not in self._asked]
        if pool:
            means, deviations = self._fitted().predict(_groups([code for _, code in pool]))
            order = np.argsort(-(means + self._boldness * deviations), kind="stable")
            self._pool = dict(pool[index] for index in order[:_POOL])
            # Budgets may have become narrower since an architecture joined the pool.
            yield from filter(self.constraints.feasible, list(self._pool))
        child = parents[0]
        while True:
            child = self._mutant(child)
            yield child

    def ranking(self, architectures: Sequence[Architecture]) -> list[Architecture]:
        """By the mean of the process: scores are noisy, and the best of them flattered.

        As they are given, before any score is known.
        """
        if not self._evaluated or not architectures:
            return list(architectures)
        means, _ = self._fitted().predict(_groups(list(map(self._code, architectures))))
        return [architectures[index] for index in np.argsort(-means, kind="stable")]

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
        self._process = None
        if len(self._evaluated) % _SHAPED_EVERY == 0:
            self._shape = better_shape(*self._known(), self._shape)

    def learned(self) -> dict[str, Any]:
        """Scores in the order they were told, the pool, and the shape of the kernel."""
        return {
            "evaluated": [[to_pairs(architecture), value] for architecture, value in self._evaluated],
            "pool": list(map(to_pairs, self._pool)),
            "shape": [list(self._shape.lengths), self._shape.noise],
        }

    def relearn(self, learned: dict[str, Any]) -> None:
        """Take back all three."""
        space = self.constraints.space
        self._evaluated = [(architecture_of(space, pairs), value) for pairs, value in learned["evaluated"]]
        self._codes = [self._code(architecture) for architecture, _ in self._evaluated]
        pool = (architecture_of(space, pairs) for pairs in learned["pool"])
        self._pool = {architecture: self._code(architecture) for architecture in pool}
        self._process = None
        lengths, noise = learned["shape"]
        self._shape = Shape(tuple(lengths), noise)

    def _fitted(self) -> GaussianProcess:
        if self._process is None:
            self._process = GaussianProcess(*self._known(), self._shape)
        return self._process

    def _known(self) -> tuple[list[Floats], Floats]:
        """Features and scores of the last ``_MEMORY`` scores."""
        scores = normal_scores([value for _, value in self._evaluated[-_MEMORY:]])
        return _groups(self._codes[-_MEMORY:]), scores

    def _mutant(self, parent: Architecture) -> Architecture:
        return self.constraints.repair(self.constraints.space.mutate(parent, self.generator), self.generator)

    def _code(self, architecture: Architecture) -> Code:
        ratios = np.clip(self.constraints.ratios(architecture), *_RATIOS)
        return self.constraints.space.encode(architecture).astype(np.float64), np.log(ratios)


def _groups(codes: Sequence[Code]) -> list[Floats]:
    return [np.stack(features) for features in zip(*codes, strict=True)]
