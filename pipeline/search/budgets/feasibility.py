"""What a space can reach on its targets, known before any search."""

from __future__ import annotations

import math
from dataclasses import dataclass

from latency_db.estimate import Estimate
from pipeline.errors import BudgetError
from pipeline.spaces.base import Architecture


@dataclass(frozen=True)
class TargetRange:
    """The fastest and the slowest member of the space on one target, among those that run there."""

    target: str
    limit_ns: float
    fastest: Architecture
    fastest_estimate: Estimate
    slowest: Architecture
    slowest_estimate: Estimate


@dataclass(frozen=True)
class Feasibility:
    """Whether all budgets can be kept together, with the members that show it.

    A member's ratio is the upper end of its estimate divided by the limit, the largest over the targets.

    Attributes:
        ranges: one per target.
        anchor: the member of smallest ratio among those looked at.
        anchor_estimates: of the anchor, in the order of ``ranges``.
        ratio: of the anchor; all budgets can be kept if it is at most 1.
        least_ratio: no member of the space has a smaller ratio; 0 where that is not known. It equals
            ``ratio`` where the ranges are exact and there is a single target.
        exact: the ranges are exact. Else they are the best that was found, and a member beyond may exist.
    """

    ranges: tuple[TargetRange, ...]
    anchor: Architecture
    anchor_estimates: tuple[Estimate, ...]
    ratio: float
    least_ratio: float
    exact: bool

    @property
    def reachable(self) -> bool:
        """The anchor keeps every budget."""
        return self.ratio <= 1

    @property
    def nearest_limits_ns(self) -> dict[str, float]:
        """Per target the present limit, or what the anchor needs where that is more."""
        return {
            r.target: max(r.limit_ns, estimate.high_ns)
            for r, estimate in zip(self.ranges, self.anchor_estimates, strict=True)
        }

    def require_reachable(self) -> None:
        """Refuse budgets that no member keeps.

        Raises:
            BudgetError: names the targets, what the fastest members need there, and the nearest limits.
        """
        if self.reachable:
            return
        alone = [r for r in self.ranges if r.fastest_estimate.high_ns > r.limit_ns]
        if alone:
            none = "No network of the space keeps" if self.exact else "No network was found that keeps"
            what = f"{none} the budget of " + " and ".join(
                f"{r.limit_ns / 1e6:.4f} ms on {r.target}" for r in alone
            )
            found = "" if self.exact else " found"
            why = "; ".join(
                f"the fastest{found} on {r.target} is estimated at {r.fastest_estimate}" for r in alone
            )
        else:
            what = "No network of the space was found that keeps the budgets on all targets together"
            why = f"the best one found needs {self.ratio:.3f} times the limits"
            if self.least_ratio:
                why += f", and none needs less than {self.least_ratio:.3f} times"
        nearest = ", ".join(
            f"{_rounded_up_ms(limit):.4f} ms on {target}" for target, limit in self.nearest_limits_ns.items()
        )
        raise BudgetError(what, why=why, fix=f"allow {nearest}, or give the space smaller choices")


def _rounded_up_ms(limit_ns: float) -> float:
    return math.ceil(limit_ns / 100) / 10_000
