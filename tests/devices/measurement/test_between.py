from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.between import CONFIDENCE, BetweenBatches, Spread
from devices.measurement.statistics import Interval

deviations = st.floats(1e-4, 0.3)
freedoms = st.floats(1, 1e4)
betweens = st.builds(
    BetweenBatches, st.builds(Spread, deviations, freedoms), st.builds(Spread, deviations, freedoms)
)
KNOWN = BetweenBatches(Spread(0.03, 1e6, 500), Spread(0.04, 1e6, 500))


@given(betweens, st.floats(1e3, 1e9), st.floats(0, 0.5), st.floats(0, 0.5))
def test_the_wide_interval_holds_the_narrow_one(
    between: BetweenBatches, value: float, below: float, above: float
) -> None:
    narrow = Interval(value * (1 - below), value, value * (1 + above), 0.9375)
    wide = between.around(narrow)
    assert wide.low_ns <= narrow.low_ns * (1 + 1e-9)
    assert wide.high_ns >= narrow.high_ns * (1 - 1e-9)
    assert wide.value_ns == value
    assert wide.low_ns > 0


def test_with_all_known_the_margin_is_that_of_the_difference_of_two_normal_batches() -> None:
    assert KNOWN.deviation == pytest.approx(0.05)
    assert KNOWN.margin() == pytest.approx(1.96 * math.sqrt(2) * 0.05, rel=1e-3)


def test_an_interval_of_no_width_gets_that_of_the_batches() -> None:
    wide = KNOWN.around(Interval(1e6, 1e6, 1e6, 0.99))
    assert math.log(wide.high_ns / 1e6) == pytest.approx(KNOWN.margin())
    assert math.log(1e6 / wide.low_ns) == pytest.approx(KNOWN.margin())
    assert wide.confidence == CONFIDENCE


def test_a_batch_that_claims_less_keeps_its_confidence() -> None:
    assert KNOWN.around(Interval(9e5, 1e6, 1.1e6, 0.9375)).confidence == 0.9375


@given(betweens, st.floats(1.1, 100))
def test_what_is_less_known_gives_wider_intervals(between: BetweenBatches, times: float) -> None:
    better = BetweenBatches(
        Spread(between.batch.deviation, times * between.batch.freedom),
        Spread(between.day.deviation, times * between.day.freedom),
    )
    assert better.margin() < between.margin()


def test_what_was_never_seen_is_assumed() -> None:
    prior = BetweenBatches(Spread(0.02, 3), Spread(0.01, 3))
    assert prior.assumed
    assert not BetweenBatches(Spread(0.02, 5, 3), Spread(0.01, 3)).assumed
    assert not replace(prior, boot=Spread(0.01, 4, 2)).assumed


def test_boots_add_to_what_batches_and_days_differ_by() -> None:
    with_boots = replace(KNOWN, boot=Spread(0.12, 1e6, 500))
    assert with_boots.deviation == pytest.approx(0.13)
    assert with_boots.margin() > KNOWN.margin()
