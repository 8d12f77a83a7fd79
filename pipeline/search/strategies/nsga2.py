"""NSGA-II (Deb et al. 2002): scores against latencies, with the sorting and the distances of pymoo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.installing import how_to_install
from pipeline.errors import RecipeError
from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.strategies.base import ConstrainedStrategy, to_pairs
from pipeline.spaces.base import Architecture, architecture_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Individual:
    """An evaluated architecture with the values of its latency estimates, in the order of the limits."""

    architecture: Architecture
    score: float
    latencies_ns: tuple[float, ...]


class NSGA2Strategy(ConstrainedStrategy):
    """Looks for the front of score against latency on every target that has a limit.

    It draws until the population is full. Then the winners of two tournaments of two are crossed, and the
    child is mutated, and repaired if it breaks a budget; one that was asked before is mutated further. As
    many children as ``offspring`` make a generation.

    Args:
        constraints: space and budgets.
        seed: of all draws.
        population_size: members that survive a generation.
        offspring: children in a generation; the paper has as many as members.
        crossover_chance: of two parents; else the child is a mutant of the first.

    Raises:
        ValueError: a size below 1, or a chance outside 0..1.
        RecipeError: pymoo is not installed.
        BudgetError: no member of the space is known to keep the budgets.
    """

    def __init__(
        self,
        constraints: Constraints,
        seed: int,
        *,
        population_size: int = 20,
        offspring: int = 20,
        crossover_chance: float = 0.9,
    ) -> None:
        if min(population_size, offspring) < 1:
            raise ValueError("population and offspring need at least one member")
        if not 0 <= crossover_chance <= 1:
            raise ValueError(f"a chance of {crossover_chance} is outside 0..1")
        super().__init__(constraints, seed)
        self._ranking = _Ranking()
        self._population_size = population_size
        self._generation_size = offspring
        self._crossover_chance = crossover_chance
        # Best first, by rank and then by crowding distance.
        self._population: list[Individual] = []
        self._offspring: list[Individual] = []

    def front(self) -> list[Individual]:
        """Evaluated members that none of the survivors beats in one objective and equals in the others."""
        members = self._population + self._offspring
        return [members[index] for index in self._ranking.fronts(_objectives(members))[0]] if members else []

    def proposals(self) -> Iterator[Architecture]:
        """Draws until the population is full, then a child, and its mutants, further and further away."""
        while len(self._population) < self._population_size:
            yield self.constraints.draw(self.generator)
        space = self.constraints.space
        child = self._winner()
        if self.generator.random() < self._crossover_chance:
            child = space.crossover(child, self._winner(), self.generator)
        while True:
            child = self.constraints.repair(space.mutate(child, self.generator), self.generator)
            yield child

    def learn(self, architecture: Architecture, score: Score) -> None:
        """A child joins its generation; with the last one, the best of all survive."""
        estimates = self.constraints.estimates(architecture).values()
        self._offspring.append(
            Individual(architecture, score.value, tuple(estimate.value_ns for estimate in estimates))
        )
        size = self._generation_size if len(self._population) == self._population_size else 1
        if len(self._offspring) >= size:
            members = self._population + self._offspring
            order = self._ranking.best_first(_objectives(members))
            self._population = [members[index] for index in order[: self._population_size]]
            self._offspring = []

    def learned(self) -> dict[str, Any]:
        """The population, best first, and the children of this generation."""
        return {
            "population": list(map(_to_json, self._population)),
            "offspring": list(map(_to_json, self._offspring)),
        }

    def relearn(self, learned: dict[str, Any]) -> None:
        """Take back both."""
        self._population = [self._from_json(*each) for each in learned["population"]]
        self._offspring = [self._from_json(*each) for each in learned["offspring"]]

    def _winner(self) -> Architecture:
        place = min(self.generator.choices(range(len(self._population)), k=2))
        return self._population[place].architecture

    def _from_json(self, pairs: list[list[Any]], score: float, latencies_ns: list[float]) -> Individual:
        return Individual(architecture_of(self.constraints.space, pairs), score, tuple(latencies_ns))


class _Ranking:
    """pymoo's sorting by dominance, and its crowding distances."""

    def __init__(self) -> None:
        try:
            from pymoo.operators.survival.rank_and_crowding.metrics import (
                get_crowding_function,
            )
            from pymoo.util.nds.non_dominated_sorting import (
                NonDominatedSorting,
            )
        except ImportError as error:
            raise RecipeError("NSGA-II needs pymoo", why=str(error), fix=how_to_install("search")) from error
        self.fronts = NonDominatedSorting().do
        self._crowding = get_crowding_function("cd").do

    def best_first(self, objectives: Floats) -> list[int]:
        """Indices by front, then the least crowded first, then as they stand."""
        order: list[int] = []
        for front in self.fronts(objectives):
            distances = self._crowding(objectives[front], n_remove=0)
            order += front[np.argsort(-distances, kind="stable")].tolist()
        return order


def _objectives(members: Sequence[Individual]) -> Floats:
    """What is to be small, shape (n_members, 1 + n_targets)."""
    return np.array([(-member.score, *member.latencies_ns) for member in members])


def _to_json(member: Individual) -> list[Any]:
    return [to_pairs(member.architecture), member.score, list(member.latencies_ns)]
