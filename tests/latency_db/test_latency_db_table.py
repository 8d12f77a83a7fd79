from __future__ import annotations

import math

import pytest
from measurement_samples import failure, measurement
from pydantic import TypeAdapter

from devices.measurement import Verdict
from devices.target import Target
from latency_db.errors import EstimateError
from latency_db.table import LatencyTable

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


def test_table_lists_every_block_that_is_missing() -> None:
    table = LatencyTable.of(TARGET, {"a": measurement()})
    with pytest.raises(EstimateError, match="lacks 1 blocks"):
        table.latency_ns("z")
    with pytest.raises(EstimateError) as caught:
        table.require(["x", "a", "y"])
    assert "x, y" in caught.value.why


def test_table_refuses_invalid_measurements_and_says_why() -> None:
    outcomes = {"a": measurement(), "b": measurement(8, Verdict.INVALID)}
    with pytest.raises(EstimateError, match="1 of 2 blocks") as caught:
        LatencyTable.of(TARGET, outcomes)
    assert caught.value.why == "b: launches of 8 ns differ"


def test_table_survives_json() -> None:
    adapter = TypeAdapter(LatencyTable)
    table = LatencyTable.of(TARGET, {"a": measurement(), "b": failure()})
    assert adapter.validate_json(adapter.dump_json(table)) == table
