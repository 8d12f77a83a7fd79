from __future__ import annotations

from dataclasses import replace

from devices.measurement.measurement import Summary
from devices.measurement.tail_latency import pooled_ns
from tests.devices.made_up import made_up_measurement


def test_pooled_percentile_is_that_of_all_samples_when_launches_are_alike() -> None:
    measurement = made_up_measurement([list(range(1, 101))] * 5)
    assert pooled_ns(measurement, 0.1) == 10
    assert pooled_ns(measurement, 0.9) == 90
    assert pooled_ns(measurement, 0.5) == 50


def test_launches_weigh_alike_however_many_samples_they_have() -> None:
    few, many = [2000] * 100, [1000] * 5000
    assert pooled_ns(made_up_measurement([many, few]), 0.9) == 2000
    assert pooled_ns(made_up_measurement([many, few]), 0.4) == 1000


def test_a_percentile_is_refused_when_the_samples_cannot_carry_it() -> None:
    samples = list(range(1, 64))
    assert pooled_ns(made_up_measurement([samples]), 0.9) is None
    assert pooled_ns(made_up_measurement([samples]), 0.1) is None
    assert pooled_ns(made_up_measurement([[*samples, 64]]), 0.9) is not None
    assert pooled_ns(made_up_measurement([[*samples, 64]]), 0.99) is None


def test_what_a_tool_says_stands_in_for_samples_that_it_keeps() -> None:
    measurement = made_up_measurement([[1], [1], [1]])
    launches = tuple(
        replace(launch, samples_ns=(), summary=Summary(100, 10, 5, 20, ((0.9, value),)))
        for launch, value in zip(measurement.launches, (15, 17, 16), strict=True)
    )
    measurement = replace(measurement, launches=launches)
    assert pooled_ns(measurement, 0.9) == 16
    assert pooled_ns(measurement, 0.1) is None
