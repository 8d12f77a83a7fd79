from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measurement.conditions import Conditions, RunQueue
from devices.measurement.disturbance import AMPLIFIED
from devices.measurement.measurement import (
    DeviceIdentity,
    Launch,
    Measurement,
    MeasurementFailure,
    Reason,
    RuntimeIdentity,
    Verdict,
    paired_ratio,
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


def test_the_interval_of_disturbed_launches_reaches_down_by_what_that_may_have_added() -> None:
    launches = [(1200, (110, 120)), (1100, (100, 110)), (1500, (150, 150))]
    latency = measurement(launches, Verdict.DEGRADED).latency
    least = [value / 1.05 / slower**AMPLIFIED for value, slower in ((1200, 1.2), (1100, 1.1), (1500, 1.5))]
    assert (latency.low_ns, latency.value_ns, latency.high_ns) == pytest.approx((min(least), 1200, 1500))


def test_undisturbed_launches_speak_for_themselves() -> None:
    calm = measurement([(1200, (110, 120)), (1100, (100, 110)), (1500, (150, 150))], Verdict.VALID)
    latency = replace(calm, launches=tuple(replace(each, void=None) for each in calm.launches)).latency
    assert (latency.low_ns, latency.high_ns) == (1100, 1500)


def test_interval_of_an_invalid_measurement_holds_every_launch() -> None:
    launches = [(latency_ns, ()) for latency_ns in (1000, 1010, 1020, 1030, 1040, 1050, 1060, 1070, 2000)]
    latency = measurement(launches, Verdict.INVALID, drift=0.1).latency
    assert (latency.low_ns, latency.high_ns) == pytest.approx((1000 / 1.05 - 104, 2000 + 104))
    assert measurement(launches, Verdict.DEGRADED).latency.high_ns == 1070


def test_what_nothing_bounds_has_a_finite_interval_all_the_same() -> None:
    stuck = measurement([(1000, ())] * 5, Verdict.INVALID)
    waited = tuple(replace(each, queue=RunQueue(19_999, 60)) for each in stuck.launches)
    assert replace(stuck, launches=waited).latency.low_ns == pytest.approx(100)


@pytest.mark.parametrize(("slowest", "sharp"), [(1200, True), (1500, False)])
def test_a_measurement_is_sharp_where_its_interval_is_narrow(slowest: int, sharp: bool) -> None:
    found = measurement([(1000, (100,)), (1000, (100,)), (slowest, (100,))], Verdict.DEGRADED)
    assert found.sharp is sharp
    assert not replace(found, verdict=Verdict.INVALID).sharp


def test_a_ratio_holds_what_it_were_if_only_the_longer_inference_was_interrupted() -> None:
    one = measurement([(8000, (100,))] * 9, Verdict.DEGRADED)
    other = measurement([(1000, (100,))] * 9, Verdict.DEGRADED)
    half = tuple(replace(each, queue=RunQueue(80_000, 60)) for each in one.launches)
    ratio = paired_ratio(replace(one, launches=half), other)
    assert ratio is not None
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((4 * 0.99, 8, 8 * 1.01))
    both = paired_ratio(one, other)
    assert both is not None
    assert (both.low, both.high) == pytest.approx((8 * 0.99, 8 * 1.01))


def test_a_ratio_of_undisturbed_launches_is_as_sharp_as_they_are() -> None:
    calm = measurement([(8000, (100,))] * 9, Verdict.VALID)
    calm = replace(calm, launches=tuple(replace(each, void=None) for each in calm.launches))
    ratio = paired_ratio(calm, calm)
    assert ratio is not None
    assert (ratio.low, ratio.high) == (1, 1)


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
