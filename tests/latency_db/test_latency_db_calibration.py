from __future__ import annotations

import numpy as np

from latency_db.calibration import is_random, order


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
