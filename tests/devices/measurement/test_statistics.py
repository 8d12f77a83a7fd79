from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.statistics import Interval, can_carry, launch_interval, quantile

latencies = st.lists(st.integers(1, 10**12), min_size=1, max_size=60)
levels = st.floats(0, 1)


@given(latencies, levels)
def test_quantile_equals_numpys_linear_quantile(samples, level):
    assert quantile(samples, level) == pytest.approx(np.quantile(samples, level))


@given(latencies, levels, levels)
def test_quantile_grows_with_its_level_and_stays_among_the_samples(samples, one, other):
    low, high = sorted((one, other))
    slack = 1e-9 * max(samples)
    assert min(samples) - slack <= quantile(samples, low) <= quantile(samples, high) + slack
    assert quantile(samples, high) <= max(samples) + slack


@pytest.mark.parametrize(("samples", "level"), [([], 0.5), ([1], -0.1), ([1], 1.1), ([1], float("nan"))])
def test_quantile_refuses_no_samples_and_levels_outside_0_to_1(samples, level):
    with pytest.raises(ValueError):
        quantile(samples, level)


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


def test_widened_moves_either_end_outwards_by_a_share_of_the_value():
    assert Interval(90, 100, 120, 0.9).widened(0.01) == Interval(89, 100, 121, 0.9)
    assert Interval(90, 100, 120, 0.9).widened(0) == Interval(90, 100, 120, 0.9)


@pytest.mark.parametrize(
    ("level", "count"),
    [(0.5, 11), (0.9, 64), (0.1, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)],
)
def test_can_carry_says_from_how_many_samples_on_a_percentile_is_known(level, count):
    assert can_carry(level, count)
    assert not can_carry(level, count - 1)


@pytest.mark.parametrize("level", [-0.1, 0, 1, 1.5])
def test_can_carry_refuses_what_is_no_percentile(level):
    with pytest.raises(ValueError):
        can_carry(level, 100)
