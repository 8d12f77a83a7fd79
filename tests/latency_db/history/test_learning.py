from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement import BetweenBatches, Interval
from latency_db.history.learning import PRIOR, Seen, learned

START = datetime(2025, 1, 1, tzinfo=UTC)


def made_up(
    seed: int,
    *,
    batch: float,
    day: float = 0.0,
    days: int = 1,
    a_day: int = 10,
    series: int = 3,
    error: float = 0.0,
) -> list[Seen]:
    """Batches of a machine whose deviations are known: each changes all series alike."""
    draw = random.Random(seed)
    found = []
    for number in range(days):
        of_day = draw.gauss(0, day)
        for each in range(a_day):
            moment = START + timedelta(days=number, minutes=10 * each)
            of_batch = of_day + draw.gauss(0, batch)
            for name in range(series):
                value = 1e6 * (name + 1) * math.exp(of_batch + draw.gauss(0, error))
                found.append(Seen(name, moment, value, error))
    return found


def test_without_history_the_prior_is_told_as_such() -> None:
    assert learned([]) == PRIOR
    assert learned([]).assumed


def test_a_single_batch_of_many_series_tells_nothing() -> None:
    assert learned(made_up(0, batch=0.3, a_day=1, series=40)) == PRIOR


@pytest.mark.parametrize("deviation", [0.008, 0.02, 0.1])
def test_many_batches_leave_little_of_the_prior(deviation: float) -> None:
    found = learned(made_up(1, batch=deviation, a_day=140))
    assert found.batch.deviation == pytest.approx(deviation, rel=0.35)
    assert found.batch.seen == 140
    assert found.day == PRIOR.day


def test_days_are_told_from_batches() -> None:
    found = learned(made_up(2, batch=0.01, day=0.05, days=60, a_day=6))
    assert found.batch.deviation == pytest.approx(0.01, rel=0.25)
    assert found.day.deviation == pytest.approx(0.05, rel=0.3)
    assert found.day.seen == 60


def test_days_that_do_not_differ_leave_nothing_but_the_prior() -> None:
    found = learned(made_up(3, batch=0.02, days=40, a_day=8))
    assert found.day.deviation < PRIOR.day.deviation


def test_what_a_batch_sees_of_itself_is_taken_off() -> None:
    found = learned(made_up(4, batch=0.01, error=0.05, a_day=144, series=20))
    assert found.batch.deviation < 0.02


@given(st.integers(2, 60))
def test_many_series_of_few_batches_count_as_few_batches(series: int) -> None:
    found = learned(made_up(5, batch=0.05, a_day=3, series=series))
    assert found.batch.freedom == PRIOR.batch.freedom + 2


@given(st.floats(0.0, 0.2), st.integers(2, 40))
def test_the_margin_of_a_calm_machine_shrinks_as_batches_come_in(deviation: float, batches: int) -> None:
    values = made_up(6, batch=1e-4, a_day=batches, series=1)
    assert learned(values).batch.deviation < PRIOR.batch.deviation
    assert learned(values).margin() < PRIOR.margin()


@given(st.permutations(made_up(7, batch=0.03, days=3, a_day=4)))
def test_the_order_in_which_values_come_does_not_matter(values: Sequence[Seen]) -> None:
    found, expected = learned(values), learned(made_up(7, batch=0.03, days=3, a_day=4))
    assert found.batch.deviation == pytest.approx(expected.batch.deviation)
    assert found.day.deviation == pytest.approx(expected.day.deviation)


@pytest.mark.parametrize(("batch", "day"), [(0.01, 0.0), (0.02, 0.02), (0.005, 0.02)])
def test_wide_intervals_hold_what_another_day_gives(batch: float, day: float) -> None:
    held = 0
    for seed in range(200):
        history = made_up(seed, batch=batch, day=day, days=6, a_day=5, series=2)
        between = learned([each for each in history if each.moment < START + timedelta(days=4)])
        one, later = (
            next(each for each in history if each.moment == START + timedelta(days=number))
            for number in (4, 5)
        )
        interval = between.around(Interval(one.value_ns, one.value_ns, one.value_ns, 1.0))
        held += interval.low_ns <= later.value_ns <= interval.high_ns
    assert held >= 0.9 * 200


def test_one_batch_that_is_far_off_does_not_make_a_machine_unsteady() -> None:
    calm = made_up(9, batch=0.02, a_day=30)
    odd = [
        replace(each, value_ns=3 * each.value_ns) if each.moment == START + timedelta(minutes=50) else each
        for each in calm
    ]
    assert learned(odd).batch.deviation < 1.5 * learned(calm).batch.deviation


