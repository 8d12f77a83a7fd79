from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from devices.measurement.conditions import RunQueue
from devices.measurement.measurement import (
    PASSING_CODES,
    DeviceIdentity,
    Measurement,
    MeasurementFailure,
    Outcome,
    Reason,
    Verdict,
)
from latency_db.errors import StoreError
from latency_db.store.keys import Key, Workload
from latency_db.store.schema import published_latencies, published_series, published_sources
from latency_db.store.store import Store, open_store
from tests.latency_db.measurement_samples import (
    DEVICE,
    PROTOCOL,
    RUNTIME,
    block,
    devices,
    failure,
    failures,
    key_of,
    measurement,
    measurements,
    protocols,
    runtimes,
    workloads,
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        location = f"{folder}/latency.db"
        if request.param == "postgresql":
            location = request.getfixturevalue("server").new_database()
        with open_store(location) as opened:
            yield opened


def add(store: Store, workload: Workload, outcome: Outcome, device: DeviceIdentity = DEVICE) -> Key:
    runtime, protocol = RUNTIME, PROTOCOL
    if isinstance(outcome, Measurement):
        runtime, device, protocol = outcome.runtime, outcome.device, outcome.protocol
    return store.add(workload, runtime, device, protocol, outcome)


@settings(max_examples=30, deadline=None)
@given(workload=workloads, outcome=measurements)
def test_find_returns_an_equal_measurement_when_it_was_added(
    shared_store: Store, workload: Workload, outcome: Measurement
) -> None:
    assert shared_store.find(add(shared_store, workload, outcome)) == outcome


@settings(max_examples=15, deadline=None)
@given(workload=workloads, outcome=failures, runtime=runtimes, device=devices, protocol=protocols)
def test_find_returns_an_equal_failure_when_it_was_added(
    shared_store: Store, workload, outcome, runtime, device, protocol
) -> None:
    key = shared_store.add(workload, runtime, device, protocol, outcome)
    assert shared_store.find(key) == outcome


def test_find_returns_the_newest_when_there_are_several(store: Store) -> None:
    for latency_ns in (3000, 1000, 2000):
        key = add(store, block("a"), measurement(latency_ns))
    assert store.find(key) == measurement(2000)
    assert store.count() == 3


def test_find_returns_a_degraded_measurement(store: Store) -> None:
    degraded = measurement(verdict=Verdict.DEGRADED)
    assert store.find(add(store, block("a"), degraded)) == degraded


def test_find_passes_over_a_degraded_measurement_with_a_wide_interval_while_there_is_another(
    store: Store,
) -> None:
    void = Reason("other-load", "other processes ran")
    degraded = measurement(1000, Verdict.DEGRADED)
    wide = replace(
        degraded,
        launches=tuple(
            replace(each, void=void, queue=RunQueue(sum(each.samples_ns) // 2, len(each.samples_ns)))
            for each in degraded.launches
        ),
    )
    assert not wide.sharp
    key = add(store, block("a"), wide)
    assert store.find(key) is None
    assert store.find_disturbed(key) == wide
    add(store, block("a"), degraded)
    add(store, block("a"), wide)
    assert store.find(key) == degraded


def test_find_passes_over_invalid_measurements(store: Store) -> None:
    key = add(store, block("a"), measurement(verdict=Verdict.INVALID))
    assert store.find(key) is None
    add(store, block("a"), measurement(7))
    add(store, block("a"), measurement(verdict=Verdict.INVALID))
    assert store.find(key) == measurement(7)
    assert store.count() == 3


def test_find_returns_the_newest_outcome_when_a_failure_stands_beside_a_measurement(store: Store) -> None:
    add(store, block("a"), measurement())
    key = add(store, block("a"), failure())
    assert store.find(key) == failure()
    later = replace(measurement(), started_at=datetime.now(UTC).isoformat(timespec="seconds"))
    add(store, block("a"), later)
    assert store.find(key) == later


def test_find_prefers_what_was_measured_after_a_clock_was_set_back_and_loses_nothing(store: Store) -> None:
    before, after = (
        replace(measurement(latency_ns), started_at=started_at)
        for latency_ns, started_at in ((5, "2999-01-01T00:00:00+00:00"), (7, "2026-01-01T00:00:00+00:00"))
    )
    key = add(store, block("a"), before)
    assert store.find(key) == before
    add(store, block("a"), after)
    assert store.find(key) == after
    assert store.count() == 2


def test_find_returns_a_measurement_of_another_machine_of_the_kind(store: Store) -> None:
    key = add(store, block("a"), measurement())
    other_machine = replace(DEVICE, instance="machine-2")
    assert Key.of(block("a"), RUNTIME, other_machine, PROTOCOL) == key
    add(store, block("a"), replace(measurement(5), device=other_machine))
    found = store.find(key)
    assert isinstance(found, Measurement)
    assert found.device == other_machine


def test_store_keeps_everything_when_it_is_opened_again(location: str) -> None:
    with open_store(location) as store:
        key = add(store, block("a"), measurement())
    with open_store(location) as store:
        assert store.find(key) == measurement()


def test_store_makes_its_folder_when_there_is_none(tmp_path: Path) -> None:
    path = str(tmp_path / "new folder" / "with ? and #.db")
    with open_store(path) as store:
        add(store, block("a"), measurement())
    assert Path(path).exists()


def test_add_all_stores_many_outcomes_in_the_given_order(store: Store) -> None:
    entries = [(block(str(n)), RUNTIME, DEVICE, PROTOCOL, measurement(n + 1)) for n in range(50)]
    entries.append((block("0"), RUNTIME, DEVICE, PROTOCOL, failure()))
    keys = store.add_all(entries)
    assert store.count() == 51
    assert [store.find(key) for key in keys[1:50]] == [measurement(n + 1) for n in range(1, 50)]
    assert store.find(keys[0]) == failure()
    assert store.add_all([]) == []


def test_add_all_stores_nothing_when_one_outcome_is_refused(store: Store) -> None:
    stranger = replace(measurement(), runtime=replace(RUNTIME, version="2"))
    good = (block("a"), RUNTIME, DEVICE, PROTOCOL, measurement())
    with pytest.raises(ValueError, match="another runtime"):
        store.add_all([good, (block("b"), RUNTIME, DEVICE, PROTOCOL, stranger)])
    assert store.count() == 0


def test_add_writes_parts_again_when_they_were_cleared_away_meanwhile(store: Store) -> None:
    first = replace(measurement(), runtime=replace(RUNTIME, version="2"))
    store._known_parts |= {("runtime", Key.of(block("a"), first.runtime, DEVICE, PROTOCOL).runtime)}
    key = add(store, block("a"), first)
    assert store.find(key) == first


def test_store_works_in_memory_when_the_url_says_so() -> None:
    with open_store("sqlite://") as store:
        assert store.find(add(store, block("a"), failure())) == failure()


def test_add_refuses_a_measurement_that_ran_on_another_runtime(store: Store) -> None:
    stranger = replace(measurement(), runtime=replace(RUNTIME, version="2"))
    with pytest.raises(ValueError, match="another runtime"):
        store.add(block("a"), RUNTIME, DEVICE, PROTOCOL, stranger)


@pytest.mark.parametrize(
    "statement", ["DELETE FROM {table}", "UPDATE {table} SET {column} = 'x'", "TRUNCATE {table}"]
)
@pytest.mark.parametrize(
    ("table", "column"),
    [("measurements", "target"), ("published_latencies", "workload"), ("published_series", "device")],
)
def test_rows_cannot_be_changed_or_removed_when_they_are_stored(
    store: Store, statement: str, table: str, column: str
) -> None:
    if store.engine.dialect.name == "sqlite" and statement.startswith("TRUNCATE"):
        statement = "REPLACE INTO {table} SELECT * FROM {table}"
    elif statement.startswith("TRUNCATE"):
        statement += " CASCADE"
    key = add(store, block("a"), measurement())
    source = {"digest": "s", "name": "n", "content": {}, "imported_at": "now"}
    series = {"id": 1, "source": "s", "device": "d"}
    cell = {"series": 1, "row": 0, "workload": "w", "latency_ns": 1.0, "flag": ""}
    with store.engine.begin() as connection:
        connection.execute(insert(published_sources), source)
        connection.execute(insert(published_series), series)
        connection.execute(insert(published_latencies), cell)
    with pytest.raises(IntegrityError, match="kept for ever"), store.engine.begin() as connection:
        connection.execute(text(statement.format(table=table, column=column)))
    assert store.find(key) == measurement()
    with store.engine.connect() as connection:
        assert connection.execute(select(published_series)).one() == (1, "s", "d")
        assert connection.execute(select(published_latencies.c.workload)).one() == ("w",)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE measurements SET launches = x'00' WHERE id = 2",
        "UPDATE measurements SET reasons = '{' WHERE id = 2",
        "UPDATE measurements SET provenance = printf('%.*c', 9999, '[') WHERE id = 2",
        "UPDATE measurements SET instance = CAST(x'ff' AS TEXT) WHERE id = 2",
        "UPDATE measurements SET started_at = strftime('%Y-%m-%dT%H:%M:%S', 'now') WHERE id = 2",
    ],
)
def test_find_passes_over_a_damaged_row(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(str(tmp_path / "latency.db")) as store:
        key = add(store, block("a"), measurement(1000))
        add(store, block("a"), measurement(2000))
        with store.engine.begin() as connection:
            connection.execute(text("DROP TRIGGER measurements_keep_on_UPDATE"))
            connection.exec_driver_sql(damage)
        assert store.find(key) == measurement(1000)
    assert "measurement 2 is passed over" in caplog.text


def test_explain_miss_says_so_when_nothing_is_stored(store: Store) -> None:
    assert store.explain_miss(key_of(block("a"))) == "the database is empty"


def test_explain_miss_says_so_when_the_workload_is_new(store: Store) -> None:
    add(store, block("a"), measurement())
    assert store.explain_miss(key_of(block("b"))) == (
        "this workload was never measured; others were, on this runtime, device and protocol"
    )


def test_explain_miss_also_compares_the_other_parts_when_the_workload_is_new(store: Store) -> None:
    add(store, block("a"), measurement())
    wanted = Key.of(block("b"), RUNTIME, replace(DEVICE, kernel="6.2"), PROTOCOL)
    assert store.explain_miss(wanted) == (
        "this workload was never measured; the nearest of the others: "
        "the device differs: kernel '6.1' is stored, '6.2' is asked for"
    )


def test_find_never_answers_with_an_emulated_device_for_a_real_one(store: Store) -> None:
    emulated = replace(measurement(), device=replace(DEVICE, emulated=True))
    add(store, block("a"), emulated)
    assert store.find(key_of(block("a"))) is None
    assert store.explain_miss(key_of(block("a"))) == (
        "the device differs: emulated True is stored, False is asked for"
    )


def test_explain_miss_names_every_field_of_every_part_that_differs(store: Store) -> None:
    add(store, block("a"), measurement())
    wanted = Key.of(
        block("a"), replace(RUNTIME, threads=2, options=()), DEVICE, replace(PROTOCOL, launches=9)
    )
    assert store.explain_miss(wanted) == (
        "the runtime differs: options ['arena'] is stored, [] is asked for, threads 1 is stored, "
        "2 is asked for; the protocol differs: launches 5 is stored, 9 is asked for"
    )


@settings(max_examples=20, deadline=None)
@given(workload=workloads, stored=measurements, wanted=measurements)
def test_explain_miss_names_exactly_the_parts_that_differ(
    workload: Workload, stored: Measurement, wanted: Measurement
) -> None:
    with open_store("sqlite://") as store:
        key = add(store, workload, stored)
        other = Key.of(workload, wanted.runtime, wanted.device, wanted.protocol)
        message = store.explain_miss(other)
        for part in ("runtime", "device", "protocol"):
            differs = getattr(key, part) != getattr(other, part)
            assert (f"the {part} differs: " in message) == differs


def test_explain_miss_says_so_when_only_invalid_measurements_exist(store: Store) -> None:
    key = add(store, block("a"), measurement(verdict=Verdict.INVALID))
    assert "never validly" in store.explain_miss(key)


def test_explain_miss_says_so_when_nothing_is_missing(store: Store) -> None:
    assert "nothing is missing" in store.explain_miss(add(store, block("a"), measurement()))


def test_explain_miss_shows_what_is_stored_when_only_digests_are_asked_for(store: Store) -> None:
    add(store, block("a"), measurement())
    wanted = Key.of(block("a"), replace(RUNTIME, version="1.21.0"), DEVICE, PROTOCOL)
    message = store.explain_miss(Key(wanted.workload, wanted.runtime, wanted.device, wanted.protocol))
    assert message.startswith("the runtime differs")
    assert "1.20.0" in message
    assert "never been stored" in message


def test_explain_miss_names_the_fields_when_both_parts_are_known(store: Store) -> None:
    upgraded = replace(RUNTIME, version="1.21.0")
    add(store, block("a"), measurement())
    add(store, block("b"), replace(measurement(), runtime=upgraded))
    message = store.explain_miss(Key.of(block("a"), upgraded, DEVICE, PROTOCOL))
    assert message == "the runtime differs: version '1.20.0' is stored, '1.21.0' is asked for"


def test_explain_miss_compares_with_the_nearest_row_when_there_are_several(store: Store) -> None:
    far = replace(DEVICE, machine="pixel8", os="android")
    upgraded = replace(RUNTIME, version="1.21.0")
    add(store, block("a"), measurement())
    add(store, block("a"), replace(measurement(), device=far, runtime=upgraded))
    message = store.explain_miss(Key.of(block("a"), RUNTIME, DEVICE, replace(PROTOCOL, launches=9)))
    assert message.startswith("the protocol differs")
    assert "runtime" not in message


def test_failure_never_carries_a_time() -> None:
    assert not hasattr(MeasurementFailure("", "", failure().reason), "latency")


def measured_on(day: int, latency_ns: int) -> Measurement:
    return replace(measurement(latency_ns), started_at=f"2025-01-{day:02}T00:00:00+00:00")


def test_find_gives_what_was_measured_last_not_what_was_stored_last(store: Store) -> None:
    for day, latency_ns in ((2, 2000), (3, 3000), (1, 1000)):
        key = add(store, block("a"), measured_on(day, latency_ns))
    assert store.find(key) == measured_on(3, 3000)
    add(store, block("a"), measured_on(3, 4000))
    assert store.find(key) == measured_on(3, 4000)


@pytest.mark.parametrize("code", PASSING_CODES)
def test_a_failure_that_may_pass_hides_no_measurement_and_is_no_answer(store: Store, code: str) -> None:
    key = add(store, block("a"), failure(code))
    assert store.find(key) is None
    add(store, block("a"), measurement(2000))
    add(store, block("a"), failure(code))
    assert store.find(key) == measurement(2000)


def test_find_disturbed_gives_the_measurement_whose_launches_agree_best(store: Store) -> None:
    def spread(step: int) -> Measurement:
        invalid = measurement(1000, Verdict.INVALID)
        launches = [
            replace(each, samples_ns=(1000 + n * step,) * 20) for n, each in enumerate(invalid.launches)
        ]
        return replace(invalid, launches=tuple(launches))

    key = add(store, block("a"), measurement(5))
    assert store.find_disturbed(key) is None
    for step in (300, 100, 200):
        add(store, block("a"), spread(step))
    assert store.find_disturbed(key) == spread(100)
    assert store.find(key) == measurement(5)


def test_a_store_that_must_exist_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "mistyped.db"
    with pytest.raises(StoreError, match="there is no latency database at") as caught:
        open_store(str(path), must_exist=True)
    assert caught.value.why == "there is no such file"
    assert not path.parent.exists()


def test_a_store_that_must_exist_is_opened_where_it_does(location: str) -> None:
    with open_store(location) as store:
        key = add(store, block("a"), measurement())
    with open_store(location, must_exist=True) as store:
        assert store.find(key) == measurement()


def test_a_database_without_tables_does_not_pass_for_one_that_exists(new_location: Callable[[], str]) -> None:
    location = new_location()
    if "://" not in location:
        Path(location).touch()
    with pytest.raises(StoreError, match="there is no latency database at") as caught:
        open_store(location, must_exist=True)
    assert caught.value.why == "it has no tables"
