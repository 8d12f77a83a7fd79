from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from devices.measurement.measurement import Reason
from devices.measurement.statistics import Interval
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.models.network_model import NetworkModel
from latency_db.tables.table import BlockSizes, LatencyTable

BLOCKS = {f"b{i}": 1e4 * 1.4**i for i in range(12)}


def table_of(latencies: dict[str, float], *failed: str) -> LatencyTable:
    rows = {block: Interval(ns * 0.99, ns, ns * 1.01, 0.9375) for block, ns in latencies.items()}
    return LatencyTable(
        Target("host", "litert"), rows, {block: Reason("unsupported", "no kernel") for block in failed}
    )


def draw_networks(generator: np.random.Generator, count: int) -> list[list[str]]:
    names = list(BLOCKS)
    return [list(generator.choice(names, size=generator.integers(3, 12))) for _ in range(count)]


def true_latency(network: list[str], scale: float, per_block: float, fixed: float) -> float:
    return scale * sum(BLOCKS[block] for block in network) + per_block * len(network) + fixed


TABLE = table_of(BLOCKS, "broken")


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(0.3, 2),
    cost_of_cheapest=st.floats(0, 5e4),
    fixed=st.floats(0, 1e6),
)
def test_fit_recovers_the_coefficients_when_there_is_no_noise(
    seed: int, scale: float, cost_of_cheapest: float, fixed: float
) -> None:
    per_block = cost_of_cheapest - scale * BLOCKS["b0"]
    networks = draw_networks(np.random.default_rng(seed), 8)
    sums = [sum(BLOCKS[block] for block in network) for network in networks]
    columns = np.stack([sums, [len(network) for network in networks], np.ones(8)], axis=1)
    assume(np.linalg.cond(columns / columns.max(axis=0)) < 1e3)
    measured = [true_latency(network, scale, per_block, fixed) for network in networks]
    model = NetworkModel.fit(TABLE, networks, measured)
    assert model.scale == pytest.approx(scale, rel=1e-6)
    assert model.per_block_ns == pytest.approx(per_block, rel=1e-6, abs=1)
    assert model.fixed_ns == pytest.approx(fixed, rel=1e-6, abs=1)
    assert [estimate.value_ns for estimate in model.estimate(networks)] == pytest.approx(measured)


def test_fit_is_hardly_moved_by_one_outlier() -> None:
    generator = np.random.default_rng(1)
    networks = draw_networks(generator, 12)
    measured = [true_latency(n, 0.8, 500, 2e4) * generator.uniform(0.99, 1.01) for n in networks]
    measured[3] *= 3
    model = NetworkModel.fit(TABLE, networks, measured)
    unseen = draw_networks(generator, 50)
    errors = [
        abs(estimate.value_ns / true_latency(network, 0.8, 500, 2e4) - 1)
        for estimate, network in zip(model.estimate(unseen), unseen, strict=True)
    ]
    assert max(errors) < 0.05


@pytest.mark.parametrize(("count", "coverage", "stated"), [(6, 0.9, 6 / 7), (20, 0.9, 0.9), (12, 0.5, 0.5)])
def test_interval_holds_the_stated_share_of_unseen_networks(
    count: int, coverage: float, stated: float
) -> None:
    generator = np.random.default_rng(count)
    inside, total = 0, 0
    for _ in range(25):
        networks = draw_networks(generator, count + 25)
        measured = [true_latency(n, 0.7, 3e3, 5e4) * math.exp(generator.normal(0, 0.05)) for n in networks]
        model = NetworkModel.fit(TABLE, networks[:count], measured[:count], coverage)
        assert model.coverage == pytest.approx(stated)
        for estimate, latency in zip(model.estimate(networks[count:]), measured[count:], strict=True):
            assert estimate.coverage == model.coverage
            inside += estimate.low_ns <= latency <= estimate.high_ns
            total += 1
    assert inside / total == pytest.approx(stated, abs=0.06)


def fitted() -> NetworkModel:
    generator = np.random.default_rng(0)
    networks = draw_networks(generator, 10)
    measured = [true_latency(n, 0.7, 3e3, 5e4) * generator.uniform(0.95, 1.05) for n in networks]
    return NetworkModel.fit(TABLE, networks, measured)


