import math
import random

import pytest
from contracts.strategy import StrategyContract
from hypothesis import given, settings
from hypothesis import strategies as st
from test_strategies import budgeted

from pipeline.errors import BudgetError, RecipeError
from pipeline.search.base import SearchExhausted
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.strategies.exact import ExactStrategy
from pipeline.spaces.factorised import CostTable, FactorisedSpace, Option

SPACE = FactorisedSpace({f"layer{number}": (1, 2, 3) for number in range(4)})


def made_up(seed: int, share: float, targets: int = 2) -> tuple[Constraints, dict[Option, float]]:
    """Random costs and losses; limits lie at a share of the way from the fastest to the slowest member."""
    generator = random.Random(seed)
    options = SPACE.distinct_blocks()
    models = {
        f"board{target}": CostTable(
            {option: generator.uniform(1, 100) for option in options},
            fixed_ns=generator.choice([0.0, 50.0]),
            upper_factor=generator.choice([1.0, 1.2]),
        )
        for target in range(targets)
    }
    loose = Constraints(SPACE, models, dict.fromkeys(models, 1e9)).certificate
    limits = {
        r.target: r.fastest_estimate.high_ns
        + share * (r.slowest_estimate.high_ns - r.fastest_estimate.high_ns)
        for r in loose.ranges
    }
    return Constraints(SPACE, models, limits), {option: generator.uniform(0, 1) for option in options}


class TestExactStrategy(StrategyContract):
    @pytest.fixture
    def constraints(self):
        return made_up(0, 0.6)[0]

    def make(self, constraints, seed):
        return ExactStrategy(constraints, made_up(0, 0.6)[1])

    def test_ask_repeats_for_a_seed_and_differs_between_seeds(self, constraints):
        """There is no seed: the losses decide."""
        assert self.advance(self.make(constraints, 1)) == self.advance(self.make(constraints, 2))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0.1, 1.0), targets=st.integers(1, 3))
def test_members_come_in_the_order_of_their_losses_and_none_is_missing(seed, share, targets):
    constraints, losses = made_up(seed, share, targets)
    if not constraints.certificate.reachable:
        with pytest.raises(BudgetError):
            ExactStrategy(constraints, losses)
        return

    def loss(architecture):
        return math.fsum(losses[option] for option in SPACE.blocks(architecture))

    strategy = ExactStrategy(constraints, losses)
    found = [strategy.ask() for _ in constraints.members]
    assert [loss(each) for each in found] == pytest.approx(sorted(map(loss, constraints.members)))
    assert set(found) == set(constraints.members)
    assert strategy.exact
    with pytest.raises(SearchExhausted):
        strategy.ask()


def test_space_that_is_not_factorised_is_refused():
    with pytest.raises(RecipeError, match="in order"):
        ExactStrategy(budgeted(), {})


def test_option_without_a_loss_is_refused_by_name():
    constraints, losses = made_up(0, 0.5)
    del losses[Option("layer2", 3)]
    with pytest.raises(RecipeError, match="1 options have no loss") as caught:
        ExactStrategy(constraints, losses)
    assert "layer2" in caught.value.why
