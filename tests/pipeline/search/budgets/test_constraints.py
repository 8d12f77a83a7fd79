import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pipeline.errors import BudgetError
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.budgets.feasibility import Feasibility
from pipeline.spaces.base import check_architecture
from pipeline.spaces.cost import network_cost
from pipeline.spaces.mobile.config import MobileSpaceConfig
from pipeline.spaces.mobile.space import MobileSpace
from tests.pipeline.search.search_models import at_random, by_macs, by_parameters, latency_model, small_space

TARGETS = ("host/onnxruntime:fp32@1", "host/litert:fp32@1")


def all_upper_ns(space, model):
    everything = Constraints(space, {"t": model}, {"t": 1e300})
    return {a: model.estimate([a])[0].high_ns for a in everything.members}


def two_targets(share, space=None):
    """Limits as a share between each target's fastest and slowest member."""
    space = space or small_space()
    models = {TARGETS[0]: latency_model(space, by_macs), TARGETS[1]: latency_model(space, by_parameters)}
    loose = Constraints(space, models, dict.fromkeys(TARGETS, 1e12)).certificate
    limits = {
        r.target: r.fastest_estimate.high_ns
        + share * (r.slowest_estimate.high_ns - r.fastest_estimate.high_ns)
        for r in loose.ranges
    }
    return Constraints(space, models, limits)


def test_another_condition_holds_for_all_that_is_drawn_repaired_and_listed():
    space = small_space()
    limits = two_targets(0.7)
    anchor = limits.certificate.anchor
    most = 1.2 * network_cost(space.blocks(anchor)).parameters
    small = Constraints(
        space,
        limits.models,
        limits.limits_ns,
        allows=lambda each: network_cost(space.blocks(each)).parameters <= most,
    )
    generator = random.Random(0)
    drawn = [small.draw(generator) for _ in range(30)]
    repaired = [small.repair(space.sample(generator), generator) for _ in range(30)]
    for each in (*drawn, *repaired, *small.members):
        assert network_cost(space.blocks(each)).parameters <= most
        assert limits.feasible(each)
    assert 0 < len(small.members) < len(limits.members)
    assert all(map(small.feasible, small.members))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_certificate_holds_the_true_extremes_and_bounds(seed):
    space = small_space(1)
    models = {target: latency_model(space, at_random(f"{seed} {target}")) for target in TARGETS}
    try:
        constraints = Constraints(space, models, dict.fromkeys(TARGETS, 1e6))
        certificate = constraints.certificate
    except BudgetError:
        uppers = [all_upper_ns(space, model) for model in models.values()]
        assert not set(uppers[0]) & set(uppers[1])
        return
    ratios = {}
    for target_range in certificate.ranges:
        uppers = all_upper_ns(space, models[target_range.target])
        assert target_range.fastest_estimate.high_ns == pytest.approx(min(uppers.values()))
        assert target_range.slowest_estimate.high_ns == pytest.approx(max(uppers.values()))
        for architecture, upper in uppers.items():
            ratios.setdefault(architecture, []).append(upper / 1e6)
    smallest = min(max(both) for both in ratios.values() if len(both) == 2)
    assert certificate.least_ratio <= smallest * (1 + 1e-9)
    assert certificate.ratio >= smallest * (1 - 1e-9)
    assert certificate.reachable == constraints.feasible(certificate.anchor)


@pytest.mark.parametrize("target", TARGETS)
def test_certificate_is_exact_when_there_is_one_target(target):
    both = two_targets(0.3)
    constraints = Constraints(both.space, {target: both.models[target]}, {target: both.limits_ns[target]})
    certificate = constraints.certificate
    assert certificate.ratio == certificate.least_ratio
    assert certificate.anchor == certificate.ranges[0].fastest


def test_certificate_survives_json():
    adapter = TypeAdapter(Feasibility)
    certificate = two_targets(0.3).certificate
    again = adapter.validate_json(adapter.dump_json(certificate))
    assert again == certificate
    assert again.anchor.identity == certificate.anchor.identity


def test_nearest_limits_are_reachable_when_the_given_ones_are_not():
    tight = two_targets(-0.01)
    assert not tight.certificate.reachable
    nearest = Constraints(tight.space, tight.models, tight.certificate.nearest_limits_ns)
    assert nearest.certificate.reachable


def test_draw_names_the_nearest_limits_when_no_member_keeps_the_budget():
    tight = two_targets(-0.01)
    with pytest.raises(BudgetError) as caught:
        tight.draw(random.Random(0))
    for target in TARGETS:
        assert target in caught.value.what
        assert target in caught.value.fix
    assert f"{tight.limits_ns[TARGETS[0]] / 1e6:.4f} ms" in caught.value.what


