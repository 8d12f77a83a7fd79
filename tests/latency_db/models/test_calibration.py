from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.statistics import Interval
from devices.target import Target
from latency_db.models.calibration import is_random, order, spread
from latency_db.models.fitting import left_out_predictions
from latency_db.models.network_model import NetworkModel
from latency_db.tables.table import LatencyTable


def candidates(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 100, size=(count, 3))


def test_order_takes_every_candidate_once_and_keeps_the_random_ones_in_order() -> None:
    plan = order(candidates(0, 50), 30)
    assert sorted(plan) == list(range(50))
    assert [index for index in plan if index < 30] == list(range(30))
    head = plan[:30]
    assert all((index < 30) == is_random(position) for position, index in enumerate(head))


def test_order_chooses_networks_that_tell_more_than_random_ones() -> None:
    features = candidates(1, 400)
    plan = order(features, 200)
    chosen = [index for index in plan if index >= 200][:10]

    def information(indices: list[int]) -> float:
        rows = features[indices] / features.sum(axis=1)[indices, None]
        return float(np.linalg.slogdet(rows.T @ rows)[1])

    assert information(chosen) > information(list(range(200, 210)))


def test_order_works_when_all_features_are_equal() -> None:
    assert sorted(order(np.ones((10, 4)), 6)) == list(range(10))


@given(st.integers(0, 40), st.integers(0, 40))
def test_networks_are_spread_evenly_among_the_blocks(blocks: int, networks: int) -> None:
    some, others = [f"block {n}" for n in range(blocks)], [f"network {n}" for n in range(networks)]
    together = spread(some, others)
    assert [each for each in together if each in some] == some
    assert [each for each in together if each in others] == others
    for end in range(len(together) + 1):
        due = end * networks / max(len(together), 1)
        assert abs(sum(each in others for each in together[:end]) - due) <= 1


def test_intervals_of_networks_in_several_batches_hold_for_a_batch_to_come() -> None:
    """Batches differ by 1.5 % in a way that no canary tells, networks of one batch by 0.5 %."""
    generator = np.random.default_rng(0)
    names = [f"b{n}" for n in range(8)]
    rows = {name: Interval(1e4, 1e4 * 1.5**n, 1e6, 0.9) for n, name in enumerate(names)}
    table = LatencyTable(Target("host", "litert"), rows, {})

    def share_held(batches: int) -> float:
        networks = [list(generator.choice(names, size=6)) for _ in range(40)]
        sums = np.array([sum(table.latency_ns(name) for name in network) for network in networks])
        batch = np.arange(40) % batches
        speed = generator.normal(0, 0.015, batches)[batch] + generator.normal(0, 0.005, 40)
        model = NetworkModel.fit(table, networks, (sums * np.exp(speed)).tolist(), batches=batch.tolist())
        later = sums * np.exp(generator.normal(0, 0.015, (200, 1)) + generator.normal(0, 0.005, (200, 40)))
        predicted = np.array([each.value_ns for each in model.estimate(networks)])
        return float((np.abs(np.log(later / predicted)) <= np.log(model.upper_factor)).mean())

    of_one, of_five = (float(np.mean([share_held(batches) for _ in range(20)])) for batches in (1, 5))
    assert of_one < 0.6
    assert 0.83 < of_five < 0.97


def test_network_is_left_out_alone_where_its_batch_holds_most() -> None:
    generator = np.random.default_rng(1)
    features = np.column_stack([generator.uniform(1, 5, 20), np.ones(20)])
    measured = features @ [2.0, 1.0] * np.exp(generator.normal(0, 0.01, 20))
    alone = left_out_predictions(features, measured, range(20), [None] * 20)
    most = left_out_predictions(features, measured, range(20), [0] * 15 + [1] * 5)
    few = left_out_predictions(features[:6], measured[:6], range(6), [0] * 3 + [1] * 3)
    assert few == pytest.approx(left_out_predictions(features[:6], measured[:6], range(6), range(6)))
    assert most[:15] == pytest.approx(alone[:15])
    assert most[15:] != pytest.approx(alone[15:])