def test_a_machine_that_is_far_from_the_prior_still_has_intervals_that_hold() -> None:
    def margin(found: BetweenBatches) -> float:
        return found.margin() / (math.sqrt(2) * 0.15)

    assert margin(learned(made_up(8, batch=0.15, a_day=30))) > 1.5


def boots(seed: int, *, boot: float, day: float = 0.0, batch: float = 0.005, count: int = 30) -> list[Seen]:
    """So many boots of a machine, each of three days with four batches."""
    draw = random.Random(seed)
    found = []
    for number in range(count):
        of_boot = draw.gauss(0, boot)
        for of_day, each in zip((draw.gauss(0, day) for _ in range(3)), range(3), strict=True):
            for hour in range(4):
                moment = START + timedelta(days=3 * number + each, hours=hour)
                value = 1e6 * math.exp(of_boot + of_day + draw.gauss(0, batch))
                found.append(Seen("block", moment, value, boot=f"boot {number}"))
    return found


def test_boots_are_told_from_days_and_batches() -> None:
    found = learned(boots(1, boot=0.06, day=0.02))
    assert found.batch.deviation == pytest.approx(0.005, rel=0.3)
    assert found.day.deviation == pytest.approx(0.02, rel=0.3)
    assert found.boot.deviation == pytest.approx(0.06, rel=0.4)
    assert (found.day.seen, found.boot.seen) == (90, 30)


def test_boots_that_do_not_differ_leave_nothing_but_the_prior() -> None:
    assert learned(boots(2, boot=0.0, day=0.02, count=60)).boot.deviation < PRIOR.boot.deviation


def test_one_boot_or_boots_that_are_not_told_leave_the_prior() -> None:
    assert learned(boots(3, boot=0.1, count=1)).boot == PRIOR.boot
    assert learned([replace(each, boot=None) for each in boots(3, boot=0.1)]).boot == PRIOR.boot


def test_what_a_boot_changes_is_not_taken_for_a_change_between_days() -> None:
    known = boots(4, boot=0.1, day=0.005)
    untold = [replace(each, boot=None) for each in known]
    assert learned(known).day.deviation < 0.3 * learned(untold).day.deviation


def test_a_machine_that_is_started_every_day_learns_its_boots() -> None:
    daily = [replace(each, boot=str(each.moment.date())) for each in boots(5, boot=0.0, day=0.05)]
    found = learned(daily)
    assert found.day == PRIOR.day
    assert found.deviation == pytest.approx(math.hypot(0.05, 0.005), rel=0.3)


def disturbed(values: Sequence[Seen], every: int, by: float) -> list[Seen]:
    """Each so many-th batch is that much slower, and its interval says so."""
    moments = sorted({each.moment for each in values})
    slow = set(moments[1::every])
    return [
        replace(each, value_ns=each.value_ns * math.exp(by), width=1.2 * by)
        if each.moment in slow
        else replace(each, width=0.005)
        for each in values
    ]


@pytest.mark.parametrize("every", [2, 3])
def test_batches_that_say_they_were_disturbed_do_not_make_a_calm_machine_unsteady(every: int) -> None:
    calm = made_up(3, batch=0.002, a_day=24)
    found = learned(disturbed(calm, every, 0.15)).batch
    assert found.deviation == pytest.approx(learned(calm).batch.deviation, rel=0.35)
    told = learned([replace(each, width=0.0) for each in disturbed(calm, every, 0.15)]).batch
    assert found.deviation < told.deviation
    assert found.freedom < told.freedom


def test_on_a_machine_that_is_always_disturbed_all_batches_count_alike() -> None:
    values = made_up(4, batch=0.08, a_day=60)
    wide = [replace(each, width=0.3) for each in values]
    assert learned(wide) == learned(values)
    assert learned(wide).batch.deviation == pytest.approx(0.08, rel=0.35)


def test_a_wide_batch_beside_two_others_leaves_what_these_tell() -> None:
    calm = [Seen("a", START + timedelta(minutes=9 * each), 1e6, width=0.004) for each in range(2)]
    wide = Seen("a", START + timedelta(minutes=18), 2e6, width=5.0)
    found, told = learned([*calm, wide]).batch, learned(calm).batch
    assert found.deviation == pytest.approx(told.deviation, rel=0.01)
    assert found.freedom == pytest.approx(told.freedom, rel=0.01)
