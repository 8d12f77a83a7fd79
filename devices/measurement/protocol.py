"""The measuring protocol: how often, how long, and which quantile of a launch is its headline."""

from __future__ import annotations

from dataclasses import dataclass

from devices.measurement.headline import HEADLINE_QUANTILE

__all__ = ["MeasuringProtocol"]

_WEEK_NS = 7 * 24 * 3600 * 10**9
_RANGES = {
    "version": (1, 1000),
    "launches": (1, 100_000),
    "max_launches": (0, 300_000),
    "warmup_count": (0, 10**9),
    "warmup_ns": (0, _WEEK_NS),
    "min_count": (0, 10**9),
    "min_ns": (0, _WEEK_NS),
    "max_count": (1, 2**31 - 1),
    "max_ns": (0, 2**63 - 1),
    "headline_quantile": (0, 1),
    "input_seed": (0, 2**63 - 1),
    "spread_ns": (0, _WEEK_NS),
    "drift": (0, 1),
}

_SHARES = frozenset({"headline_quantile", "drift"})


@dataclass(frozen=True)
class MeasuringProtocol:
    """How latencies are measured; part of every key, so a change of any number is another protocol.

    Every workload gets ``launches`` launches, and further ones up to ``max_launches`` while they are not
    settled (``devices.measurement.verdict``). Warm-up ends when both its count and time are reached, or at
    ``max_ns``. Timing stops when both minimum count and time are reached, or at either cap.
    ``headline_quantile`` is the quantile of a launch's samples that stands for the launch. ``drift`` widens
    the headline's interval at either end by this share of the headline: launches that are seconds apart
    cannot see how a machine changes over minutes. The first ``launches`` launches are spread over
    ``spread_ns``, each at a random moment of its share of that time; further ones follow at once. See
    docs/concepts/measuring.md for the evidence.
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
    spread_ns: int = 0

    def __post_init__(self) -> None:
        """Check the ranges, since a protocol may come with a file.

        Raises:
            ValueError: naming the number that is out of its range.
        """
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            kinds = (int, float) if name in _SHARES else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
                kind = "" if name in _SHARES else "a whole number "
                raise ValueError(f"{name} is {value!r}; it must be {kind}from {least} to {most}")