def test_draw_says_so_when_budgets_can_be_kept_only_one_by_one():
    space = small_space(1)
    # What is cheap on one target is dear on the other.
    models = {
        TARGETS[0]: latency_model(space, by_macs),
        TARGETS[1]: latency_model(space, lambda block: 1e6 - by_macs(block)),
    }
    limits = {
        r.target: r.fastest_estimate.high_ns
        for r in Constraints(space, models, dict.fromkeys(TARGETS, 1e12)).certificate.ranges
    }
    constraints = Constraints(space, models, limits)
    with pytest.raises(BudgetError, match="together"):
        constraints.draw(random.Random(0))


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.0, 1.0), seed=st.integers(0, 2**32))
def test_draw_and_repair_give_members_within_every_budget(share, seed):
    constraints = two_targets(share + 0.05)
    generator = random.Random(seed)
    for _ in range(5):
        drawn = constraints.draw(generator)
        check_architecture(constraints.space, drawn)
        assert constraints.feasible(drawn)
        assert constraints.feasible(constraints.repair(constraints.space.mutate(drawn, generator), generator))


@pytest.mark.parametrize("times", [1.02, 1.5])
def test_repair_finds_a_member_where_decisions_matter_for_some_choices_alone(times):
    """A regular convolution has no expansion; as another operation, a block has the one it was drawn with."""
    stage = {"widths": [8, 16], "depths": [1, 2], "kernels": [3], "expansions": [6, 2]}
    config = {"stem_width": 8, "head_width": 8, "stages": [stage | {"operations": ["inverted", "regular"]}]}
    space = MobileSpace(MobileSpaceConfig.model_validate(config), (3, 16, 16), 4)
    model = latency_model(space, by_parameters)
    (fastest,) = Constraints(space, {"t": model}, {"t": 1e300}).certificate.ranges
    constraints = Constraints(space, {"t": model}, {"t": times * fastest.fastest_estimate.high_ns})
    generator = random.Random(0)
    for _ in range(100):
        assert constraints.feasible(constraints.repair(space.sample(generator), generator))


def test_repair_leaves_alone_what_fits():
    constraints = two_targets(1.0)
    drawn = constraints.space.sample(random.Random(1))
    assert constraints.repair(drawn, random.Random(2)) == drawn


def test_repair_takes_changed_choices_from_the_anchor_and_the_largest_that_fits_in_the_last():
    constraints = two_targets(0.3)
    reference, anchor = constraints.space.reference(), constraints.certificate.anchor
    kept_in_any = []
    for seed in range(10):
        repaired = constraints.repair(reference, random.Random(seed))
        changed = [name for name, choice in repaired.choices if choice != reference[name]]
        kept = [name for name in changed if repaired[name] != anchor[name]]
        assert changed and len(kept) <= 1
        for each in constraints.space.neighbours(repaired):
            if any(each[name] != repaired[name] for name in kept) and constraints.feasible(each):
                assert constraints.use(each) <= constraints.use(repaired)
        kept_in_any += kept
    assert kept_in_any


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.0, 1.0), seed=st.integers(0, 2**32))
def test_fill_uses_more_of_the_limits_and_keeps_them(share, seed):
    constraints = two_targets(share + 0.05)
    generator = random.Random(seed)
    drawn = constraints.draw(generator)
    filled = constraints.fill(drawn, generator)
    check_architecture(constraints.space, filled)
    assert constraints.feasible(filled)
    assert constraints.use(filled) >= constraints.use(drawn)


def test_fill_leaves_alone_what_is_near_a_limit_and_grows_the_smallest():
    constraints = two_targets(0.5)
    smallest = constraints.certificate.ranges[0].fastest
    grown = [constraints.fill(smallest, random.Random(seed)) for seed in range(10)]
    assert all(constraints.use(each) > constraints.use(smallest) for each in grown)
    near = [each for each in grown if constraints.use(each) >= 0.95]
    assert near and all(constraints.fill(each, random.Random(1)) == each for each in near)


def test_what_can_grow_has_a_larger_neighbour_within_the_limits():
    constraints = two_targets(0.5)
    assert constraints.can_grow(constraints.certificate.ranges[0].fastest)
    largest = max(constraints.members, key=constraints.use)
    assert not constraints.can_grow(largest)


def test_draw_reaches_every_member_when_the_budget_is_tight():
    space = small_space(1)
    model = latency_model(space, by_macs)
    uppers = sorted(all_upper_ns(space, model).values())
    constraints = Constraints(space, {"t": model}, {"t": uppers[6]})
    members = set(constraints.members)
    generator = random.Random(0)
    assert {constraints.draw(generator) for _ in range(2000)} == members


def test_certificate_refuses_a_space_of_which_nothing_runs():
    space = small_space(1)
    models = {"t": latency_model(space, lambda block: None if block.kind == "head" else 1.0)}
    with pytest.raises(BudgetError, match="No network of the space runs"):
        _ = Constraints(space, models, {"t": 1e9}).certificate


@pytest.mark.parametrize(
    "limits", [{}, {"t": 0.0}, {"t": -1.0}, {"t": math.nan}, {"t": math.inf}, {"u": 1.0}]
)
def test_constraints_refuse_limits_without_meaning(limits):
    space = small_space(1)
    with pytest.raises(ValueError):
        Constraints(space, {"t": latency_model(space, by_macs)}, limits)
