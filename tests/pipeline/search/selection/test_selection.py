import itertools
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from pipeline.errors import BudgetError, DataError, RecipeError
from pipeline.search.selection import enumeration
from pipeline.search.selection.options import StageOptions
from pipeline.search.selection.selection import select

DNA_LAYERS = (2, 4, 4, 4, 4, 1)
NAMES = ("phone_ns", "board_ns", "server_ns", "macs", "parameters")


def everything(stages, limits, fixed_costs=None, weights=None):
    """Every selection that can be chosen as (choices, loss, costs), by the definition."""
    fixed_costs, weights = fixed_costs or {}, weights or [1] * len(stages)
    for choices in itertools.product(*(range(len(stage.losses)) for stage in stages)):
        chosen = list(zip(stages, choices, weights, strict=True))
        losses = [stage.losses[choice] for stage, choice, _ in chosen]
        costs = {
            name: fixed_costs.get(name, 0) + sum(stage.costs[name][choice] for stage, choice, _ in chosen)
            for name in stages[0].costs
        }
        if all(map(math.isfinite, [*losses, *costs.values()])):
            yield choices, sum(w * loss for w, loss in zip(weights, losses, strict=True)), costs


def brute_force(stages, limits, count, fixed_costs=None, weights=None):
    """The best within the limits, and the nearest of all, both as lists of (choices, loss, costs)."""

    def ratio(costs):
        return max(costs[name] / limit for name, limit in limits.items())

    def rank(found):
        choices, loss, costs = found
        return loss, *(costs[name] for name in limits), choices

    everyone = list(everything(stages, limits, fixed_costs, weights))
    within = [found for found in everyone if ratio(found[2]) <= 1]
    nearest = min(everyone, key=lambda found: (ratio(found[2]), rank(found)))
    return sorted(within, key=rank)[:count], nearest


def as_tuple(selection):
    return selection.choices, selection.loss, selection.costs


@st.composite
def instances(draw):
    """Small instances of numbers whose sums are exact in floating point."""
    names = NAMES[: draw(st.integers(1, 4))]
    limited = names[: draw(st.integers(1, min(3, len(names))))]
    numbers = st.integers(-2, 9) if draw(st.booleans()) else st.integers(-300, 3000).map(lambda n: n / 64)
    maybe_failed = st.one_of(numbers, numbers, numbers, numbers, st.just(math.inf))
    stages = []
    for _ in range(draw(st.integers(1, 5))):
        size = draw(st.integers(1, 4))

        def column(of, size=size):
            return draw(st.lists(of, min_size=size, max_size=size))

        stage = StageOptions(column(maybe_failed), {name: column(maybe_failed) for name in names})
        stage.losses[0] = 1
        for cost in stage.costs.values():
            cost[0] = 2
        stages.append(stage)
    fixed_costs = draw(st.dictionaries(st.sampled_from(names), numbers))
    limits = {}
    for name in limited:
        finite = [list(filter(math.isfinite, stage.costs[name])) for stage in stages]
        low, high = (fixed_costs.get(name, 0) + sum(map(extreme, finite)) for extreme in (min, max))
        limits[name] = max(1 / 64, round(64 * (low + draw(st.integers(-1, 8)) / 8 * (high - low))) / 64)
    weights = draw(
        st.one_of(st.none(), st.lists(st.integers(0, 4), min_size=len(stages), max_size=len(stages)))
    )
    return stages, limits, draw(st.integers(1, 6)), fixed_costs, weights


@settings(max_examples=400, deadline=None)
@given(instances(), st.sampled_from([(100_000, 5_000, 64), (6, 3, 4), (1, 1, 2)]))
def test_selections_are_those_of_brute_force(instance, sizes):
    stages, limits, count, fixed_costs, weights = instance
    expected, nearest = brute_force(*instance)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in zip(("WIDTH", "DIVE_WIDTH", "_BLOCK"), sizes, strict=True):
            patch.setattr(enumeration, name, size)
        selected = select(stages, limits, count=count, fixed_costs=fixed_costs, weights=weights)
    assert selected.exact
    assert [as_tuple(each) for each in selected.best] == expected
    if expected:
        assert selected.nearest is None
        assert selected.bound == (expected[-1][1] if len(expected) == count else math.inf)
    else:
        assert as_tuple(selected.nearest) == nearest
        assert selected.bound == selected.nearest.ratio > 1


def totals_of_all(stages, names):
    """Losses and costs of every selection, in the order of choices, (n, 1 + n_names)."""
    columns = [[stage.losses for stage in stages], *([stage.costs[n] for stage in stages] for n in names)]
    return np.column_stack([np.sum(np.meshgrid(*c, indexing="ij"), axis=0).ravel() for c in columns])


