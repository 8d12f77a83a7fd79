from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from devices.measurement import Measurement, MeasurementFailure, Reason, Verdict
from latency_db.history import PRIOR, history_of, reading
from latency_db.history.reading import moment_of, standard_error
from latency_db.store.store import Store, open_store
from tests.latency_db.made_up_history import CANARY_NS, START, batch, hourly, store_batches, wave
from tests.latency_db.measurement_samples import DEVICE, PROTOCOL, RUNTIME, block
from tests.peak_memory import grown_bytes


def test_an_empty_database_knows_nothing_of_a_machine(store: Store) -> None:
    history = history_of(store, DEVICE)
    assert history.batches == ()
    assert history.between == PRIOR


def test_the_canaries_of_batches_tell_how_far_a_machine_changes(store: Store) -> None:
    for number, each in enumerate(hourly(wave(12, 0.04))):
        store_batches(store, [each], workloads=[f"block {number}"])
    history = history_of(store, DEVICE)
    assert [each.canary_ns for each in history.batches][:2] == [
        pytest.approx(CANARY_NS * math.exp(0.04), rel=1e-4),
        pytest.approx(CANARY_NS * math.exp(-0.04), rel=1e-4),
    ]
    assert history.repeats == ()
    assert 0.04 < history.between.batch.deviation < 0.06
    assert history.between.batch.seen == 12


def test_repeated_workloads_tell_it_where_there_is_no_canary(store: Store) -> None:
    moments = [START + timedelta(hours=number) for number in range(12)]
    factors = wave(12, 0.04)
    store_batches(store, [batch(m, factor, canary=False) for m, factor in zip(moments, factors, strict=True)])
    history = history_of(store, DEVICE)
    assert len(history.repeats) == 12
    assert 0.03 < history.between.batch.deviation < 0.045


def test_a_workload_repeated_by_a_longer_protocol_is_the_same_workload(store: Store) -> None:
    one, other = hourly([1.0, 1.1])
    longer = replace(other, protocol=replace(PROTOCOL, launches=50, max_launches=50))
    store_batches(store, [one, longer])
    assert len(history_of(store, DEVICE).repeats) == 2


def test_batches_of_many_workloads_are_read_once(store: Store) -> None:
    store_batches(store, hourly([1.0, 1.01, 0.99]), workloads=[f"block {number}" for number in range(7)])
    history = history_of(store, DEVICE)
    assert len(history.batches) == 3
    assert history.between.batch.seen == 3


def test_another_machine_of_the_same_kind_has_its_own_history(store: Store) -> None:
    other = replace(DEVICE, instance="machine-2")
    store_batches(store, [replace(each, device=other) for each in hourly(wave(6, 0.3))])
    assert history_of(store, DEVICE).batches == ()
    assert len(history_of(store, other).batches) == 6


def test_failures_are_no_batches(store: Store) -> None:
    failure = MeasurementFailure("", "host/onnxruntime:fp32@1", Reason("timeout", "took too long"))
    store.add(block("conv"), RUNTIME, DEVICE, PROTOCOL, failure)
    assert history_of(store, DEVICE).batches == ()


def test_invalid_batches_are_known_but_not_usual(store: Store) -> None:
    sound = hourly([1.0] * 6)
    invalid = [
        batch(START + timedelta(hours=20 + number), 3.0, verdict=Verdict.INVALID) for number in range(2)
    ]
    store_batches(store, [*sound, *invalid])
    history = history_of(store, DEVICE)
    assert len(history.batches) == 8
    assert history.between.batch.deviation < PRIOR.batch.deviation


def test_on_a_machine_that_is_always_disturbed_invalid_batches_are_the_usual_ones(store: Store) -> None:
    invalid = [
        batch(START + timedelta(hours=number), factor, verdict=Verdict.INVALID)
        for number, factor in enumerate(wave(10, 0.2))
    ]
    store_batches(store, invalid)
    assert history_of(store, DEVICE).between.batch.deviation > 0.1


