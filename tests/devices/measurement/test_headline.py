from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.headline import launch_interval

latencies = st.lists(st.integers(1, 10**12), min_size=1, max_size=60)


@given(latencies, st.floats(0.5, 0.99))
def test_launch_interval_holds_its_median_and_claims_no_more_than_it_has(values, confidence):
    interval = launch_interval(values, confidence)
    assert min(values) <= interval.low_ns <= interval.value_ns <= interval.high_ns <= max(values)
    assert 0 <= interval.confidence < 1
    if interval.confidence < confidence:
        assert (interval.low_ns, interval.high_ns) == (min(values), max(values))


@given(latencies)
def test_launch_interval_does_not_depend_on_the_order(values):
    assert launch_interval(values) == launch_interval(values[::-1])


@pytest.mark.parametrize(("count", "confidence"), [(1, 0.0), (5, 0.9375), (6, 0.96875)])
def test_launch_interval_claims_what_the_extremes_of_few_launches_carry(count, confidence):
    assert launch_interval(range(1, count + 1)).confidence == confidence


@pytest.mark.parametrize("count", [2, 5, 9, 20])
def test_launch_interval_covers_the_true_median_as_often_as_it_claims(count):
    generator = np.random.default_rng(count)
    true_median = float(np.exp(0.0))
    draws = np.exp(generator.standard_normal((4000, count)))
    intervals = [launch_interval(list(row)) for row in draws]
    covered = np.mean([interval.low_ns <= true_median <= interval.high_ns for interval in intervals])
    claimed = intervals[0].confidence
    assert abs(covered - claimed) < 4 * np.sqrt(claimed * (1 - claimed) / 4000)


def test_launch_interval_refuses_no_launches():
    with pytest.raises(ValueError):
        launch_interval([])
