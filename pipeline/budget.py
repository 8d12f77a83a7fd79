"""A latency budget: milliseconds on a target, or a multiple of a reference's latency there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from devices.words import listed
from pipeline.errors import RecipeError

RelativeTo = Literal["reference", "teacher"]
"""What a relative budget refers to: the space's reference network, or the teacher, which is in float."""

NAMES: Mapping[RelativeTo, str] = {"reference": "reference network", "teacher": "teacher"}

_MOST = 1e9
_PATTERN = re.compile(
    r"(?P<number>[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?) ?"
    r"(?:ms|x(?: (?P<to>reference|teacher))?)(?P<soft> soft)?"
)


@dataclass(frozen=True)
class Budget:
    """Either ``relative`` (times a reference's latency) or ``limit_ms``; the other is ``None``.

    A ``soft`` budget is a wish: it decides between candidates, but none is refused for exceeding it.
    ``Budget.parse(str(budget)) == budget`` holds for every budget; ``words`` is for people.

    Attributes:
        relative_to: what ``relative`` refers to.

    Raises:
        RecipeError: neither or both are given, or the number is out of its range.
    """

    relative: float | None = None
    limit_ms: float | None = None
    soft: bool = False
    relative_to: RelativeTo = "reference"

    def __post_init__(self) -> None:
        given = [number for number in (self.relative, self.limit_ms) if number is not None]
        if len(given) != 1:
            raise RecipeError(
                "a budget needs exactly one number",
                why="it is either relative to a reference or in milliseconds",
                fix='write budget = "0.6x" or budget_ms = 1.5',
            )
        if not 0 < given[0] <= _MOST:
            raise RecipeError(
                f"a budget of {given[0]} cannot be kept",
                why=f"a budget is a number above zero, and at most {_MOST:g}",
                fix='write for example budget = "0.6x" or budget_ms = 1.5',
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``0.6x`` (of the reference network), ``0.25x teacher`` or ``1.5ms``, perhaps with ``soft``.

        Raises:
            RecipeError: the text has another form, or the number is out of its range.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise RecipeError(
                f"'{text}' is not a budget",
                why="a budget is a number with x (times the reference network) or ms; after x there may be "
                "teacher, and at the end soft",
                fix="write for example 0.6x, 1.5ms, '0.25x teacher' or '0.6x soft'",
            )
        number, soft = float(match["number"]), match["soft"] is not None
        if "ms" in match[0]:
            return cls(limit_ms=number, soft=soft)
        to: RelativeTo = "teacher" if match["to"] == "teacher" else "reference"
        return cls(relative=number, soft=soft, relative_to=to)

    @property
    def limit_ns(self) -> float | None:
        """The limit in nanoseconds; ``None`` for a relative budget, which needs the reference's latency."""
        return None if self.limit_ms is None else self.limit_ms * 1e6

    def limit_given(self, reference_ns: float) -> float:
        """The limit in nanoseconds when what the budget refers to takes ``reference_ns``."""
        if self.relative is not None:
            return self.relative * reference_ns
        assert self.limit_ms is not None
        return self.limit_ms * 1e6

    @property
    def reference_name(self) -> str:
        """What a relative budget refers to, in words."""
        return NAMES[self.relative_to]

    @property
    def words(self) -> str:
        """For people: ``0.6x of the reference network, soft`` or ``1.5 ms``."""
        if self.relative is not None:
            text = f"{_plain(self.relative)}x of the {self.reference_name}"
        else:
            text = f"{_plain(self.limit_ms or 0.0)} ms"
        return text + (", soft" if self.soft else "")

    def words_with(self, limit_ns: float) -> str:
        """These words, and for a relative budget the limit that it comes to: ``...: 0.8123 ms``."""
        return self.words if self.relative is None else f"{self.words}: {limit_ns / 1e6:.4f} ms"

    def __str__(self) -> str:
        soft = " soft" if self.soft else ""
        if self.relative is None:
            return f"{_plain(self.limit_ms or 0.0)}ms{soft}"
        to = "" if self.relative_to == "reference" else f" {self.relative_to}"
        return f"{_plain(self.relative)}x{to}{soft}"


def _plain(number: float) -> str:
    return repr(number).removesuffix(".0")


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
            factor = math.ceil(needed / limits_ns[target] * budget.relative * 100) / 100
            to = "" if budget.relative_to == "reference" else f" {budget.relative_to}"
            parts.append(f'budget = "{factor:.2f}x{to}" on {target}')
    return listed(parts)
