"""How well known devices explain samples, in shares of a latency."""

from __future__ import annotations

import numpy as np
import pytest

from latency_db.few_shot.explanation import WELL_EXPLAINED, Explanation


def test_errors_are_shares_of_the_latency_whatever_its_power() -> None:
    logs = np.log1p(np.array([0.1, 0.2, 0.3]))
    found = Explanation.of_logs(0.5 * logs, 0.5 * np.log1p(np.array([0.4, 0.05])), 0.5)
    assert found.error == pytest.approx(0.2)
    assert found.known_errors == pytest.approx((0.05, 0.4))


def test_a_stranger_misses_more_than_the_known_device_that_is_told_worst() -> None:
    assert Explanation(0.25, (0.02, 0.3)).is_good
    assert not Explanation(0.25, (0.02, 0.2)).is_good


@pytest.mark.parametrize("known", [(), (0.01, 0.02)])
def test_small_errors_are_good_whatever_known_devices_reach(known: tuple[float, ...]) -> None:
    assert Explanation(WELL_EXPLAINED, known).is_good
    assert not Explanation(1.01 * WELL_EXPLAINED, known).is_good
