"""What every strategy says to input that is wrong or leaves nothing to search."""

import math

import pytest

from latency_db.errors import EstimateError
from pipeline.errors import BudgetError, WorkFolderError
from pipeline.search.base import Score, SearchExhausted
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.loop import search
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.search.strategies.nsga2 import NSGA2Strategy
from pipeline.search.strategies.policy import PolicyStrategy
from pipeline.search.strategies.predictor import PredictorStrategy
from pipeline.search.strategies.random_search import RandomStrategy
from pipeline.spaces.factorised import CostTable, FactorisedSpace
from tests.pipeline.search.search_models import by_macs, latency_model, small_space
from tests.pipeline.search.strategies.test_strategies import budgeted


def nsga2(constraints, seed):
    pytest.importorskip("pymoo", reason="pymoo is not installed")
    return NSGA2Strategy(constraints, seed)


STRATEGIES = [RandomStrategy, EvolutionStrategy, PolicyStrategy, PredictorStrategy, nsga2]
each_strategy = pytest.mark.parametrize("make", STRATEGIES, ids=lambda make: make.__name__)


def layers_within(limits_ns, layers, cost=lambda option: float(option.choice)):
    """A layer takes as many nanoseconds as its choice says on one board, and 10 less that on the other."""
    space = FactorisedSpace(layers)
    one = CostTable({option: cost(option) for option in space.distinct_blocks()})
    other = CostTable({option: 10.0 - cost(option) for option in space.distinct_blocks()})
    return Constraints(space, {"one": one, "other": other}, limits_ns)


@each_strategy
def test_space_of_one_architecture_is_asked_once(make):
    constraints = layers_within({"one": 9.0}, {"only": (3,), "other": (4,)})
    strategy = make(constraints, 0)
    assert strategy.ask().choices == (("only", 3), ("other", 4))
    with pytest.raises(SearchExhausted):
        strategy.ask()


@each_strategy
def test_budget_that_no_member_keeps_is_refused_at_once(make):
    with pytest.raises(BudgetError, match="ms on one"):
        make(layers_within({"one": 1.5}, {"a": (1, 2), "b": (1, 2)}), 0)


@each_strategy
def test_budgets_that_contradict_each_other_are_refused_at_once(make):
    with pytest.raises(BudgetError):
        make(layers_within({"one": 9.0, "other": 9.0}, {"a": (1, 9), "b": (1, 9)}), 0)


@each_strategy
def test_space_of_which_nothing_runs_is_refused_at_once(make):
    space = FactorisedSpace({"a": (1, 2)})
    broken = CostTable(dict.fromkeys(space.distinct_blocks(), math.inf))
    with pytest.raises(BudgetError, match="runs on all of"):
        make(Constraints(space, {"t": broken}, {"t": 1.0}), 0)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, math.inf])
def test_budget_without_meaning_is_refused(limit):
    with pytest.raises(ValueError, match="not finite and above zero"):
        layers_within({"one": limit}, {"a": (1, 2)})


@each_strategy
def test_table_that_lacks_blocks_is_named_with_the_command_that_fills_it(make):
    model = latency_model(small_space(1), by_macs)
    wider = small_space(2)
    lacking = type(model)(wider, model.network_model)
    with pytest.raises(EstimateError) as caught:
        make(Constraints(wider, {"t": lacking}, {"t": 1e9}), 0)
    assert "mbconv" in caught.value.why
    assert "lathe table build" in caught.value.fix


@each_strategy
def test_state_of_another_space_is_refused(make):
    state = make(layers_within({"one": 99.0}, {"a": (1, 2), "b": (1, 2)}), 0).state()
    with pytest.raises(WorkFolderError, match="another search"):
        make(layers_within({"one": 99.0}, {"a": (1, 2), "b": (1, 2, 3)}), 0).restore(state)


@each_strategy
def test_state_of_another_kind_of_strategy_is_refused(make):
    constraints = layers_within({"one": 99.0}, {"a": (1, 2), "b": (1, 2)})
    other = EvolutionStrategy if make is RandomStrategy else RandomStrategy
    with pytest.raises(WorkFolderError, match="another search"):
        make(constraints, 0).restore(other(constraints, 0).state())


@each_strategy
@pytest.mark.parametrize("outcome", [math.nan, RuntimeError("it diverged")], ids=["nan", "error"])
def test_search_outlives_an_evaluator_that_never_gives_a_score(make, outcome, tmp_path):
    class Broken:
        def evaluate(self, architecture):
            if isinstance(outcome, Exception):
                raise outcome
            return Score(outcome)

    found = search(make(budgeted(), 0), Broken(), 25, tmp_path / "journal.jsonl")
    assert len(found) == 25
    assert all(candidate.score is None for candidate in found)
