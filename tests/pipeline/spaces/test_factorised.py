import math
import random

import pytest

from pipeline.errors import BudgetError
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.loop import search
from pipeline.search.strategies.evolution import EvolutionStrategy
from pipeline.spaces.factorised import CostTable, FactorisedSpace, Option
from tests.contracts.search_space import SearchSpaceContract

LAYERS = {f"layer{number}": ("small", "large", "huge") for number in range(8)}
COSTS = {"small": 1e5, "large": 3e5, "huge": 9e5}


def table(**changes):
    costs = {Option(layer, choice): COSTS[choice] for layer, choices in LAYERS.items() for choice in choices}
    return CostTable({**costs, **changes.pop("costs", {})}, **changes)


class TestFactorisedSpace(SearchSpaceContract):
    @pytest.fixture
    def space(self):
        return FactorisedSpace(LAYERS)


def test_extreme_takes_the_cheapest_and_dearest_choice_of_each_layer():
    space, costs = FactorisedSpace(LAYERS), table()
    fastest, slowest = space.extreme(costs.block_cost_ns), space.extreme(costs.block_cost_ns, largest=True)
    assert {choice for _, choice in fastest.choices} == {"small"}
    assert {choice for _, choice in slowest.choices} == {"huge"}


def test_estimate_is_the_sum_with_its_interval():
    (estimate,) = table(fixed_ns=5e4, upper_factor=1.1).estimate(
        [FactorisedSpace(LAYERS).extreme(lambda option: COSTS[option.choice])]
    )
    assert (estimate.value_ns, estimate.high_ns) == pytest.approx((8.5e5, 9.35e5))
    assert estimate.low_ns == pytest.approx(8.5e5 / 1.1)


def test_an_option_that_cannot_run_is_never_within_a_budget():
    space = FactorisedSpace(LAYERS)
    broken = table(costs={Option("layer3", "small"): math.inf})
    constraints = Constraints(space, {"t": broken}, {"t": 2e6})
    generator = random.Random(0)
    assert all(constraints.draw(generator)["layer3"] != "small" for _ in range(50))


def test_a_space_of_choices_a_cost_table_and_a_scoring_function_can_be_searched(tmp_path):
    class Score:
        def evaluate(self, architecture):
            from pipeline.search.base import Score

            return Score(float(sum(choice == "large" for _, choice in architecture.choices)))

    constraints = Constraints(FactorisedSpace(LAYERS), {"t": table()}, {"t": 1.6e6})
    found = search(EvolutionStrategy(constraints, 0), Score(), 150, tmp_path / "journal.jsonl")
    best = max(found, key=lambda candidate: candidate.score.value)
    assert best.score.value == 4.0  # 4 * 3e5 + 4 * 1e5 is the limit


@pytest.mark.parametrize("wrong", [{"costs": {Option("layer0", "small"): math.nan}}, {"upper_factor": 0.9}])
def test_cost_table_refuses_what_is_no_cost(wrong):
    with pytest.raises(ValueError):
        table(**wrong)


class Walled:
    """A latency model without blocks, so that reach has to look at members or descend."""

    def __init__(self, costs):
        self.costs = costs

    def estimate(self, architectures):
        return self.costs.estimate(architectures)


@pytest.mark.parametrize("layers", [LAYERS, LAYERS | {"layer8": ("small", "huge")}])
def test_reach_without_blocks_finds_what_reach_with_blocks_finds(layers):
    space = FactorisedSpace(layers)
    costs = CostTable(
        {Option(n, c): COSTS[c] * (1 + i / 10) for i, n in enumerate(layers) for c in layers[n]}
    )
    with_blocks, without = (
        Constraints(space, {"t": model}, {"t": 1.7e6}).certificate for model in (costs, Walled(costs))
    )
    assert with_blocks.anchor == without.anchor
    assert with_blocks.ranges == without.ranges


def test_certificate_says_that_it_is_not_exact_where_it_had_to_descend():
    layers = {f"layer{number}": ("small", "large") for number in range(18)}
    space = FactorisedSpace(layers)
    costs = CostTable({Option(n, c): COSTS[c] for n in layers for c in layers[n]})
    certificate = Constraints(space, {"t": Walled(costs)}, {"t": 1.0}).certificate
    assert not certificate.exact
    assert certificate.least_ratio == 0
    assert certificate.anchor == space.extreme(costs.block_cost_ns)
    with pytest.raises(BudgetError, match="was found"):
        certificate.require_reachable()
