"""The strategy that a recipe asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.recipe.loading import Recipe
from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.evaluators.workers import parse_pool
from pipeline.search.rewards import Reward, hard_reward
from pipeline.search.strategies.base import ConstrainedStrategy
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.spaces.base import Architecture
from pipeline.stages.latency.predictors import LatencyPredictors


@dataclass(frozen=True)
class StrategySettings:
    """Who proposes candidates, and how.

    Attributes:
        ahead: candidates that are evaluated before the first of them is told.
        rewards_latency: on every target, as AKD does; else on those whose budget is soft.
        seed: of the first round.
        fidelities: that the predictor may choose, as shares of the training; the last one is 1.
        first: candidates to begin with.
    """

    strategy: str
    evaluations: int
    ahead: int
    population: int
    tournament: int
    algorithm: str
    exponent: float
    rewards_latency: bool
    measure_every: int
    seed: int
    fidelities: tuple[float, ...] = (1.0,)
    first: tuple[Architecture, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe, first: tuple[Architecture, ...] = ()) -> StrategySettings:
        """Of a recipe, and what its method proposes."""
        search = recipe.search
        return cls(
            search.strategy,
            search.evaluations,
            search.ahead or parse_pool(search.executor)[1] or 1,
            search.population,
            search.tournament,
            search.algorithm,
            search.exponent,
            recipe.method == "akd",
            search.measure_every,
            recipe.seed,
            search.fidelities,
            first,
        )

    @property
    def initial(self) -> int:
        """Candidates that the predictor draws before it is fitted, for a third of the cost at most."""
        from pipeline.search.strategies.predictor import INITIAL

        return max(2, min(INITIAL, int(self.evaluations / 3 / self.fidelities[0])))

    def begun(self) -> StrategySettings:
        """The same for every number of evaluations that begins alike."""
        return replace(self, evaluations=self.initial if self.strategy == "predictor" else 1)


class RewardedEvolution(EvolutionStrategy):
    """Evolution by a reward in place of the score."""

    def __init__(
        self, constraints: Constraints, seed: int, reward: Reward, *, population_size: int, sample_size: int
    ) -> None:
        super().__init__(constraints, seed, population_size=population_size, sample_size=sample_size)
        self._reward = reward

    def learn(self, architecture: Architecture, score: Score) -> None:
        """As evolution does."""
        super().learn(architecture, Score(self._reward(architecture, score)))


def strategy_of(
    settings: StrategySettings,
    predictors: LatencyPredictors,
    number: int,
    ratings: Callable[[Architecture], Sequence[float]] = lambda architecture: (),
    rated: int | None = None,
) -> ConstrainedStrategy:
    """The strategy, fresh, for a round of the search.

    Args:
        settings: of the recipe.
        predictors: of latencies, with the limits.
        number: of the round.
        ratings: for a strategy that looks at them.
        rated: for how many new candidates it may ask for them before each that is evaluated; all without.

    Raises:
        BudgetError: no member of the space is known to keep the limits.
    """
    strategy = _strategy_of(settings, predictors, number, ratings, rated)
    strategy.begin_with(settings.first)
    return strategy


def _strategy_of(
    settings: StrategySettings,
    predictors: LatencyPredictors,
    number: int,
    ratings: Callable[[Architecture], Sequence[float]],
    rated: int | None,
) -> ConstrainedStrategy:
    constraints, seed = predictors.constraints, settings.seed + number - 1
    reward = predictors.reward(settings.exponent, everywhere=settings.rewards_latency) or hard_reward
    match settings.strategy:
        case "random":
            from pipeline.search.strategies.random_search import RandomStrategy

            return RandomStrategy(constraints, seed)
        case "nsga2":
            from pipeline.search.strategies.nsga2 import NSGA2Strategy

            return NSGA2Strategy(
                constraints, seed, population_size=settings.population, offspring=settings.population
            )
        case "policy":
            from pipeline.search.strategies.policy import PolicySettings, PolicyStrategy

            learning = PolicySettings() if settings.algorithm == "ppo" else PolicySettings(clip=None)
            return PolicyStrategy(constraints, seed, reward=reward, settings=learning)
        case "predictor":
            from pipeline.search.strategies.fidelities import FidelityPredictor
            from pipeline.search.strategies.predictor import PredictorStrategy

            asks: dict[str, Any] = {
                "reward": reward,
                "initial": settings.initial,
                "ratings": ratings,
                "rated": rated,
            }
            if len(settings.fidelities) == 1:
                return PredictorStrategy(constraints, seed, **asks)
            return FidelityPredictor(constraints, seed, fidelities=settings.fidelities, **asks)
        case _:
            return RewardedEvolution(
                constraints,
                seed,
                reward,
                population_size=settings.population,
                sample_size=settings.tournament,
            )
