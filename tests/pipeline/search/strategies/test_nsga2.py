import itertools
import math

import pytest

from tests.contracts.strategy import StrategyContract, score_of
from tests.pipeline.search.strategies.test_strategies import budgeted

pytest.importorskip("pymoo", reason="pymoo is not installed")

from pipeline.errors import WorkFolderError
from pipeline.search.base import Score
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.search.strategies.nsga2 import NSGA2Strategy
from pipeline.search.strategies.random_search import RandomStrategy
from pipeline.spaces.base import architecture_of
from pipeline.spaces.factorised import CostTable, FactorisedSpace


class TestNSGA2(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return NSGA2Strategy(constraints, seed, population_size=6, offspring=4)


class TestSteadyNSGA2(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return NSGA2Strategy(constraints, seed, population_size=6, offspring=1)


SPACE = FactorisedSpace({f"layer{number}": tuple(range(4)) for number in range(6)})
# What is worth the same is not equally fast: the front is made of the layers with the highest numbers.
COSTS = CostTable(
    {option: 1.0 + option.choice * (6 - int(option.layer[5:])) for option in SPACE.distinct_blocks()}
)


def layers_within(limit_ns: float) -> Constraints:
    return Constraints(SPACE, {"board": COSTS}, {"board": limit_ns})


def worth(architecture) -> float:
    return float(sum(choice for _, choice in architecture.choices))


def run(strategy, rounds):
    for _ in range(rounds):
        architecture = strategy.ask()
        strategy.tell(architecture, Score(worth(architecture)))
    return strategy


def area(points, slowest: float) -> float:
    """What score and speed dominate, from score 0 and the slowest network on."""
    total, best = 0.0, 0.0
    for score, latency in sorted(points, key=lambda each: each[1]):
        if score > best:
            total += (score - best) * (slowest - latency)
            best = score
    return total


def points_of(strategy) -> list[tuple[float, float]]:
    asked = [architecture_of(SPACE, pairs) for pairs in strategy.state()["asked"]]
    return [(worth(each), COSTS.estimate([each])[0].value_ns) for each in asked]


@pytest.mark.parametrize("offspring", [1, 20])
def test_front_dominates_more_than_random_draws_do(offspring):
    slowest = COSTS.estimate([SPACE.extreme(COSTS.block_cost_ns, largest=True)])[0].value_ns
    for seed in range(3):
        found = run(NSGA2Strategy(layers_within(1e9), seed, offspring=offspring), 300)
        drawn = run(RandomStrategy(layers_within(1e9), seed), 300)
        assert area(points_of(found), slowest) > area(points_of(drawn), slowest)
        front = [(member.score, *member.latencies_ns) for member in found.front()]
        assert area(front, slowest) == pytest.approx(area(points_of(found), slowest), rel=0.1)


def test_front_holds_no_member_that_another_beats():
    strategy = run(NSGA2Strategy(layers_within(40.0), 0), 100)
    front = strategy.front()
    assert front
    for one, other in itertools.permutations(front, 2):
        assert one.score > other.score or one.latencies_ns[0] <= other.latencies_ns[0]
        assert one.architecture != other.architecture
    assert all(member.latencies_ns[0] <= 40.0 for member in front)


def test_front_is_empty_before_the_first_score():
    assert NSGA2Strategy(layers_within(40.0), 0).front() == []


def test_front_of_several_targets_holds_the_fastest_on_each():
    strategy = NSGA2Strategy(budgeted(), 0, population_size=30)
    members = []
    for _ in range(25):
        architecture = strategy.ask()
        score = score_of(architecture)
        strategy.tell(architecture, score)
        if score is not None:
            estimates = strategy.constraints.estimates(architecture).values()
            members.append(tuple(estimate.value_ns for estimate in estimates))
    front = [member.latencies_ns for member in strategy.front()]
    for target in range(2):
        assert min(each[target] for each in front) == min(each[target] for each in members)


def test_failures_do_not_join_the_population():
    strategy = NSGA2Strategy(layers_within(40.0), 0, population_size=5, offspring=5)
    for number in range(30):
        architecture = strategy.ask()
        strategy.tell(architecture, None if number % 2 else Score(worth(architecture)))
    learned = strategy.learned()
    assert len(learned["population"]) == 5
    assert len(learned["offspring"]) == 0


def test_score_that_is_not_finite_is_refused():
    strategy = NSGA2Strategy(layers_within(40.0), 0)
    architecture = strategy.ask()
    with pytest.raises(ValueError, match="nan"):
        strategy.tell(architecture, Score(math.nan))
    strategy.tell(architecture, None)


def test_restore_refuses_the_state_of_another_strategy_or_space():
    state = run(NSGA2Strategy(layers_within(40.0), 0), 3).state()
    for other in (EvolutionStrategy(layers_within(40.0), 0), NSGA2Strategy(budgeted(), 0)):
        with pytest.raises(WorkFolderError, match="another search"):
            other.restore(state)


@pytest.mark.parametrize(
    "arguments",
    [{"population_size": 0}, {"offspring": 0}, {"crossover_chance": 1.1}, {"crossover_chance": math.nan}],
)
def test_settings_without_meaning_are_refused(arguments):
    with pytest.raises(ValueError):
        NSGA2Strategy(layers_within(40.0), 0, **arguments)
