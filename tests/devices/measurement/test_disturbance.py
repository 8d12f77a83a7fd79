from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.conditions import Conditions, RunQueue, Usage
from devices.measurement.disturbance import AMPLIFIED, CONTENTION, best_canary_ns, bounds, most_moved
from devices.measurement.headline import HEADLINE_QUANTILE
from devices.measurement.measurement import Launch, Reason

LEVEL = HEADLINE_QUANTILE
VOID = Reason("preempted", "it waited")


def launch(**fields) -> Launch:
    """One of 100 inferences of 1 ms, that something disturbed."""
    known = {"samples_ns": (1_000_000,) * 100, "canary_ns": (100, 100), "void": VOID}
    return Launch(
        1, 1, 1, peak_memory_bytes=1, before=Conditions(), after=Conditions(), **{**known, **fields}
    )


def moved(**fields) -> float:
    """What a launch may have been moved by beside what caches and memory add."""
    return most_moved(launch(**fields), LEVEL, 100) - CONTENTION


def test_inferences_that_nothing_interrupted_were_not_lengthened_by_waiting() -> None:
    assert moved(queue=RunQueue(50_000_000, 80)) == 0
    assert moved(queue=RunQueue(50_000_000, 81)) == pytest.approx(math.log(2))


def test_interrupted_inferences_were_lengthened_by_at_most_the_share_of_waiting() -> None:
    assert moved(queue=RunQueue(75_000_000, 300)) == pytest.approx(math.log(4))
    # The run queue while the samples were taken says more than that of the whole launch.
    assert moved(
        queue=RunQueue(50_000_000, 300), usage=Usage(1_000_000_000, 1, waiting_ns=900_000_000)
    ) == pytest.approx(math.log(2))


def test_where_the_run_queue_was_not_read_the_whole_launch_stands_for_it() -> None:
    assert moved(usage=Usage(1_000, 1, waiting_ns=500)) == pytest.approx(math.log(2))
    assert moved(usage=Usage(1_000, 1)) == moved() == 0


def test_a_launch_that_hardly_ran_is_bounded_by_nothing() -> None:
    assert moved(queue=RunQueue(91_000_000, 500)) == math.inf
    assert moved(usage=Usage(1_000, 1, stolen_ns=950)) == math.inf


def test_stolen_time_may_all_have_been_that_of_the_core_that_mattered() -> None:
    assert moved(usage=Usage(1_000, 1, waiting_ns=0, stolen_ns=200)) == pytest.approx(-math.log(0.8))


def test_a_network_may_be_slower_than_its_canary_by_what_was_measured() -> None:
    assert moved(canary_ns=(100, 110, 105)) == pytest.approx(AMPLIFIED * math.log(1.1))


def test_a_clock_that_was_set_moves_no_headline() -> None:
    assert moved(usage=Usage(1_000, 1, clock_jump_ns=3_600_000_000_000)) == 0


def test_launches_that_are_not_void_were_not_moved() -> None:
    sound = launch(void=None, queue=RunQueue(75_000_000, 300))
    assert bounds([sound, launch()], LEVEL, 100) == (0.0, CONTENTION)


def test_the_best_canary_is_that_of_all_launches() -> None:
    assert best_canary_ns([launch(canary_ns=(90, 120)), launch(canary_ns=(80,)), launch(canary_ns=())]) == 80
    assert best_canary_ns([launch(canary_ns=())]) == 1


@given(st.integers(1, 10**9), st.floats(0.0, 0.9), st.floats(0.2, 0.79))
def test_the_bound_holds_where_a_share_of_samples_waited(
    own_ns: int, share: float, interrupted: float
) -> None:
    # Made up as a scheduler would: interrupted inferences wait so long that the share of the sum is waited.
    count, hit = 100, max(1, round(100 * interrupted))
    wait_ns = round(own_ns * count * share / (1 - share) / hit)
    samples = sorted([own_ns + wait_ns] * hit + [own_ns] * (count - hit))
    seen = launch(samples_ns=tuple(samples), queue=RunQueue(wait_ns * hit, hit))
    headline_ns = seen.quantile_ns(LEVEL)
    assert headline_ns * math.exp(-most_moved(seen, LEVEL, 100)) <= own_ns + 1
    assert replace(seen, void=None).quantile_ns(LEVEL) == headline_ns
