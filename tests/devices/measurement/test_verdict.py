from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.conditions import Conditions, RunQueue, Usage
from devices.measurement.measurement import Launch, Reason, Verdict, counted
from devices.measurement.protocol import MeasuringProtocol
from devices.measurement.verdict import judge, mark, settled

CALM = Conditions(throttle_count=3)
QUIET = Usage(wall_ns=1_000_000_000, own_cpu_ns=1_000_000_000, waiting_ns=0, other_cpu_ns=0, stolen_ns=0)
PROTOCOL = MeasuringProtocol()


def launch(samples, before=CALM, after=CALM, **fields):
    return Launch(1, 1, 1, tuple(samples), 1, before, after, **{"canary_ns": (100, 100), **fields})


def disturbed(code="other-load"):
    return launch([1000] * 60, void=Reason(code, "something ran"))


def voids(*launches, cores=2):
    return [each.void and each.void.code for each in mark(launches, PROTOCOL, cores=cores)]


def codes(launches):
    verdict, reasons = judge(launches, PROTOCOL)
    assert all(reason.detail for reason in reasons)
    return verdict, [reason.code for reason in reasons]


def test_judge_says_valid_when_launches_agree_and_are_flat():
    assert codes([launch([1000 + i] * 60) for i in range(5)]) == (Verdict.VALID, [])


@pytest.mark.parametrize(
    ("slowest", "verdict"), [(1049, Verdict.VALID), (1051, Verdict.DEGRADED), (1301, Verdict.INVALID)]
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


def test_mark_voids_a_launch_when_its_canary_drifted_from_the_best_of_the_batch():
    steady, drifting = launch([1], canary_ns=(100, 104)), launch([1], canary_ns=(101, 106))
    assert voids(steady, drifting) == [None, "canary-drift"]
    assert voids(drifting) == [None]
    assert voids(launch([1], canary_ns=())) == [None]


@pytest.mark.parametrize(
    ("usage", "code"),
    [
        (replace(QUIET, waiting_ns=60_000_000), "preempted"),
        (replace(QUIET, waiting_ns=40_000_000), None),
        (replace(QUIET, other_cpu_ns=110_000_000), "other-load"),
        (replace(QUIET, other_cpu_ns=90_000_000), None),
        (replace(QUIET, stolen_ns=110_000_000), "stolen"),
        (replace(QUIET, clock_jump_ns=-3_600_000_000_000), "clock-jumped"),
        (replace(QUIET, clock_jump_ns=3_600_000_000_000), "clock-jumped"),
        (Usage(1_000_000_000, 1), None),
        (Usage(30_000_000, 1, other_cpu_ns=10_000_000), None),
        (Usage(30_000_000, 1, other_cpu_ns=30_000_000), "other-load"),
    ],
)
def test_mark_voids_a_launch_when_something_else_ran_or_the_clock_moved(usage, code):
    assert voids(launch([1], usage=usage)) == [code]


def test_mark_counts_the_load_of_others_over_all_cores():
    busy = launch([1], usage=replace(QUIET, other_cpu_ns=110_000_000))
    assert voids(busy, cores=2) == ["other-load"]
    assert voids(busy, cores=8) == [None]


def test_mark_keeps_every_sample_and_what_was_void_before():
    before = disturbed("stolen")
    (after,) = mark([before], PROTOCOL, cores=1)
    assert after == before


def test_counted_leaves_void_launches_out_when_enough_others_are_left():
    sound = [launch([1000 + i] * 60) for i in range(3)]
    assert counted([disturbed(), *sound]) == tuple(sound)
    assert counted([disturbed(), *sound[:2]]) == (disturbed(), *sound[:2])


def test_settled_wants_the_launches_of_the_protocol_that_count_and_agree():
    sound = [launch([1000] * 60)] * PROTOCOL.launches
    assert settled(sound, PROTOCOL)
    assert not settled([*sound[1:], disturbed()], PROTOCOL)
    assert settled([*sound, disturbed()], PROTOCOL)
    assert not settled([*sound[1:], launch([1200] * 60)], PROTOCOL)


def test_judge_says_valid_when_void_launches_were_made_up_for():
    assert codes([disturbed(), *[launch([1000] * 60)] * 5]) == (Verdict.VALID, [])


def test_judge_says_degraded_when_hardly_a_launch_was_undisturbed():
    sound = [launch([1000] * 60)] * 2
    found = codes([disturbed(), disturbed(), disturbed("stolen"), *sound])
    assert found == (Verdict.DEGRADED, ["other-load", "stolen"])
    assert codes([disturbed("canary-drift"), disturbed(), *sound])[0] is Verdict.DEGRADED


def waiting(latency_ns, share):
    """A launch of inferences that were all interrupted, and waited for such a share of their time."""
    queue = RunQueue(round(60 * latency_ns * share), 60)
    return launch([latency_ns] * 60, void=Reason("preempted", "it waited"), queue=queue)


def test_launches_that_disagree_by_no_more_than_was_waited_are_not_invalid():
    explained = [waiting(round(1000 / (1 - share)), share) for share in (0.1, 0.5, 0.6, 0.3, 0.7)]
    assert codes(explained) == (Verdict.DEGRADED, ["preempted", "launches-disagree"])
    unexplained = [waiting(latency_ns, 0.1) for latency_ns in (1000, 2000, 2500, 1400, 3300)]
    assert codes(unexplained) == (Verdict.INVALID, ["preempted", "launches-disagree"])


def test_judge_says_unbounded_when_most_launches_hardly_ran():
    assert codes([waiting(1000, 0.95)] * 3 + [waiting(1000, 0.5)] * 2) == (
        Verdict.INVALID,
        ["preempted", "unbounded"],
    )
    assert codes([waiting(1000, 0.95)] * 2 + [waiting(1000, 0.5)] * 3)[0] is Verdict.DEGRADED


def test_judge_says_no_canary_when_conditions_cannot_be_compared():
    assert codes([launch([1000] * 60, canary_ns=())] * 5) == (Verdict.DEGRADED, ["no-canary"])


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


def test_judge_takes_over_the_warnings_of_a_runtime_after_which_times_are_not_what_was_asked_for():
    warned = launch([1000] * 60, warnings=(Reason("precision-unused", "fp16"), Reason("engine-built", "")))
    assert codes([warned] * 5) == (Verdict.DEGRADED, ["precision-unused"])
