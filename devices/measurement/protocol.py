"""The measuring protocol: how often, how long, and which quantile of a launch is its headline."""

from __future__ import annotations

from dataclasses import dataclass

from devices.measurement.headline import HEADLINE_QUANTILE

__all__ = ["MeasuringProtocol"]


@dataclass(frozen=True)
class MeasuringProtocol:
    """How latencies are measured; part of every key, so a change of any number is another protocol.

    Every workload gets ``launches`` launches, and further ones up to ``max_launches`` while they are not
    settled (``devices.measurement.verdict``). Warm-up ends when both its count and time are reached, or at
    ``max_ns``. Timing stops when both minimum count and time are reached, or at either cap.
    ``headline_quantile`` is the quantile of a launch's samples that stands for the launch. ``drift`` widens
    the headline's interval at either end by this share of the headline: launches that are seconds apart
    cannot see how a machine changes over minutes. See docs/concepts/measuring.md for the evidence.
    """

    version: int = 2
    launches: int = 5
    max_launches: int = 15
    warmup_count: int = 5
    warmup_ns: int = 10_000_000
    min_count: int = 50
    min_ns: int = 25_000_000
    max_count: int = 5_000
    max_ns: int = 2_000_000_000
    headline_quantile: float = HEADLINE_QUANTILE
    input_seed: int = 0
    drift: float = 0.0015
