"""A latency budget: milliseconds on a target, or a multiple of the reference network's latency there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from pipeline.errors import RecipeError

_PATTERN = re.compile(
    r"(?P<number>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?) ?(?P<unit>x|ms)(?P<soft> soft)?"
)


@dataclass(frozen=True)
class Budget:
    """Either ``relative`` (times the reference network's latency) or ``limit_ms``; the other is ``None``.

    A ``soft`` budget is a wish: it decides between candidates, but none is refused for exceeding it.
    ``Budget.parse(str(budget)) == budget`` holds for every budget.

    Raises:
        RecipeError: neither or both are given, or the number is not finite and above zero.
    """

    relative: float | None = None
    limit_ms: float | None = None
    soft: bool = False

    def __post_init__(self) -> None:
        given = [number for number in (self.relative, self.limit_ms) if number is not None]
        if len(given) != 1:
            raise RecipeError(
                "a budget needs exactly one number",
                why="it is either relative to the reference network or in milliseconds",
                fix='write budget = "0.6x" or budget_ms = 1.5',
            )
        if not math.isfinite(given[0]) or given[0] <= 0:
            raise RecipeError(
                f"a budget of {given[0]} cannot be kept",
                why="a budget is a finite number above zero",
                fix='write for example budget = "0.6x" or budget_ms = 1.5',
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``0.6x`` (of the reference network) or ``1.5ms``, either perhaps followed by ``soft``.

        Raises:
            RecipeError: the text has another form, or the number is not finite and above zero.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise RecipeError(
                f"'{text}' is not a budget",
                why="a budget is a number, x (times the reference network) or ms, and perhaps soft",
                fix="write for example 0.6x, 1.5ms or '0.6x soft'",
            )
        number = float(match["number"])
        soft = match["soft"] is not None
        return cls(relative=number, soft=soft) if match["unit"] == "x" else cls(limit_ms=number, soft=soft)

    @property
    def limit_ns(self) -> float | None:
        """The limit in nanoseconds; ``None`` for a relative budget, which needs the reference's latency."""
        return None if self.limit_ms is None else self.limit_ms * 1e6

    def limit_given(self, reference_ns: float) -> float:
        """The limit in nanoseconds when the reference network takes ``reference_ns``."""
        if self.relative is not None:
            return self.relative * reference_ns
        assert self.limit_ms is not None
        return self.limit_ms * 1e6

    def __str__(self) -> str:
        number, unit = (self.limit_ms, "ms") if self.relative is None else (self.relative, "x")
        return repr(number).removesuffix(".0") + unit + (" soft" if self.soft else "")


def allowing(
    budgets: Mapping[str, Budget], needed_ns: Mapping[str, float], limits_ns: Mapping[str, float]
) -> str:
    """What to write for ``needed_ns`` to be allowed, in words; soft budgets allow everything.

    Args:
        budgets: by target.
        needed_ns: latency per target, in the terms of the limit.
        limits_ns: latency that the budget allows now, per target.
    """
    parts = []
    for target, budget in budgets.items():
        if budget.soft:
            continue
        needed = needed_ns[target]
        if budget.relative is None:
            parts.append(f"budget_ms = {math.ceil(needed / 100) / 10_000:.4f} on {target}")
        else:
            factor = needed / limits_ns[target] * budget.relative
            parts.append(f'budget = "{math.ceil(factor * 100) / 100:.2f}x" on {target}')
    return " and ".join(parts)
