from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement import Conditions, Launch, MeasuringProtocol, Verdict
from devices.verdict import judge

CALM = Conditions(None, None, None, None, None, 3)
PROTOCOL = MeasuringProtocol()


def launch(samples, before=CALM, after=CALM):
    return Launch(1, 1, 1, tuple(samples), 1, before, after)


def codes(launches):
    verdict, reasons = judge(launches, PROTOCOL)
    assert all(reason.detail for reason in reasons)
    return verdict, [reason.code for reason in reasons]


def test_judge_says_valid_when_launches_agree_and_are_flat():
    assert codes([launch([1000 + i] * 60) for i in range(5)]) == (Verdict.VALID, [])


@pytest.mark.parametrize(
    ("slowest", "verdict"), [(1099, Verdict.VALID), (1101, Verdict.DEGRADED), (1301, Verdict.INVALID)]
)
def test_judge_counts_the_spread_of_headlines_when_launches_disagree(slowest, verdict):
    found, reasons = codes([launch([value] * 60) for value in (1000, 1000, 1000, 1000, slowest)])
    assert (found, reasons) == (verdict, [] if verdict == "valid" else ["launches-disagree"])


@pytest.mark.parametrize(("count", "verdict"), [(2, Verdict.INVALID), (10, Verdict.DEGRADED)])
def test_judge_says_few_samples_when_a_launch_has_hardly_any(count, verdict):
    assert codes([launch([1000] * 60)] * 4 + [launch([1000] * count)]) == (verdict, ["few-samples"])


def test_judge_says_few_launches_when_disagreement_cannot_be_seen():
    assert codes([launch([1000] * 60)] * 2) == (Verdict.DEGRADED, ["few-launches"])


def test_judge_sees_a_trend_when_most_launches_slow_down_within():
    rising = [launch(range(1000, 1300))] * 5
    assert codes(rising) == (Verdict.DEGRADED, ["trend"])
    assert codes([launch(range(1300, 1000, -1))] * 5) == (Verdict.DEGRADED, ["trend"])
    assert codes(rising[:1] + [launch([1029] * 300)] * 4) == (Verdict.VALID, [])


def test_judge_says_throttled_when_the_counter_moved():
    hot = launch([1000] * 60, after=replace(CALM, throttle_count=5))
    assert codes([hot, *[launch([1000] * 60)] * 4]) == (Verdict.DEGRADED, ["throttled"])
    unread = launch([1000] * 60, before=replace(CALM, throttle_count=None))
    assert codes([unread] * 5) == (Verdict.VALID, [])


def test_judge_refuses_no_launches():
    with pytest.raises(ValueError):
        judge([], PROTOCOL)


@given(
    st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=40), min_size=1, max_size=6),
    st.integers(2, 9),
)
def test_judge_does_not_depend_on_the_unit_of_time(samples, factor):
    plain = judge([launch(row) for row in samples], PROTOCOL)
    scaled = judge([launch([factor * value for value in row]) for row in samples], PROTOCOL)
    assert [reason.code for reason in plain[1]] == [reason.code for reason in scaled[1]]
    assert (plain[0] is Verdict.VALID) == (not plain[1])
