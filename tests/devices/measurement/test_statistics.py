from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit

from devices.measurement.statistics import Interval, can_carry, quantile, student_t_quantile

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


@pytest.mark.parametrize("freedom", [1, 1.3, 2, 2.7, 5, 10.5, 60, 5e3, 1e6])
@pytest.mark.parametrize("level", [0.5, 0.6, 0.95, 0.975, 0.995])
def test_student_t_quantile_is_that_of_scipy(freedom, level):
    assert student_t_quantile(freedom, level) == pytest.approx(stdtrit(freedom, level), rel=1e-5, abs=1e-12)
