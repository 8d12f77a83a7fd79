"""A predicted latency. It has a type of its own, so that it can never pass for a measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Estimate"]


@dataclass(frozen=True)
class Estimate:
    """A predicted latency in nanoseconds with an interval and the coverage the interval claims."""

    low_ns: float
    value_ns: float
    high_ns: float
    coverage: float
    kind: Literal["estimate"] = field(default="estimate")

    def __str__(self) -> str:
        return f"~{self.value_ns / 1e6:.4f} ms [{self.low_ns / 1e6:.4f}, {self.high_ns / 1e6:.4f}]"
