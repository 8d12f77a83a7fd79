from __future__ import annotations

import math
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from devices.measurement.measurement import PASSING_CODES, Measurement, Verdict
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.tables.table import LatencyTable, TableKey
from tests.latency_db.measurement_samples import DEVICE, PROTOCOL, RUNTIME, failure, measurement

TARGET = Target("host", "onnxruntime")


def test_table_gives_the_headline_with_its_interval_when_a_block_ran() -> None:
    outcome = measurement(1500)
    table = LatencyTable.of(TARGET, {"a": outcome, "b": measurement(verdict=Verdict.DEGRADED)})
    assert table.latency_ns("a") == 1500
    assert table.rows["a"] == outcome.latency
    assert set(table.rows) == {"a", "b"}


def test_table_is_infinite_and_keeps_the_reason_when_a_block_cannot_run() -> None:
    table = LatencyTable.of(TARGET, {"a": measurement(), "b": failure()})
    assert table.latency_ns("b") == math.inf
    assert table.failed == {"b": failure().reason}
    assert "b" not in table.rows


def test_table_of_another_space_is_refused_without_digests() -> None:
    table = LatencyTable.of(TARGET, {"a": measurement()})
    with pytest.raises(EstimateError, match="lacks 1 of the blocks"):
        table.latency_ns("z" * 64)
    with pytest.raises(EstimateError, match="lacks 2 of the blocks") as caught:
        table.require(["x" * 64, "a", "y" * 64])
    assert "xxxx" not in str(caught.value) + caught.value.why


def test_table_takes_disturbed_measurements_with_their_intervals_and_marks_them() -> None:
    invalid = measurement(8, Verdict.INVALID)
    table = LatencyTable.of(TARGET, {"a": measurement(), "b": invalid})
    assert table.rows["b"] == invalid.latency
    assert table.disturbed == ("b",)


@pytest.mark.parametrize("code", PASSING_CODES)
def test_block_whose_failure_may_pass_is_missing_and_does_not_count_as_one_that_cannot_run(code: str) -> None:
    table = LatencyTable.of(TARGET, {"a": measurement(), "b": failure(code), "c": failure()})
    assert table.missing == {"b": failure(code).reason}
    assert table.failed == {"c": failure().reason}
    assert table.latency_ns("b") == math.inf


def test_table_survives_json() -> None:
    adapter = TypeAdapter(LatencyTable)
    table = LatencyTable.of(
        TARGET, {"a": measurement(9, Verdict.INVALID), "b": failure(), "c": failure("timeout")}
    )
    assert adapter.validate_json(adapter.dump_json(table)) == table


def test_table_is_bound_to_the_key_of_its_measurements() -> None:
    table = LatencyTable.of(TARGET, {"a": measurement(), "b": failure()})
    key = TableKey.of(RUNTIME, DEVICE, PROTOCOL)
    assert table.key == key
    table.require_key(TableKey.of(RUNTIME, replace(DEVICE, instance="another of its kind"), PROTOCOL))
    assert LatencyTable.of(TARGET, {"b": failure()}).key is None


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        (replace(RUNTIME, version="1.21.0"), "runtime version: 1.20.0, not 1.21.0"),
        (replace(RUNTIME, precision="int8"), "runtime precision: fp32, not int8"),
        (replace(RUNTIME, threads=4), "runtime threads: 1, not 4"),
    ],
)
def test_table_refuses_another_runtime_precision_or_thread_count(runtime, said) -> None:
    table = LatencyTable.of(TARGET, {"a": measurement()})
    with pytest.raises(EstimateError) as caught:
        table.require_key(TableKey.of(runtime, DEVICE, PROTOCOL))
    assert said in caught.value.why


def test_table_refuses_rows_of_two_runtimes() -> None:
    other = replace(measurement(), runtime=replace(RUNTIME, version="1.21.0"))
    with pytest.raises(EstimateError, match="under one key") as caught:
        LatencyTable.of(TARGET, {"a": measurement(), "b": other})
    assert "1.21.0" in caught.value.why


def at_canary(latency_ns: int, *canaries_ns: int) -> Measurement:
    drawn = measurement(latency_ns)
    launches = tuple(
        replace(launch, canary_ns=(canary_ns, canary_ns + 1))
        for launch, canary_ns in zip(drawn.launches, canaries_ns, strict=True)
    )
    return replace(drawn, launches=launches)


def test_table_corrects_its_blocks_for_drift() -> None:
    outcomes = {
        "calm": at_canary(1000, 100, 100, 100),
        "slowed": at_canary(1100, 110, 110, 110),
        "hurried": at_canary(900, 90, 90, 90),
        "unknown": measurement(1000),
    }
    table = LatencyTable.of(TARGET, outcomes)
    assert table.canary_ns == 100.5
    assert table.rows["slowed"].value_ns == 1100
    for block in outcomes:
        assert table.latency_ns(block) == pytest.approx(1000, rel=0.001)
    assert table.slowdown(201.0) == 2.0
    assert table.slowdown(None) == 1.0
    assert LatencyTable.of(TARGET, {"a": measurement()}).slowdown(100.0) == 1.0


def test_canary_of_a_measurement_is_the_median_over_its_launches() -> None:
    assert at_canary(1000, 100, 140, 120).canary_ns == 120.5
    assert measurement().canary_ns is None
