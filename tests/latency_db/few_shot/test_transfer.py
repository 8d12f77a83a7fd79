"""A new target from few samples and the tables of others: made-up machines with known latencies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.measurement.measurement import Reason, RuntimeIdentity
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.statistics import Interval
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.few_shot.transfer import Fit, Transfer
from latency_db.few_shot.transferred import TransferredModel
from latency_db.models.network_model import NetworkModel
from latency_db.tables.table import LatencyTable, TableKey

N_BLOCKS, N_NETWORKS = 40, 40
NAMES = [f"block {number}" for number in range(N_BLOCKS)]
DRAWN = [N_BLOCKS + number for number in range(10)]


class World:
    """Blocks with sizes, networks of eight of them, and machines with rates of their own."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.macs = np.exp(self._random.uniform(9, 14, N_BLOCKS))
        self.bytes = np.exp(self._random.uniform(9, 12, N_BLOCKS))
        self.gate = self._random.integers(0, 2, N_BLOCKS).astype(float)
        self.members = self._random.integers(0, N_BLOCKS, (N_NETWORKS, 8))
        self.features = np.stack([np.log(self.macs), np.log(self.bytes), self.gate], axis=1)

    @property
    def networks(self) -> list[list[str]]:
        return [[NAMES[block] for block in network] for network in self.members]

    def machine(self, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
        """Latencies of the blocks alone and of the networks, ns."""
        per_mac, per_byte, per_gate, call = self._random.uniform([0.1, 0.1, 0, 1000], [1, 1, 20_000, 20_000])
        inside = self.macs * per_mac + self.bytes * per_byte + self.gate * per_gate + 500
        inside *= np.exp(noise * self._random.normal(size=N_BLOCKS))
        return inside + call, inside[self.members].sum(axis=1) + call


def model(
    world: World, alone: np.ndarray, networks: np.ndarray, failing: tuple[int, ...] = ()
) -> NetworkModel:
    rows = {
        name: Interval(value, value, value, 0.9)
        for number, (name, value) in enumerate(zip(NAMES, alone.tolist(), strict=True))
        if number not in failing
    }
    failed = {NAMES[number]: Reason("unsupported", "") for number in failing}
    table = LatencyTable(Target("host", "made-up"), rows, failed)
    ran = [number for number, network in enumerate(world.members) if not set(failing) & set(network.tolist())]
    ran = ran[:15]
    return NetworkModel.fit(table, [world.networks[number] for number in ran], networks[ran].tolist())


def transfer(world: World, sources: int) -> Transfer:
    models = [model(world, *world.machine()) for _ in range(sources)]
    return Transfer(models, NAMES, world.features, world.networks)


def sampled(found: Transfer, latencies: np.ndarray, count: int = 20) -> np.ndarray:
    """Ten random networks, and what is chosen after them."""
    index = np.array(DRAWN)
    while len(index) < count:
        index = np.concatenate([index, found.choose(index, latencies[index], min(4, count - len(index)))])
    return index


def predicted(world: World, fit: Fit) -> np.ndarray:
    costs = fit.costs_ns[world.members].sum(axis=1) + fit.fixed_ns
    return np.concatenate([fit.blocks_ns, costs])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), slower=st.floats(0.01, 100))
def test_a_target_that_is_only_slower_or_faster_is_recovered(seed: int, slower: float) -> None:
    world = World(seed)
    alone, networks = world.machine(noise=0)
    found = Transfer([model(world, alone, networks)], NAMES, world.features, world.networks)
    latencies = np.concatenate([alone, networks]) * slower
    index = sampled(found, latencies)
    fit = found.fit(index, latencies[index], 0.9)
    np.testing.assert_allclose(predicted(world, fit), latencies, rtol=0.05)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), sources=st.integers(1, 4))
def test_measured_blocks_keep_their_latency_and_no_cost_is_negative(seed: int, sources: int) -> None:
    world = World(seed)
    found = transfer(world, sources)
    latencies = np.concatenate(world.machine())
    index = sampled(found, latencies)
    fit = found.fit(index, latencies[index], 0.9)
    measured = index[index < N_BLOCKS]
    np.testing.assert_array_equal(fit.blocks_ns[measured], latencies[measured])
    assert (fit.costs_ns >= 0).all()
    assert fit.fixed_ns >= 0
    assert (fit.blocks_ns > 0).all()


@pytest.mark.parametrize("sources", [1, 3])
def test_unlike_machines_are_predicted_better_than_by_scaling_a_source(sources: int) -> None:
    errors, scaled = [], []
    for seed in range(6):
        world = World(seed)
        models = [model(world, *world.machine()) for _ in range(sources)]
        found = Transfer(models, NAMES, world.features, world.networks)
        latencies = np.concatenate(world.machine())
        index = sampled(found, latencies)
        rest = np.setdiff1d(np.arange(N_BLOCKS, N_BLOCKS + N_NETWORKS), index)
        fit = found.fit(index, latencies[index], 0.9)
        errors.append(np.abs(predicted(world, fit) / latencies - 1)[rest].mean())
        seen = np.array([each.value_ns for each in models[0].estimate(world.networks)])
        factor = np.median(latencies[DRAWN] / seen[np.array(DRAWN) - N_BLOCKS])
        scaled.append(np.abs(factor * seen / latencies[N_BLOCKS:] - 1)[rest - N_BLOCKS].mean())
    assert np.mean(errors) < 0.5 * np.mean(scaled)
    assert np.mean(errors) < 0.08


