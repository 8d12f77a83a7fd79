"""How a search explores: by whom, and how it learns from candidates that are measured whole meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.search.base import Evaluator, Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.evaluators.workers import evaluated
from pipeline.search.journal import Candidate, Journal
from pipeline.search.loop import search
from pipeline.search.rewards import Reward, hard_reward
from pipeline.search.strategies.base import ConstrainedStrategy
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.spaces.base import Architecture
from pipeline.stages.context import Context
from pipeline.stages.networks import MeasuredNetwork, SeenNetwork, measure_networks
from pipeline.stages.outlook import Outlook
from pipeline.work.disk import write_atomically

_MEASURED_AT_A_TIME = 3
"""Best evaluated candidates that are measured whole when the models are to learn."""

_NETWORKS = TypeAdapter(tuple[MeasuredNetwork, ...])


class Learning:
    """Measures networks whole while a search goes on, and fits the models again on them.

    What the models learned from lies in ``folder``, so that a search that was killed sees the same again.
    """

    def __init__(self, context: Context, outlook: Outlook, folder: Path) -> None:
        self._context, self._folder = context, folder
        self.outlook = outlook
        self.measured: dict[tuple[str, Architecture], MeasuredNetwork] = {}

    def measure(self, architectures: Sequence[Architecture]) -> list[MeasuredNetwork]:
        """Valid measurements of these on all targets, beside what is predicted now."""
        found = []
        predicted = {each: self.outlook.estimates(each) for each in architectures}
        for target, outcomes in measure_networks(self._context, self.outlook.space, architectures).items():
            for architecture, outcome in zip(architectures, outcomes, strict=True):
                if seen := SeenNetwork.of(architecture, target, outcome):
                    found.append(MeasuredNetwork.beside(seen, predicted[architecture][str(target)]))
        self._remember(found)
        return found

    def learn(self, candidates: Sequence[Candidate]) -> None:
        """Measure the best candidates that were not measured yet, and fit the models again."""
        path = self._folder / f"learned-{len(candidates)}.json"
        if path.exists():
            networks = _NETWORKS.validate_json(path.read_bytes())
            self._remember(networks)
        else:
            known = {architecture for _, architecture in self.measured}
            scores = {c.architecture: c.score.value for c in candidates if c.score is not None}
            best = sorted(scores.keys() - known, key=lambda each: (-scores[each], each.identity))
            networks = tuple(self.measure(best[:_MEASURED_AT_A_TIME]))
            write_atomically(path, _NETWORKS.dump_json(networks))
        self.outlook = self.outlook.learned(networks)

    def _remember(self, networks: Sequence[MeasuredNetwork]) -> None:
        for network in networks:
            self.measured.setdefault((network.target, network.architecture), network)


class Known:
    """An evaluator that knows some scores already."""

    def __init__(self, evaluator: Evaluator, scores: Mapping[Architecture, Score]) -> None:
        self._evaluator, self._scores = evaluator, scores

    def evaluate(self, architecture: Architecture) -> Score:
        """The score known, else the evaluator's."""
        return self._scores.get(architecture) or self._evaluator.evaluate(architecture)


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


def explore(
    context: Context, evaluator: Evaluator, learning: Learning, folder: Path, number: int
) -> list[Candidate]:
    """The candidates of a search, in the order in which they were asked for.

    Every ``search.measure_every`` candidates the models learn, and the search goes on under the new ones, as
    long as by them any network keeps the budgets: else measuring decides in the end.
    """
    settings = context.recipe.search
    strategy = strategy_of(context, learning.outlook, number)
    found: list[Candidate] = []
    with ExitStack() as shown:
        advance = shown.enter_context(context.reporter.task("score candidates", "candidates"))

        def on_candidate(done: int, total: int, candidate: Candidate) -> None:
            nonlocal advance
            advance(done, total)
            found.append(candidate)
            if done % settings.measure_every == 0 and done < total:
                shown.close()
                learning.learn(found)
                if learning.outlook.constraints.certificate.reachable:
                    strategy.constraints = learning.outlook.constraints
                advance = shown.enter_context(context.reporter.task("score candidates", "candidates"))

        return search(
            strategy, evaluator, settings.evaluations, folder / "journal.jsonl", on_progress=on_candidate
        )


def strategy_of(context: Context, outlook: Outlook, number: int) -> ConstrainedStrategy:
    """The recipe's strategy, fresh, for a round of the search."""
    recipe = context.recipe
    settings, constraints, seed = recipe.search, outlook.constraints, recipe.seed + number - 1
    reward = outlook.reward(settings.exponent, everywhere=recipe.method == "akd") or hard_reward
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
            from pipeline.search.strategies.predictor import INITIAL, PredictorStrategy

            initial = max(2, min(INITIAL, settings.evaluations // 3))
            return PredictorStrategy(constraints, seed, reward=reward, initial=initial)
        case _:
            return RewardedEvolution(
                constraints,
                seed,
                reward,
                population_size=settings.population,
                sample_size=settings.tournament,
            )


def rate_again(evaluator: Evaluator, architectures: Sequence[Architecture], journal: Path) -> list[Candidate]:
    """Rate these in order; what the journal holds is not evaluated again."""
    with Journal(journal) as written:
        known = {past.architecture: past for past in written.past}
        for architecture in architectures:
            if architecture not in known:
                known[architecture] = evaluated(evaluator, architecture)
                written.append(known[architecture])
    return [known[architecture] for architecture in architectures]