def test_boots_are_read_with_the_batches(store: Store) -> None:
    batches = [
        batch(START + timedelta(days=number, hours=each), factor, boot=f"boot {number}")
        for number, factor in enumerate(wave(8, 0.1))
        for each in range(2)
    ]
    store_batches(store, batches)
    history = history_of(store, DEVICE)
    assert [each.boot for each in history.batches][:3] == ["boot 0", "boot 0", "boot 1"]
    assert {each.boot for each in history.repeats} == {f"boot {number}" for number in range(8)}
    assert history.between.boot.seen == 8
    assert history.between.boot.deviation > 0.08 > history.between.batch.deviation


def test_void_launches_are_counted_by_what_disturbed_them(store: Store) -> None:
    store_batches(store, [batch(START, void=2)])
    assert history_of(store, DEVICE).batches[0].void == {"other-load": 2}


def test_a_clock_that_was_set_back_is_told(store: Store) -> None:
    first, second, third = hourly([1.0, 1.0, 1.0])
    store_batches(store, [second, third, first])
    history = history_of(store, DEVICE)
    assert history.set_back == 1
    assert [each.started_at.hour for each in history.batches] == [8, 9, 10]


def test_the_history_until_a_moment_stays_what_it_was(store: Store) -> None:
    earlier, later = hourly([1.0, 1.02, 0.98]), hourly([2.0] * 8)[3:]
    store_batches(store, earlier)
    known = history_of(store, DEVICE)
    store_batches(store, later)
    assert history_of(store, DEVICE, known.batches[-1].started_at) == known
    assert len(history_of(store, DEVICE).batches) == 8


def test_later_measurements_crowd_out_nothing_of_the_history_until_a_moment(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_LISTED", 5)
    store_batches(store, hourly([1.0, 1.02, 0.98]))
    known = history_of(store, DEVICE)
    store_batches(store, hourly([2.0] * 9)[3:])
    assert len(known.batches) == 3
    assert history_of(store, DEVICE, known.batches[-1].started_at) == known
    assert [each.started_at.hour for each in history_of(store, DEVICE).batches] == [12, 13, 14, 15, 16]


@pytest.mark.slow
def test_a_long_history_takes_no_more_memory_than_a_few_of_its_measurements(tmp_path: Path) -> None:
    location = str(tmp_path / "latency.db")
    with open_store(location) as store:
        store_batches(store, [with_samples(each, 20_000) for each in hourly(wave(40, 0.02))])
    # All of them have 4 million samples, of some 40 bytes each.
    assert grown_bytes(read_history, location) < 80 << 20


def with_samples(measurement: Measurement, count: int) -> Measurement:
    launches = [
        replace(each, samples_ns=tuple(each.samples_ns[0] + n for n in range(count)))
        for each in measurement.launches
    ]
    return replace(measurement, launches=tuple(launches))


def read_history(location: str) -> None:
    with open_store(location) as store:
        assert len(history_of(store, DEVICE).repeats) == 40


def test_a_clock_that_only_goes_on_is_not_called_set_back(store: Store) -> None:
    store_batches(store, hourly([1.0] * 5))
    assert history_of(store, DEVICE).set_back == 0


def test_a_row_that_is_damaged_is_passed_over(store: Store) -> None:
    store_batches(store, hourly([1.0, 1.0, 1.0]))
    with store.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER IF EXISTS measurements_keep_on_UPDATE")) if (
            store.engine.dialect.name == "sqlite"
        ) else connection.execute(text("ALTER TABLE measurements DISABLE TRIGGER measurements_keep"))
        connection.execute(text("UPDATE measurements SET started_at = 'yesterday' WHERE id = 1"))
        connection.execute(text("UPDATE measurements SET verdict = 'invalid' WHERE id = 2"))
    assert len(history_of(store, DEVICE).batches) == 1


def test_moments_are_in_utc() -> None:
    assert moment_of("2025-01-01T10:00:00+02:00") == moment_of("2025-01-01T08:00:00+00:00")
    assert moment_of("2025-01-01T08:00:00") == START == datetime.fromisoformat("2025-01-01T08:00:00+00:00")
    assert moment_of("yesterday") is None


def test_one_odd_launch_does_not_make_the_error_of_a_batch() -> None:
    calm = standard_error([1.0, 1.01, 0.99, 1.0, 1.01])
    assert standard_error([1.0, 1.01, 0.99, 1.0, 9.0]) == pytest.approx(calm, rel=0.5)
    assert standard_error([1.0]) == 0.0
