import pytest

from pipeline.errors import BudgetError
from pipeline.search.base import Score, SearchExhausted
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.search.strategies.fidelities import FidelityPredictor
from pipeline.search.strategies.predictor import PredictorStrategy
from pipeline.search.strategies.random_search import RandomStrategy
from tests.contracts.strategy import StrategyContract
from tests.pipeline.search.search_models import by_macs, by_parameters, latency_model, small_space


def budgeted(stages=2, share=0.08):
    space = small_space(stages)
    models = {"a": latency_model(space, by_macs), "b": latency_model(space, by_parameters)}
    reference = space.reference()
    loose = Constraints(space, models, {"a": 1e12, "b": 1e12}).certificate
    limits = {
        r.target: r.fastest_estimate.high_ns
        + share * (models[r.target].estimate([reference])[0].high_ns - r.fastest_estimate.high_ns)
        for r in loose.ranges
    }
    return Constraints(space, models, limits)


class TestRandomStrategy(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return RandomStrategy(constraints, seed)


class TestEvolutionStrategy(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return budgeted()

    def make(self, constraints, seed):
        return EvolutionStrategy(constraints, seed, population_size=8, sample_size=3)


@pytest.mark.parametrize(
    "make",
    [
        lambda constraints: RandomStrategy(constraints, 0),
        lambda constraints: EvolutionStrategy(constraints, 0, population_size=8, sample_size=3),
        lambda constraints: PredictorStrategy(constraints, 0, initial=4),
        lambda constraints: FidelityPredictor(constraints, 0, initial=4, fidelities=(0.2, 1.0)),
    ],
)
def test_what_is_passed_over_is_never_asked(make):
    constraints = budgeted()
    passed, left = constraints.members[::2], set(constraints.members[1::2])
    strategy = make(constraints)
    strategy.pass_over(passed)
    asked = []
    with pytest.raises(SearchExhausted):
        while True:
            asked.append(strategy.ask())
            strategy.tell(asked[-1], Score(value(asked[-1])))
    assert set(asked) == left


def value(architecture) -> float:
    """A smooth goal with its best where kernels and depths are largest."""
    return sum(choice for name, choice in architecture.choices if name.endswith(("kernel", "depth")))


def mean_of_last(strategy, rounds=120, last=30):
    values = []
    for _ in range(rounds):
        architecture = strategy.ask()
        values.append(value(architecture))
        strategy.tell(architecture, Score(values[-1]))
    return sum(values[-last:]) / last


def test_evolution_ends_higher_than_random_on_a_smooth_goal():
    constraints = budgeted(stages=3, share=0.6)
    for seed in range(3):
        evolved = mean_of_last(EvolutionStrategy(constraints, seed, population_size=12, sample_size=4))
        assert evolved > mean_of_last(RandomStrategy(constraints, seed)) + 1.0


@pytest.mark.parametrize("sign", [1, -1])
def test_children_use_the_budget_up_only_if_larger_ones_have_had_better_scores(sign):
    constraints = budgeted(share=0.6)
    strategy = EvolutionStrategy(constraints, 0, population_size=10, sample_size=3)
    uses = []
    for _ in range(40):
        architecture = strategy.ask()
        uses.append(constraints.use(architecture))
        strategy.tell(architecture, Score(sign * uses[-1]))
    drawn, last = sum(uses[:10]) / 10, sum(uses[-10:]) / 10
    assert last > drawn + 0.1 if sign > 0 else last < drawn


def test_evolution_lets_the_oldest_die_and_leaves_out_failures():
    strategy = EvolutionStrategy(budgeted(), 0, population_size=3, sample_size=1)
    told = []
    for number in range(6):
        architecture = strategy.ask()
        score = None if number == 4 else Score(float(-number))
        strategy.tell(architecture, score)
        if score is not None:
            told.append([[list(pair) for pair in architecture.choices], score.value])
    assert strategy.learned()["population"] == told[-3:]


def test_evolution_refuses_an_empty_population():
    with pytest.raises(ValueError, match="at least one"):
        EvolutionStrategy(budgeted(), 0, population_size=0)


def test_a_search_begins_with_what_it_is_given_as_far_as_that_keeps_the_budgets():
    constraints = budgeted(stages=3, share=0.6)
    slowest = constraints.certificate.ranges[0].slowest
    first = [RandomStrategy(constraints, seed).ask() for seed in range(3)]
    assert not constraints.feasible(slowest)
    strategy = EvolutionStrategy(constraints, 0, population_size=3, sample_size=3)
    strategy.begin_with([first[0], slowest, *first])
    asked = [strategy.ask() for _ in range(4)]
    assert asked[:3] == first
    assert asked[3] not in first
    assert asked[3] != slowest


def test_strategy_refuses_an_unreachable_budget_at_once():
    with pytest.raises(BudgetError):
        RandomStrategy(budgeted(share=-0.1), 0)
