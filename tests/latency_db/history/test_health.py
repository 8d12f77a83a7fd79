from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from devices.measurement import MeasurementFailure, Reason, Verdict
from latency_db.errors import StoreError
from latency_db.history import Health, health_of, history_of, machines_of
from latency_db.store.store import Store
from tests.latency_db.made_up_history import START, batch, hourly, store_batches
from tests.latency_db.measurement_samples import DEVICE, PROTOCOL, RUNTIME, block

LATER = START + timedelta(days=90)


def health(store: Store) -> Health:
    return health_of("host", history_of(store, DEVICE), now=LATER)


def test_a_steady_machine_is_as_usual_and_nothing_speaks_against_it(store: Store) -> None:
    store_batches(store, hourly([1.0, 1.002, 0.998] * 16))
    found = health(store)
    assert found.now.slowdown == pytest.approx(1.0, abs=0.005)
    assert found.void_share == 0
    assert found.between.day.seen == 3
    assert found.recommendation.startswith("Nothing speaks against it")


def test_the_level_is_that_of_the_canary_by_hour_and_day(store: Store) -> None:
    for day in range(4):
        start = START + timedelta(days=day)
        store_batches(store, hourly([1.0, 1.2], start=start))
    found = health(store)
    assert [(level.of, level.batches) for level in found.by_hour] == [("08", 4), ("09", 4)]
    assert found.by_hour[1].slowdown / found.by_hour[0].slowdown == pytest.approx(1.2, rel=1e-3)
    assert [level.of for level in found.by_day] == ["2025-01-01", "2025-01-02", "2025-01-03", "2025-01-04"]


def test_hours_that_differ_are_advised_against(store: Store) -> None:
    for day in range(6):
        store_batches(store, hourly([1.2, 1.0], start=START + timedelta(days=day)))
    assert "20% slower at 08 than at 09 UTC" in health(store).recommendation


def test_a_machine_that_is_slow_now_should_cool(store: Store) -> None:
    store_batches(store, hourly([1.0] * 20 + [1.3] * 3))
    assert "30% slower now than it usually is" in health(store).recommendation


def test_disturbances_are_counted_by_what_they_were_and_advised_against_first(store: Store) -> None:
    disturbed = [batch(START + timedelta(hours=number), void=3) for number in range(12)]
    store_batches(store, disturbed)
    found = health(store)
    assert found.void == {"other-load": 36}
    assert found.void_share == pytest.approx(0.6)
    assert "other processes run on it" in found.recommendation


def test_few_batches_are_told_to_be_few(store: Store) -> None:
    store_batches(store, hourly([1.0]))
    assert "1 batch is stored" in health(store).recommendation


def test_batches_that_differ_call_for_ratios(store: Store) -> None:
    draws = [1.0, 1.15, 0.9, 1.05, 0.85, 1.1, 1.2, 0.95, 0.9, 1.12, 1.0, 0.98]
    store_batches(store, hourly(draws))
    assert "lathe compare" in health(store).recommendation


def test_invalid_batches_are_counted(store: Store) -> None:
    store_batches(store, [*hourly([1.0] * 4), batch(START + timedelta(days=1), verdict=Verdict.INVALID)])
    assert health(store).invalid == 1


def test_a_clock_that_was_set_back_is_a_note_and_the_rest_is_told(store: Store) -> None:
    first, *others = hourly([1.0] * 12)
    store_batches(store, [*others, first])
    found = health(store)
    assert "1 of 12 batches began before one that was stored earlier" in found.notes[0]
    assert len(found.points) == 12


def test_a_clock_that_ran_ahead_is_a_note(store: Store) -> None:
    store_batches(store, hourly([1.0] * 3))
    found = health_of("host", history_of(store, DEVICE), now=START + timedelta(minutes=90))
    assert "1 of 3 batches are dated later than now" in found.notes[0]


def test_a_machine_without_canaries_has_no_health(store: Store) -> None:
    store_batches(store, [batch(START, canary=False)])
    with pytest.raises(StoreError) as caught:
        health(store)
    assert "no canary of the device 'host' is stored" in str(caught.value)
    assert caught.value.why == "1 batch is stored, by runtimes without one"


def test_a_machine_with_nothing_but_failures_has_no_health(store: Store) -> None:
    failure = MeasurementFailure("", "host/onnxruntime:fp32@1", Reason("timeout", "took too long"))
    store.add(block("conv"), RUNTIME, DEVICE, PROTOCOL, failure)
    with pytest.raises(StoreError) as caught:
        health(store)
    assert caught.value.why == "only failures are"


def test_machines_of_one_name_are_told_apart_the_one_seen_last_first(store: Store) -> None:
    other = replace(DEVICE, instance="machine-2")
    store_batches(store, [replace(each, device=other) for each in hourly([1.0] * 2)])
    store_batches(store, hourly([1.0] * 3, start=START + timedelta(days=1)))
    found = machines_of(store, "host")
    assert [(each.identity.instance, each.rows) for each in found] == [("machine-1", 3), ("machine-2", 2)]


def test_a_name_is_not_the_beginning_of_another(store: Store) -> None:
    store_batches(store, [batch(START, target="pi5/onnxruntime:fp32@1")])
    with pytest.raises(StoreError, match="knows nothing of the device 'pi'"):
        machines_of(store, "pi")
    with pytest.raises(StoreError):
        machines_of(store, "p_5")
