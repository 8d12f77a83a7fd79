import random

import pytest

from latency_db.errors import EstimateError
from tests.pipeline.search.search_models import by_macs, latency_model, small_space


def test_estimate_adds_up_the_costs_of_blocks_and_the_fixed_part():
    space = small_space()
    model = latency_model(space, by_macs)
    drawn = [space.sample(random.Random(seed)) for seed in range(5)]
    for architecture, estimate in zip(drawn, model.estimate(drawn), strict=True):
        total = 500.0 + sum(model.block_cost_ns(block) for block in space.blocks(architecture))
        assert estimate.value_ns == pytest.approx(total)
        assert estimate.high_ns == pytest.approx(total * model.upper_factor)


def test_estimate_is_infinite_when_a_block_failed():
    space = small_space()
    architecture = space.reference()
    failed = space.blocks(architecture)[2]
    model = latency_model(space, lambda block: None if block == failed else 1.0)
    assert model.estimate([architecture])[0].high_ns == float("inf")
    assert model.block_cost_ns(failed) == float("inf")


def test_estimate_refuses_a_block_that_was_not_measured():
    model = latency_model(small_space(1), by_macs)
    wider = small_space(2)
    with pytest.raises(EstimateError, match="lacks") as caught:
        type(model)(wider, model.network_model).estimate([wider.reference()])
    assert "mbconv" in caught.value.why
    assert "lathe table build" in caught.value.fix


def test_estimate_is_that_of_the_network_model():
    space = small_space()
    model = latency_model(space, by_macs)
    for seed in range(5):
        architecture = space.sample(random.Random(seed))
        names = [block.identity for block in space.blocks(architecture)]
        (expected,) = model.network_model.estimate([names])
        (estimate,) = model.estimate([architecture])
        assert estimate.value_ns == pytest.approx(expected.value_ns, rel=1e-12)
        assert estimate.high_ns == pytest.approx(expected.high_ns, rel=1e-12)
        assert estimate.coverage == expected.coverage
