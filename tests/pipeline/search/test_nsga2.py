import itertools
import math

import pytest
from contracts.explorer import ExplorerContract, rating_of
from test_explorers import budgeted

pytest.importorskip("pymoo", reason="pymoo is not installed")

from pipeline.errors import WorkFolderError
from pipeline.search.base import Rating
from pipeline.search.constraints import Constraints
from pipeline.search.explorers.evolution import EvolutionExplorer
from pipeline.search.explorers.nsga2 import NSGA2Explorer
from pipeline.search.explorers.random_explorer import RandomExplorer
from pipeline.spaces.base import architecture_of
from pipeline.spaces.factorised import CostTable, FactorisedSpace


class TestNSGA2(ExplorerContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return NSGA2Explorer(constraints, seed, population_size=6, offspring=4)


class TestSteadyNSGA2(ExplorerContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return NSGA2Explorer(constraints, seed, population_size=6, offspring=1)


SPACE = FactorisedSpace({f"layer{number}": tuple(range(4)) for number in range(6)})
# What is worth the same is not equally fast: the front is made of the layers with the highest numbers.
COSTS = CostTable(
    {option: 1.0 + option.choice * (6 - int(option.layer[5:])) for option in SPACE.distinct_blocks()}
)


def layers_within(limit_ns: float) -> Constraints:
    return Constraints(SPACE, {"board": COSTS}, {"board": limit_ns})


def worth(architecture) -> float:
    return float(sum(choice for _, choice in architecture.choices))


def run(explorer, rounds):
    for _ in range(rounds):
        architecture = explorer.ask()
        explorer.tell(architecture, Rating(worth(architecture)))
    return explorer


def area(points, slowest: float) -> float:
    """What rating and speed dominate, from rating 0 and the slowest network on."""
    total, best = 0.0, 0.0
    for rating, latency in sorted(points, key=lambda each: each[1]):
        if rating > best:
            total += (rating - best) * (slowest - latency)
            best = rating
    return total


def points_of(explorer) -> list[tuple[float, float]]:
    asked = [architecture_of(SPACE, pairs) for pairs in explorer.state()["asked"]]
    return [(worth(each), COSTS.estimate([each])[0].value_ns) for each in asked]


@pytest.mark.parametrize("offspring", [1, 20])
def test_front_dominates_more_than_random_draws_do(offspring):
    slowest = COSTS.estimate([SPACE.extreme(COSTS.block_cost_ns, largest=True)])[0].value_ns
    for seed in range(3):
        found = run(NSGA2Explorer(layers_within(1e9), seed, offspring=offspring), 300)
        drawn = run(RandomExplorer(layers_within(1e9), seed), 300)
        assert area(points_of(found), slowest) > area(points_of(drawn), slowest)
        front = [(member.rating, *member.latencies_ns) for member in found.front()]
        assert area(front, slowest) == pytest.approx(area(points_of(found), slowest), rel=0.1)


def test_front_holds_no_member_that_another_beats():
    explorer = run(NSGA2Explorer(layers_within(40.0), 0), 100)
    front = explorer.front()
    assert front
    for one, other in itertools.permutations(front, 2):
        assert one.rating > other.rating or one.latencies_ns[0] <= other.latencies_ns[0]
        assert one.architecture != other.architecture
    assert all(member.latencies_ns[0] <= 40.0 for member in front)


def test_front_is_empty_before_the_first_rating():
    assert NSGA2Explorer(layers_within(40.0), 0).front() == []


def test_front_of_several_targets_holds_the_fastest_on_each():
    explorer = NSGA2Explorer(budgeted(), 0, population_size=30)
    members = []
    for _ in range(25):
        architecture = explorer.ask()
        rating = rating_of(architecture)
        explorer.tell(architecture, rating)
        if rating is not None:
            estimates = explorer.constraints.estimates(architecture).values()
            members.append(tuple(estimate.value_ns for estimate in estimates))
    front = [member.latencies_ns for member in explorer.front()]
    for target in range(2):
        assert min(each[target] for each in front) == min(each[target] for each in members)


def test_failures_do_not_join_the_population():
    explorer = NSGA2Explorer(layers_within(40.0), 0, population_size=5, offspring=5)
    for number in range(30):
        architecture = explorer.ask()
        explorer.tell(architecture, None if number % 2 else Rating(worth(architecture)))
    learned = explorer.learned()
    assert len(learned["population"]) == 5
    assert len(learned["offspring"]) == 0


def test_rating_that_is_not_finite_is_refused():
    explorer = NSGA2Explorer(layers_within(40.0), 0)
    architecture = explorer.ask()
    with pytest.raises(ValueError, match="nan"):
        explorer.tell(architecture, Rating(math.nan))
    explorer.tell(architecture, None)


def test_restore_refuses_the_state_of_another_explorer_or_space():
    state = run(NSGA2Explorer(layers_within(40.0), 0), 3).state()
    for other in (EvolutionExplorer(layers_within(40.0), 0), NSGA2Explorer(budgeted(), 0)):
        with pytest.raises(WorkFolderError, match="another search"):
            other.restore(state)


@pytest.mark.parametrize(
    "arguments",
    [{"population_size": 0}, {"offspring": 0}, {"crossover_chance": 1.1}, {"crossover_chance": math.nan}],
)
def test_settings_without_meaning_are_refused(arguments):
    with pytest.raises(ValueError):
        NSGA2Explorer(layers_within(40.0), 0, **arguments)
