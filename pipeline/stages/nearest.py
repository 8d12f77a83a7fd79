"""Budgets in the form that a recipe has them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.stages.context import Context


def budgets_allowing(context: Context, needed_ns: Mapping[str, float], limits_ns: Mapping[str, float]) -> str:
    """What to write for ``needed_ns`` to be allowed, in words; soft budgets allow everything.

    Args:
        context: of the run.
        needed_ns: latency per target, in the terms of the limit.
        limits_ns: latency that the budget allows now, per target.
    """
    parts = []
    for target, budget in context.budgets.items():
        if budget.soft:
            continue
        needed = needed_ns[str(target)]
        if budget.relative is None:
            parts.append(f"budget_ms = {math.ceil(needed / 100) / 10_000:.4f} on {target}")
        else:
            factor = needed / limits_ns[str(target)] * budget.relative
            parts.append(f'budget = "{math.ceil(factor * 100) / 100:.2f}x" on {target}')
    return " and ".join(parts)