def crowded_stages(kind, costs, generator):
    """Stages of whole numbers in which many selections are nearly or exactly as good as the best."""
    stages = []
    for size in generator.integers(3, 7, size=generator.integers(3, 6)):
        numbers = generator.integers(0, 6 if kind == "equals" else 1000, (costs, size))
        loss = {
            "equals": generator.integers(0, 4, size),
            "loss falls with the costs": generator.integers(0, 200, size) - numbers.sum(axis=0),
            "loss is the cost": -numbers[0],
        }[kind]
        stages.append(StageOptions(loss, dict(zip(NAMES, numbers, strict=False))))
    return stages


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["equals", "loss falls with the costs", "loss is the cost"]),
    st.integers(1, 3),
    st.sampled_from([-0.1, 0.1, 0.3, 0.5, 0.7]),
    st.sampled_from([1, 2, 10, 100, 10_000]),
    st.integers(0, 2**32),
    st.sampled_from([(100_000, 5_000, 64), (50, 10, 8), (3, 2, 4)]),
)
def test_crowded_selections_are_those_of_brute_force(kind, costs, share, count, seed, sizes):
    stages = crowded_stages(kind, costs, np.random.default_rng(seed))
    limits = {name: max(0.5, limit) for name, limit in middle_limits(stages, share).items()}
    totals = totals_of_all(stages, limits)
    ratios = np.max(totals[:, 1:] / list(limits.values()), axis=1)
    order = np.lexsort((*totals.T[::-1], np.where(ratios <= 1, 0, ratios)))
    expected = order[: min(count, max(1, (ratios <= 1).sum()))]
    with pytest.MonkeyPatch.context() as patch:
        for name, size in zip(("WIDTH", "DIVE_WIDTH", "_BLOCK"), sizes, strict=True):
            patch.setattr(enumeration, name, size)
        selected = select(stages, limits, count=count)
    assert selected.exact
    found = selected.best or (selected.nearest,)
    shape = [len(stage.losses) for stage in stages]
    assert [each.choices for each in found] == [np.unravel_index(each, shape) for each in expected]
    assert bool(selected.best) == (ratios.min() <= 1)


def random_stages(sizes, costs, seed):
    """Latencies follow the size of an option, losses fall with it; both with noise."""
    generator = np.random.default_rng(seed)
    stages = []
    for size in sizes:
        capacity = generator.uniform(1, 10, size)
        losses = 0.1 * generator.standard_normal(size) - np.log(capacity)
        noise = np.exp(0.3 * generator.standard_normal((costs, size)))
        stages.append(StageOptions(losses, dict(zip(NAMES, capacity * noise, strict=False))))
    return stages


def middle_limits(stages, share):
    extremes = {
        name: [sum(extreme(stage.costs[name]) for stage in stages) for extreme in (np.min, np.max)]
        for name in stages[0].costs
    }
    return {name: low + share * (high - low) for name, (low, high) in extremes.items()}


@pytest.mark.parametrize("costs", [1, 2, 3, 5])
@pytest.mark.parametrize("share", [-0.1, 0.1, 0.3, 0.6])
def test_real_numbers_give_the_losses_of_brute_force(costs, share):
    stages = random_stages([9, 10, 1, 11, 12], costs, costs)
    limits = middle_limits(stages, share)
    totals = totals_of_all(stages, limits)
    losses, ratios = totals[:, 0], np.max(totals[:, 1:] / list(limits.values()), axis=1)
    selected = select(stages, limits, count=20)
    expected = np.sort(losses[ratios <= 1])[:20]
    assert selected.exact
    assert [each.loss for each in selected.best] == pytest.approx(expected.tolist(), rel=1e-12)
    if not len(expected):
        assert selected.nearest.ratio == pytest.approx(ratios.min(), rel=1e-12)


def pareto_merge(stages, limit):
    """Smallest loss within the limit on the only cost, by merging fronts of losses and costs."""
    front = np.zeros((1, 2))
    for stage in stages:
        (cost,) = stage.costs.values()
        options = np.column_stack([cost, stage.losses])
        sums = (front[:, None] + options).reshape(-1, 2)
        sums = sums[np.lexsort(sums.T[::-1])]
        front = sums[np.r_[True, sums[1:, 1] < np.minimum.accumulate(sums[:, 1])[:-1]]]
    return front[front[:, 0] <= limit][-1, 1]


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_space_of_dna_gives_the_loss_of_a_pareto_merge(share):
    stages = random_stages([6**layers for layers in DNA_LAYERS], 1, 0)
    limits = middle_limits(stages, share)
    selected = select(stages, limits)
    assert selected.exact
    assert selected.best[0].loss == pytest.approx(pareto_merge(stages, limits["phone_ns"]), rel=1e-12)


