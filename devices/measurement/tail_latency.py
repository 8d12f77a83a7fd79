"""Percentiles over all inferences of a measurement, as far as their number can carry them."""

from __future__ import annotations

from devices.measurement.measurement import Measurement
from devices.measurement.statistics import can_carry, quantile


def pooled_ns(measurement: Measurement, level: float) -> float | None:
    """The latency that this share of inferences keeps within, in nanoseconds; launches weigh alike.

    Launches differ in their number of samples, since timing stops by time as well as by count; a plain pool
    would favour the fast ones. Of a tool that keeps its samples to itself, the median over launches of what
    it says. ``None`` where the samples are too few for this level, or the tool does not tell.
    """
    launches = measurement.counted
    if any(not launch.samples_ns for launch in launches):
        try:
            return quantile([launch.quantile_ns(level) for launch in launches], 0.5)
        except ValueError:
            return None
    fewest = min(len(launch.samples_ns) for launch in launches)
    if not can_carry(max(level, 1 - level), fewest * len(launches)):
        return None
    weighted = sorted(
        (sample, 1 / (len(launches) * len(launch.samples_ns)))
        for launch in launches
        for sample in launch.samples_ns
    )
    passed = 0.0
    for sample, weight in weighted:
        passed += weight
        if passed >= level - 1e-9:
            return float(sample)
    return float(weighted[-1][0])
