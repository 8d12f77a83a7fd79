"""Regularised evolution (Real et al. 2019, 1802.01548): the oldest member dies, not the worst."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.strategies.base import ConstrainedStrategy, to_pairs
from pipeline.spaces.base import Architecture, architecture_of


class EvolutionStrategy(ConstrainedStrategy):
    """Draws until the population is full, then mutates the best of a random sample of it.

    A child that breaks a budget is repaired; one that leaves much of it unused grows, if larger ones were
    better; one that was asked before is mutated further.

    Args:
        constraints: space and budgets.
        seed: of all draws.
        population_size: members alive at a time (the paper's P).
        sample_size: members drawn, with replacement, for each tournament (the paper's S).

    Raises:
        ValueError: a size below 1.
        BudgetError: no member of the space is known to keep the budgets.
    """

    def __init__(
        self, constraints: Constraints, seed: int, *, population_size: int = 20, sample_size: int = 5
    ) -> None:
        if min(population_size, sample_size) < 1:
            raise ValueError("population and sample need at least one member")
        super().__init__(constraints, seed)
        self._sample_size = sample_size
        self._population_size = population_size
        self._population: deque[tuple[Architecture, float]] = deque(maxlen=population_size)

    def proposals(self) -> Iterator[Architecture]:
        """Draws until the population is full, then the parent's mutants, further and further away."""
        while len(self._population) < self._population_size:
            yield self.constraints.draw(self.generator)
        sample = self.generator.choices(self._population, k=self._sample_size)
        child, _ = max(sample, key=lambda member: member[1])
        while True:
            mutant = self.constraints.space.mutate(child, self.generator)
            child = self.used_up(self.constraints.repair(mutant, self.generator), self._population)
            yield child

    def learn(self, architecture: Architecture, score: Score) -> None:
        """The youngest joins; of a full population the oldest leaves."""
        self._population.append((architecture, score.value))

    def learned(self) -> dict[str, Any]:
        """The population, oldest first."""
        return {"population": [[to_pairs(member), value] for member, value in self._population]}

    def relearn(self, learned: dict[str, Any]) -> None:
        """Take back the population."""
        self._population.clear()
        self._population.extend(
            (architecture_of(self.constraints.space, pairs), value) for pairs, value in learned["population"]
        )