@pytest.mark.parametrize("sources", [1, 3])
def test_intervals_hold_what_they_claim(sources: int) -> None:
    of_networks, of_blocks = [], []
    for seed in range(8):
        world = World(seed)
        found = transfer(world, sources)
        latencies = np.concatenate(world.machine(noise=0.04))
        index = sampled(found, latencies)
        fit = found.fit(index, latencies[index], 0.9)
        factor, coverage = found.calibrate(index, latencies[index], DRAWN, 0.9)
        assert coverage == pytest.approx(0.9)
        errors = np.abs(np.log(predicted(world, fit) / latencies))
        rest = np.setdiff1d(np.arange(len(latencies)), index)
        of_networks.append((errors[rest[rest >= N_BLOCKS]] <= math.log(factor)).mean())
        held = (fit.low_ns <= latencies[:N_BLOCKS]) & (latencies[:N_BLOCKS] <= fit.high_ns)
        of_blocks.append(held[rest[rest < N_BLOCKS]].mean())
    assert np.mean(of_networks) >= 0.82
    assert np.mean(of_blocks) >= 0.82


def test_coverage_is_stated_as_it_is_where_few_networks_were_drawn() -> None:
    world = World(0)
    found = transfer(world, 2)
    latencies = np.concatenate(world.machine())
    index = sampled(found, latencies)
    _, coverage = found.calibrate(index, latencies[index], DRAWN[:4], 0.9)
    assert coverage == pytest.approx(4 / 5)


@pytest.mark.parametrize("sources", [1, 4])
def test_sources_explain_a_machine_like_them_and_no_stranger(sources: int) -> None:
    told = []
    for seed in range(5):
        world = World(seed)
        found = transfer(world, sources)
        latencies = np.concatenate(world.machine())
        unknown = np.random.default_rng([seed, 3]).normal(size=len(latencies))
        index = sampled(found, latencies)
        strange = latencies * np.exp(0.6 * unknown)
        told.append([found.explain(index, each[index]).is_good for each in (latencies, strange)])
    assert [known for known, _ in told].count(True) >= 4
    assert [unknown for _, unknown in told].count(False) >= 4


def test_what_was_tried_is_not_chosen_again_though_it_failed() -> None:
    world = World(1)
    found = transfer(world, 2)
    latencies = np.concatenate(world.machine())
    index = sampled(found, latencies, 14)
    values = latencies[index]
    values[-2:] = np.nan
    assert not set(found.choose(index, values, 20).tolist()) & set(index.tolist())


def test_a_block_that_failed_on_one_source_is_known_from_the_other() -> None:
    world = World(2)
    models = [model(world, *world.machine(), failing=(3,)), model(world, *world.machine())]
    found = Transfer(models, NAMES, world.features, world.networks)
    latencies = np.concatenate(world.machine())
    index = sampled(found, latencies)
    fit = found.fit(index[index != 3], latencies[index[index != 3]], 0.9)
    assert fit.blocks_ns[3] == pytest.approx(latencies[3], rel=0.5)


def test_sources_that_share_no_blocks_cannot_be_compared() -> None:
    world = World(3)
    models = []
    for ran in (range(20), range(20, 40)):
        rows = {NAMES[number]: Interval(1.0, 1.0, 1.0, 0.9) for number in ran}
        failed = {name: Reason("unsupported", "") for name in NAMES if name not in rows}
        table = LatencyTable(Target("host", "made-up"), rows, failed)
        models.append(NetworkModel(table, 1.0, 0.0, 0.0, 1.1, 0.9, 6))
    with pytest.raises(EstimateError, match="0 blocks ran on all of"):
        Transfer(models, NAMES, world.features, world.networks)


def transferred() -> TransferredModel:
    key = TableKey(RuntimeIdentity("made-up", "1", "", "fp32", 1), {}, MeasuringProtocol())
    return TransferredModel(
        target=Target("phone", "made-up"),
        key=key,
        sources=(),
        measured={},
        estimated={},
        failed={"broken": Reason("unsupported", "")},
        costs_ns={"a": 10.0, "b": 20.0},
        fixed_ns=5.0,
        upper_factor=2.0,
        coverage=0.9,
        fitted_networks=9,
        canary_ns=100.0,
    )


def test_networks_are_sums_with_an_interval() -> None:
    (estimate,) = transferred().estimate([["a", "b", "b"]])
    assert (estimate.low_ns, estimate.value_ns, estimate.high_ns) == (27.5, 55.0, 110.0)
    assert estimate.coverage == 0.9


def test_network_with_a_block_that_cannot_run_is_infinite() -> None:
    (estimate,) = transferred().estimate([["a", "broken"]])
    assert estimate.low_ns == math.inf


def test_block_of_which_nothing_is_known_is_refused_and_the_target_named() -> None:
    with pytest.raises(EstimateError, match="nothing is known of the block c on phone/made-up"):
        transferred().estimate([["a", "c"]])


def test_slowness_is_relative_to_the_pace_of_the_samples() -> None:
    assert transferred().slowdown(110.0) == pytest.approx(1.1)
    assert transferred().slowdown(None) == 1.0
