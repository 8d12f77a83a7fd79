"""How a search explores: by whom, and how it learns from candidates that are measured whole meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import TypeAdapter

from pipeline.disk import write_atomically
from pipeline.search.base import Rater, Rating
from pipeline.search.constraints import Constraints
from pipeline.search.explorers.base import ConstrainedExplorer
from pipeline.search.explorers.evolution import EvolutionExplorer
from pipeline.search.journal import Candidate, Journal
from pipeline.search.loop import search
from pipeline.search.rewards import Reward, hard_reward
from pipeline.search.workers import rated
from pipeline.spaces.base import Architecture
from pipeline.stages.context import Context
from pipeline.stages.networks import MeasuredNetwork, SeenNetwork, measure_networks
from pipeline.stages.outlook import Outlook

_MEASURED_AT_A_TIME = 3
"""Best rated candidates that are measured whole when the models are to learn."""

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
            ratings = {c.architecture: c.rating.value for c in candidates if c.rating is not None}
            best = sorted(ratings.keys() - known, key=lambda each: (-ratings[each], each.identity))
            networks = tuple(self.measure(best[:_MEASURED_AT_A_TIME]))
            write_atomically(path, _NETWORKS.dump_json(networks))
        self.outlook = self.outlook.learned(networks)

    def _remember(self, networks: Sequence[MeasuredNetwork]) -> None:
        for network in networks:
            self.measured.setdefault((network.target, network.architecture), network)


class Known:
    """A rater that knows some ratings already."""

    def __init__(self, rater: Rater, ratings: Mapping[Architecture, Rating]) -> None:
        self._rater, self._ratings = rater, ratings

    def rate(self, architecture: Architecture) -> Rating:
        """The rating known, else the rater's."""
        return self._ratings.get(architecture) or self._rater.rate(architecture)


class RewardedEvolution(EvolutionExplorer):
    """Evolution by a reward in place of the rating."""

    def __init__(
        self, constraints: Constraints, seed: int, reward: Reward, *, population_size: int, sample_size: int
    ) -> None:
        super().__init__(constraints, seed, population_size=population_size, sample_size=sample_size)
        self._reward = reward

    def learn(self, architecture: Architecture, rating: Rating) -> None:
        """As evolution does."""
        super().learn(architecture, Rating(self._reward(architecture, rating)))


def explore(context: Context, rater: Rater, learning: Learning, folder: Path, number: int) -> list[Candidate]:
    """The candidates of a search, in the order in which they were asked for.

    Every ``search.measure_every`` candidates the models learn, and the search goes on under the new ones, as
    long as by them any network keeps the budgets: else measuring decides in the end.
    """
    settings = context.recipe.search
    explorer = explorer_of(context, learning.outlook, number)
    found: list[Candidate] = []
    with ExitStack() as shown:
        advance = shown.enter_context(context.reporter.task("rating candidates", "candidates"))

        def on_candidate(done: int, total: int, candidate: Candidate) -> None:
            nonlocal advance
            advance(done, total)
            found.append(candidate)
            if done % settings.measure_every == 0 and done < total:
                shown.close()
                learning.learn(found)
                if learning.outlook.constraints.certificate.reachable:
                    explorer.constraints = learning.outlook.constraints
                advance = shown.enter_context(context.reporter.task("rating candidates", "candidates"))

        return search(
            explorer, rater, settings.evaluations, folder / "journal.jsonl", on_progress=on_candidate
        )


def explorer_of(context: Context, outlook: Outlook, number: int) -> ConstrainedExplorer:
    """The recipe's explorer, fresh, for a round of the search."""
    recipe = context.recipe
    settings, constraints, seed = recipe.search, outlook.constraints, recipe.seed + number - 1
    reward = outlook.reward(settings.exponent, everywhere=recipe.method == "akd") or hard_reward
    match settings.explorer:
        case "random":
            from pipeline.search.explorers.random_explorer import RandomExplorer

            return RandomExplorer(constraints, seed)
        case "nsga2":
            from pipeline.search.explorers.nsga2 import NSGA2Explorer

            return NSGA2Explorer(
                constraints, seed, population_size=settings.population, offspring=settings.population
            )
        case "policy":
            from pipeline.search.explorers.policy import PolicyExplorer, PolicySettings

            learning = PolicySettings() if settings.algorithm == "ppo" else PolicySettings(clip=None)
            return PolicyExplorer(constraints, seed, reward=reward, settings=learning)
        case "predictor":
            from pipeline.search.explorers.predictor import INITIAL, PredictorExplorer

            initial = max(2, min(INITIAL, settings.evaluations // 3))
            return PredictorExplorer(constraints, seed, reward=reward, initial=initial)
        case _:
            return RewardedEvolution(
                constraints,
                seed,
                reward,
                population_size=settings.population,
                sample_size=settings.tournament,
            )


def rate_again(rater: Rater, architectures: Sequence[Architecture], journal: Path) -> list[Candidate]:
    """Rate these in order; what the journal holds is not rated again."""
    with Journal(journal) as written:
        known = {past.architecture: past for past in written.past}
        for architecture in architectures:
            if architecture not in known:
                known[architecture] = rated(rater, architecture)
                written.append(known[architecture])
    return [known[architecture] for architecture in architectures]
