from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.conditions import Conditions
from devices.measurement.measurement import (
    DeviceIdentity,
    Launch,
    Measurement,
    MeasurementFailure,
    Reason,
    RuntimeIdentity,
    Verdict,
)
from devices.measurement.protocol import MeasuringProtocol

DISTURBED = Reason("canary-drift", "the canary ran slower")


def measurement(
    launches: list[tuple[int, tuple[int, ...]]], verdict: Verdict, drift: float = 0.0
) -> Measurement:
    """One of launches given by their latency and their canaries."""
    return Measurement(
        "ab" * 32,
        "host/onnxruntime:fp32@1",
        RuntimeIdentity("onnxruntime", "1", "cd" * 32, "fp32", 1),
        DeviceIdentity("x86_64", "cpu", 2, "linux", "6", "here"),
        MeasuringProtocol(drift=drift),
        tuple(
            Launch(
                1,
                1,
                1,
                (latency_ns,) * 20,
                None,
                Conditions(),
                Conditions(),
                canary_ns=canary,
                void=DISTURBED,
            )
            for latency_ns, canary in launches
        ),
        verdict,
        (DISTURBED,),
        "2026-01-01T00:00:00+00:00",
    )


def test_interval_of_an_invalid_measurement_reaches_down_by_what_the_canary_was_slower() -> None:
    launches = [(1200, (110, 120)), (1100, (100, 110)), (1500, (150, 150))]
    latency = measurement(launches, Verdict.INVALID).latency
    assert (latency.low_ns, latency.value_ns, latency.high_ns) == pytest.approx((1000, 1200, 1500))
    assert measurement(launches, Verdict.DEGRADED).latency.low_ns == 1100.0


def test_interval_of_an_invalid_measurement_without_canary_holds_every_launch() -> None:
    launches = [(latency_ns, ()) for latency_ns in (1000, 1010, 1020, 1030, 1040, 1050, 1060, 1070, 2000)]
    latency = measurement(launches, Verdict.INVALID, drift=0.1).latency
    assert (latency.low_ns, latency.high_ns) == (1000 - 104, 2000 + 104)
    assert measurement(launches, Verdict.VALID).latency.high_ns == 1070


@given(
    st.lists(
        st.tuples(st.integers(1, 10**9), st.lists(st.integers(1, 10**9), max_size=3).map(tuple)), min_size=1
    )
)
def test_disturbance_widens_an_interval_and_moves_no_value(
    launches: list[tuple[int, tuple[int, ...]]],
) -> None:
    invalid, valid = (measurement(launches, verdict).latency for verdict in (Verdict.INVALID, Verdict.VALID))
    assert invalid.value_ns == valid.value_ns
    assert invalid.low_ns <= valid.low_ns <= valid.high_ns <= invalid.high_ns
    assert invalid.relative_width >= valid.relative_width


@pytest.mark.parametrize(
    "code", ["unsupported", "load-failed", "crashed-signal-11", "export-failed", "fallback"]
)
def test_failures_of_the_workload_itself_do_not_pass(code: str) -> None:
    assert not MeasurementFailure("", "target", Reason(code, "")).passing


@pytest.mark.parametrize(
    "code", ["timeout", "device-lost", "out-of-memory", "truncated-output", "crashed-signal-9"]
)
def test_failures_of_the_moment_may_pass(code: str) -> None:
    failure = MeasurementFailure("", "target", Reason("unsupported", ""))
    assert replace(failure, reason=Reason(code, "")).passing