def integer_programme(stages, limits):
    """Smallest loss within the limits, by a solver of integer programmes (HiGHS)."""
    sizes = [len(stage.losses) for stage in stages]
    one_each = np.repeat(np.eye(len(stages)), sizes, axis=1)
    costs = np.array([np.concatenate([stage.costs[name] for stage in stages]) for name in limits])
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(costs, -np.inf, list(limits.values()))]
    losses = np.concatenate([stage.losses for stage in stages])
    options = {"mip_rel_gap": 0}
    return milp(
        losses, constraints=constraints, integrality=np.ones_like(losses), bounds=(0, 1), options=options
    )


@pytest.mark.parametrize("costs", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_layers_give_the_loss_of_an_integer_programme(costs, seed):
    stages = random_stages([6] * 19, costs, seed)
    limits = middle_limits(stages, 0.3)
    solved = integer_programme(stages, limits)
    assert solved.success
    selected = select(stages, limits)
    assert selected.exact
    assert selected.best[0].loss == pytest.approx(solved.fun, abs=1e-5)


def product_of(first, second):
    return StageOptions(
        np.add.outer(first.losses, second.losses).ravel(),
        {name: np.add.outer(cost, second.costs[name]).ravel() for name, cost in first.costs.items()},
    )


def test_layers_and_the_blocks_made_of_them_give_the_same_networks():
    layers = random_stages([6] * 8, 3, 7)
    blocks = [product_of(*layers[i : i + 2]) for i in range(0, 8, 2)]
    limits = middle_limits(layers, 0.3)
    by_layers = select(layers, limits, count=5).best
    by_blocks = select(blocks, limits, count=5).best
    assert [each.loss for each in by_blocks] == pytest.approx([each.loss for each in by_layers])
    assert [tuple(i for choice in each.choices for i in divmod(choice, 6)) for each in by_blocks] == [
        each.choices for each in by_layers
    ]


def test_more_room_never_makes_the_best_worse():
    stages = random_stages([20] * 6, 2, 3)
    losses = [select(stages, middle_limits(stages, share)).best[0].loss for share in np.linspace(0.15, 1, 12)]
    assert losses == sorted(losses, reverse=True)


def test_limit_that_equals_the_costs_of_a_selection_admits_it():
    stages = [StageOptions([5, 1], {"macs": [100, 300]}), StageOptions([5, 2], {"macs": [250, 700]})]
    assert select(stages, {"macs": 1000}).best[0].choices == (1, 1)
    assert select(stages, {"macs": 999}).best[0].choices == (1, 0)


def test_tables_without_a_limit_are_summed_too():
    stages = [StageOptions([1, 0], {"phone_ns": [1, 2], "macs": [10, 20]})] * 2
    best = select(stages, {"phone_ns": 3}, fixed_costs={"macs": 5}).best[0]
    assert best.costs == {"phone_ns": 3, "macs": 35}
    assert best.ratio == 1


def test_result_is_json():
    stages = random_stages([3, 3], 2, 0)
    for share in (-0.1, 0.5):
        result = asdict(select(stages, middle_limits(stages, share), count=2))
        assert json.loads(json.dumps(result))["exact"] is True


def test_equals_come_in_the_order_of_their_costs_and_then_choices():
    stages = [StageOptions([1, 1, 1], {"phone_ns": [2, 1, 1]})] * 2
    best = select(stages, {"phone_ns": 4}, count=9).best
    assert [each.choices for each in best] == [
        (1, 1), (1, 2), (2, 1), (2, 2), (0, 1), (0, 2), (1, 0), (2, 0), (0, 0)
    ]  # fmt: skip


@pytest.mark.parametrize("costs", [1, 3])
def test_equal_layers_and_a_loss_that_is_the_cost_are_no_burden(costs):
    options = np.random.default_rng(0).integers(0, 1000, (costs, 6))
    stages = [StageOptions(-options[0], dict(zip(NAMES, options, strict=False)))] * 19
    selected = select(stages, middle_limits(stages, 0.5), effort=500_000)
    assert selected.exact


def test_spaces_too_large_to_be_numbered_are_selected_from():
    generator = np.random.default_rng(0)
    stages = [StageOptions(generator.random(5), {"macs": generator.random(5)}) for _ in range(90)]
    selected = select(stages, {"macs": 90.0})
    assert selected.best[0].choices == tuple(int(stage.losses.argmin()) for stage in stages)


def test_numbers_of_any_size_are_compared():
    for unit in (2.0**-1000, 2.0**-40, 1.0, 2.0**40, 2.0**960):
        stages = [StageOptions([unit, 0], {"macs": [unit, 3 * unit]})] * 3
        best = select(stages, {"macs": 5 * unit}).best[0]
        assert best.choices == (0, 0, 1)
        assert best.costs["macs"] == 5 * unit
    assert select(stages, {"macs": 1e308}).best[0].choices == (1, 1, 1)
    cheap = [StageOptions([1, 0], {"macs": [0, 1e-9]})]
    assert select(cheap, {"macs": 1e305}).best[0].costs == {"macs": pytest.approx(1e-9)}


@pytest.mark.parametrize("share", [0.3, 0.0])
def test_proof_that_is_given_up_leaves_a_bound(share):
    generator = np.random.default_rng(0)
    costs = [generator.uniform(1, 2, (2, 6)) for _ in range(8)]
    stages = [StageOptions(-cost.sum(axis=0), dict(zip(NAMES, cost, strict=False))) for cost in costs]
    limits = middle_limits(stages, share)
    best = select(stages, limits, count=3)
    for effort in (0, 1, 100, 10_000):
        quick = select(stages, limits, count=3, effort=effort)
        if best.best:
            assert all(each.ratio <= 1 for each in quick.best)
            assert quick.bound <= best.bound + 1e-12
            missing = [each.loss for each in best.best if each not in quick.best]
            assert all(loss >= quick.bound for loss in missing)
        else:
            assert quick.bound <= best.nearest.ratio <= quick.nearest.ratio
        assert quick.exact == (quick == best)
    assert not select(stages, limits, count=3, effort=0).exact


def test_stage_of_which_everything_failed_is_named():
    stages = [StageOptions([1], {"macs": [1]}), StageOptions([1, math.inf], {"macs": [math.inf, 1]})]
    with pytest.raises(BudgetError, match="no option of stage 1"):
        select(stages, {"macs": 9})


GOOD = StageOptions([1.0, 2.0], {"macs": [3.0, 4.0]})


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "no stage"),
        ([GOOD, StageOptions([1.0, math.nan], GOOD.costs)], "loss of option 1 of stage 1 is nan"),
        (
            [GOOD, StageOptions([1.0, 2.0], {"macs": [-math.inf, 1.0]})],
            "'macs' of option 0 of stage 1 is -inf",
        ),
        ([GOOD, StageOptions([1.0], GOOD.costs)], "stage 1 have shapes"),
        ([StageOptions([], {"macs": []})], "stage 0 have shapes"),
        ([StageOptions([[1.0]], {"macs": [[1.0]]})], "stage 0 have shapes"),
        ([GOOD, StageOptions([1.0], {"parameters": [1.0]})], "stage 1 has the costs"),
        (
            [GOOD, StageOptions([1e308, 1e308], GOOD.costs), StageOptions([1e308, 1e308], GOOD.costs)],
            "too large",
        ),
        ([GOOD, StageOptions([1.0], {"macs": [1e300]})], "too large"),
    ],
)
def test_tables_without_meaning_are_refused(stages, message):
    with pytest.raises(DataError, match=message):
        select(stages, {"macs": 1.0})


@pytest.mark.parametrize(
    ("limits", "request_", "message"),
    [
        ({}, {}, "needs a limit"),
        ({"latency": 1.0}, {}, "'latency', which is no cost"),
        ({"macs": 0.0}, {}, "limit of 0.0"),
        ({"macs": -1.0}, {}, "limit of -1.0"),
        ({"macs": math.nan}, {}, "limit of nan"),
        ({"macs": math.inf}, {}, "limit of inf"),
        ({"macs": 9.0}, {"count": 0}, "0 selections"),
        ({"macs": 9.0}, {"weights": [1.0]}, "1 weights are given for 2 stages"),
        ({"macs": 9.0}, {"weights": [1.0, -1.0]}, "weight of -1.0"),
        ({"macs": 9.0}, {"weights": [1.0, math.nan]}, "weight of nan"),
        ({"macs": 9.0}, {"fixed_costs": {"macs": math.inf}}, "fixed cost of inf"),
        ({"macs": 9.0}, {"fixed_costs": {"latency": 1.0}}, "'latency'"),
    ],
)
def test_requests_without_meaning_are_refused(limits, request_, message):
    with pytest.raises(RecipeError, match=message):
        select([GOOD, GOOD], limits, **request_)