FITTED = fitted()


@given(network=st.lists(st.sampled_from(list(BLOCKS)), max_size=15))
def test_estimate_is_the_fixed_cost_and_the_costs_of_the_blocks(network: list[str]) -> None:
    model = FITTED
    (estimate,) = model.estimate([network])
    assert estimate.value_ns == pytest.approx(model.fixed_ns + sum(map(model.block_cost_ns, network)))
    assert estimate.high_ns == pytest.approx(estimate.value_ns * model.upper_factor)
    assert estimate.low_ns <= estimate.value_ns <= estimate.high_ns


@given(st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_common_margin_widens_intervals_by_the_sum_of_squares_and_can_be_taken_off(
    level: float, other: float
) -> None:
    wide = FITTED.with_level(level)
    assert math.log(wide.upper_factor) == pytest.approx(math.hypot(math.log(FITTED.upper_factor), level))
    assert wide.with_level(other).upper_factor == pytest.approx(FITTED.with_level(other).upper_factor)
    assert wide.with_level(0).upper_factor == pytest.approx(FITTED.upper_factor)
    assert wide.around(1e6).value_ns == FITTED.around(1e6).value_ns


def test_estimate_is_infinite_only_for_networks_with_a_block_that_cannot_run() -> None:
    model = FITTED
    fine, broken, empty = model.estimate([["b1"], ["b1", "broken"], []])
    assert math.isfinite(fine.high_ns)
    assert broken.low_ns == broken.value_ns == broken.high_ns == math.inf
    assert empty.value_ns == model.fixed_ns
    assert model.block_cost_ns("broken") == math.inf
    assert model.estimate([]) == []


def test_block_cost_is_never_negative_when_blocks_alone_pay_an_invocation_each() -> None:
    networks = draw_networks(np.random.default_rng(5), 9)
    measured = [true_latency(n, 1.0, -0.8 * BLOCKS["b0"], 0.8 * BLOCKS["b0"]) for n in networks]
    model = NetworkModel.fit(TABLE, networks, measured)
    assert model.per_block_ns == pytest.approx(-0.8 * BLOCKS["b0"])
    assert all(model.block_cost_ns(block) >= 0 for block in BLOCKS)


def test_model_refuses_blocks_of_another_space() -> None:
    with pytest.raises(EstimateError, match="lacks 2 of the blocks"):
        FITTED.estimate([["b1", "unknown 1"], ["unknown 2"]])
    with pytest.raises(EstimateError, match="lacks 1 of the blocks"):
        FITTED.block_cost_ns("unknown 1")


@pytest.mark.parametrize(
    ("networks", "measured", "what"),
    [
        ([["b0"]] * 5, [1e5] * 5, "at least 6"),
        ([["b0"]] * 6, [1e5] * 5 + [0.0], "networks that ran"),
        ([["b0"]] * 6, [1e5] * 5 + [math.nan], "networks that ran"),
        ([["b0"]] * 5 + [["broken"]], [1e5] * 6, "networks that ran"),
        ([["b0"]] * 5 + [["unknown"]], [1e5] * 6, "lacks 1 of the blocks"),
    ],
)
def test_fit_refuses_networks_from_which_nothing_follows(
    networks: list[list[str]], measured: list[float], what: str
) -> None:
    with pytest.raises(EstimateError, match=what):
        NetworkModel.fit(TABLE, networks, measured)


def test_fit_refuses_arguments_that_do_not_fit_together() -> None:
    with pytest.raises(ValueError, match="latencies"):
        NetworkModel.fit(TABLE, [["b0"]] * 6, [1e5] * 7)
    with pytest.raises(ValueError, match="coverage"):
        NetworkModel.fit(TABLE, [["b0"]] * 6, [1e5] * 6, coverage=1.0)


def test_fit_takes_networks_that_are_all_alike() -> None:
    model = NetworkModel.fit(TABLE, [["b3", "b4"]] * 6, [2e5] * 6)
    assert model.estimate([["b3", "b4"]])[0].value_ns == pytest.approx(2e5)


def test_fit_refuses_when_a_network_would_take_no_time() -> None:
    networks = [["b0"] * 3] + [["b5"] * 3] * 5
    latency = 3 * (BLOCKS["b5"] - BLOCKS["b0"])
    with pytest.raises(EstimateError, match="do not follow"):
        NetworkModel.fit(TABLE, networks, [1e3] + [latency] * 5)


def test_model_survives_json() -> None:
    adapter = TypeAdapter(NetworkModel)
    model = FITTED
    assert adapter.validate_json(adapter.dump_json(model)) == model


def test_model_is_frozen() -> None:
    model = FITTED
    with pytest.raises(AttributeError):
        model.scale = 1.0  # type: ignore[misc]
    assert replace(model, scale=1.0).scale == 1.0


def table_with_sizes(seed: int) -> LatencyTable:
    generator = np.random.default_rng(seed)
    sizes = {
        name: BlockSizes(int(generator.integers(1_000, 100_000)), int(generator.integers(100, 50_000)))
        for name in BLOCKS
    }
    return replace(table_of(BLOCKS), sizes=sizes)


def test_fit_finds_what_boundaries_and_weights_cost() -> None:
    table = table_with_sizes(3)
    # What the block of the least latency per boundary byte may lose at most.
    boundary = -0.5 * min(BLOCKS[name] / table.sizes[name].boundary_bytes for name in BLOCKS)
    networks = draw_networks(np.random.default_rng(4), 40)
    measured = [
        sum(
            0.9 * BLOCKS[name]
            + boundary * table.sizes[name].boundary_bytes
            + 0.2 * table.sizes[name].weight_bytes
            for name in network
        )
        + 500
        for network in networks
    ]
    model = NetworkModel.fit(table, networks, measured)
    assert model.scale == pytest.approx(0.9, rel=1e-4)
    assert model.boundary_ns_per_byte == pytest.approx(boundary, rel=1e-3)
    assert model.weights_ns_per_byte == pytest.approx(0.2, rel=1e-3)
    assert [estimate.value_ns for estimate in model.estimate(networks)] == pytest.approx(measured)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_no_block_costs_less_than_nothing_whatever_was_measured(seed: int) -> None:
    generator = np.random.default_rng(seed)
    table = table_with_sizes(seed)
    networks = draw_networks(generator, 10)
    measured = [float(generator.uniform(1e3, 1e6)) for _ in networks]
    model = NetworkModel.fit(table, networks, measured)
    sizes = table.sizes
    for name, latency in BLOCKS.items():
        cost = (
            model.scale * latency
            + model.per_block_ns
            + model.boundary_ns_per_byte * sizes[name].boundary_bytes
            + model.weights_ns_per_byte * sizes[name].weight_bytes
        )
        assert cost >= -1e-6 * latency
    assert model.scale >= 0


def test_interval_is_made_of_the_scored_networks_alone() -> None:
    generator = np.random.default_rng(5)
    networks = draw_networks(generator, 30)
    noise = [0.001] * 20 + [0.2] * 10
    measured = [
        true_latency(n, 0.8, 500, 2e4) * (1 + s * generator.normal())
        for n, s in zip(networks, noise, strict=True)
    ]
    quiet = NetworkModel.fit(TABLE, networks, measured, scored=range(20))
    assert quiet.upper_factor < NetworkModel.fit(TABLE, networks, measured).upper_factor
    assert quiet.coverage == 0.9
    with pytest.raises(ValueError, match="scored"):
        NetworkModel.fit(TABLE, networks, measured, scored=[])


def test_fit_takes_out_the_drift_that_the_canary_saw() -> None:
    generator = np.random.default_rng(0)
    networks = draw_networks(generator, 40)
    canaries = generator.uniform(95.0, 105.0, len(networks))
    table = replace(TABLE, canaries_ns=dict.fromkeys(BLOCKS, 100.0))
    calm = [true_latency(network, 1.0, -4e3, 2e5) for network in networks]
    drifted = [latency * canary / 100.0 for latency, canary in zip(calm, canaries, strict=True)]
    blind = NetworkModel.fit(table, networks, drifted)
    aware = NetworkModel.fit(table, networks, drifted, canaries_ns=list(canaries))
    assert aware.upper_factor < 1.0001 < 1.02 < blind.upper_factor
    assert aware.estimate(networks[:1])[0].value_ns == pytest.approx(calm[0])
    assert NetworkModel.fit(table, networks, drifted, canaries_ns=[None] * 40) == blind


def test_disturbed_network_is_left_out_where_enough_others_remain() -> None:
    networks = draw_networks(np.random.default_rng(4), 20)
    measured = [true_latency(network, 0.8, 500, 2e4) for network in networks]
    calm = NetworkModel.fit(TABLE, networks, measured)
    slowed = [3 * latency if index == 7 else latency for index, latency in enumerate(measured)]
    disturbed = {7: Interval(measured[7], slowed[7], slowed[7], 0.9)}
    model = NetworkModel.fit(TABLE, networks, slowed, disturbed=disturbed)
    assert model.fitted_networks == 19
    assert model.scale == pytest.approx(calm.scale, rel=1e-6)
    assert model.upper_factor == pytest.approx(1, abs=1e-6)


def test_disturbed_networks_are_used_with_wider_intervals_where_they_are_all_there_are() -> None:
    networks = draw_networks(np.random.default_rng(5), 20)
    measured = [true_latency(network, 0.8, 500, 2e4) for network in networks]
    disturbed = {index: Interval(0.8 * each, each, 1.1 * each, 0.9) for index, each in enumerate(measured)}
    model = NetworkModel.fit(TABLE, networks, measured, disturbed=disturbed)
    assert model.fitted_networks == 20
    assert [each.value_ns for each in model.estimate(networks)] == pytest.approx(measured, rel=1e-6)
    assert model.upper_factor == pytest.approx(1 / 0.8, rel=1e-3)


def test_networks_with_wider_intervals_weigh_less() -> None:
    networks = draw_networks(np.random.default_rng(6), 16)
    measured = [true_latency(network, 0.8, 500, 2e4) for network in networks]
    half = [latency * (1.3 if index % 2 else 1.0) for index, latency in enumerate(measured)]

    def fitted(width: float) -> list[float]:
        lows = [1 - width if index % 2 else 0.97 for index in range(len(half))]
        disturbed = {index: Interval(lows[index] * each, each, each, 0.9) for index, each in enumerate(half)}
        model = NetworkModel.fit(TABLE, networks, half, disturbed=disturbed)
        return [each.value_ns for each in model.estimate(networks)]

    def off(found: list[float]) -> float:
        return float(np.median([abs(one / other - 1) for one, other in zip(found, measured, strict=True)]))

    assert off(fitted(0.5)) < off(fitted(0.03)) / 2


def test_model_of_all_networks_is_right_on_the_only_one_and_holds_the_ends_of_every_interval() -> None:
    networks = [["b0", "b3"], ["b5"]]
    measured = [
        Interval(0.7 * sum_ns, 0.8 * sum_ns, 0.9 * sum_ns, confidence)
        for sum_ns, confidence in ((BLOCKS["b0"] + BLOCKS["b3"], 0.94), (2 * BLOCKS["b5"], 0.9))
    ]
    (only,) = NetworkModel.of_all(TABLE, networks[:1], measured[:1], [None]).estimate(networks[:1])
    assert only.value_ns == pytest.approx(measured[0].value_ns)
    assert only.coverage == 0.94
    model = NetworkModel.of_all(TABLE, networks, measured, [None, None])
    estimates = model.estimate(networks)
    assert all(
        e.low_ns <= m.low_ns and m.high_ns <= e.high_ns for e, m in zip(estimates, measured, strict=True)
    )
    assert model.coverage == 0.9
    assert model.scale == pytest.approx(0.8 * math.sqrt(2))


@pytest.mark.parametrize("networks", [[], [["broken"]]])
def test_model_of_all_networks_needs_networks_that_ran(networks: list[list[str]]) -> None:
    measured = [Interval(1, 2, 3, 0.9)] * len(networks)
    with pytest.raises(EstimateError, match="networks that ran"):
        NetworkModel.of_all(TABLE, networks, measured, [None] * len(networks))
