from __future__ import annotations

import math

import pytest

from latency_db.models.accuracy import accuracy_of, spearman, straight_line


def test_accuracy_counts_shares_errors_and_covered_networks() -> None:
    found = accuracy_of(
        [100, 100, 100, 200],
        [104, 92, 120, 200],
        [(90, 110), (90, 99), (110, 130), (150, 250)],
        0.9,
    )
    assert (found.within_5_percent, found.within_10_percent, found.covered) == (0.5, 0.75, 0.5)
    assert found.mape == pytest.approx((0.04 + 0.08 + 0.2) / 4)
    assert found.coverage == 0.9


def test_spearman_is_of_ranks_and_shares_the_ranks_of_equal_values() -> None:
    assert spearman([1, 2, 3, 4], [1, 10, 100, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_accuracy_has_null_for_a_correlation_that_is_undefined() -> None:
    assert accuracy_of([1, 1], [1, 2]).to_json()["spearman"] is None


@pytest.mark.parametrize("predicted", [[1.0], [0.0, 1.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_accuracy_refuses_what_is_no_latency(predicted: list[float]) -> None:
    with pytest.raises(ValueError, match="latencies"):
        accuracy_of([1.0, 1.0], predicted)


def test_straight_line_finds_slope_and_offset() -> None:
    assert straight_line([1, 2, 5], [12, 14, 20]) == pytest.approx((2, 10))
