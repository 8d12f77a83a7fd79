"""What the parts of a teacher cost: weights of the penalty, and how far a subgraph is from its budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.errors import BudgetError
from pipeline.spaces.base import Architecture, Block
from pipeline.spaces.teacher.config import Unit
from pipeline.spaces.teacher.space import TeacherSpace

Counts = Mapping[str, int]
"""How many parts are left, by name of the structure."""


@dataclass(frozen=True)
class Costs:
    """What subgraphs of a teacher cost, by numbers of parts.

    A space has a few widths for each layer; between two of them the lower one counts.

    Attributes:
        space: of the subgraphs.
        shares: of a subgraph, its latency over the limit, by target.
        price: of a block, in any unit: parts are penalised by what they add to it. ``None`` for the same
            penalty everywhere.
    """

    space: TeacherSpace
    shares: Callable[[Architecture], Mapping[str, float]]
    price: Callable[[Block], float] | None
    _kept: dict[tuple[int, ...], float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _penalties: dict[tuple[int, ...], dict[str, float]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def allowed(self, counts: Counts) -> dict[str, int]:
        """The largest widths that are not above these numbers, or the smallest; blocks stay as they are."""
        widths = self.space.config.widths
        return {
            name: max((width for width in widths[name] if width <= count), default=widths[name][0])
            if name in widths
            else count
            for name, count in counts.items()
        }

    def excess(self, counts: Counts) -> float:
        """Latency over its limit, on the target where that is most."""
        allowed = self.allowed(counts)
        key = tuple(allowed.values())
        if key not in self._kept:
            self._kept[key] = max(self.shares(self.space.architecture(allowed)).values())
        return self._kept[key]

    def require_reachable(self) -> None:
        """Raise if there is nothing to look for.

        Raises:
            BudgetError: the smallest subgraph is above a limit.
        """
        smallest = self.excess(least_counts(self.space))
        if smallest > 1:
            raise BudgetError(
                "no subgraph of the teacher keeps the budgets: the smallest takes "
                f"{smallest:.2f} times a limit",
                why="what cannot be removed is slower than the budget",
                fix="loosen the budget, or use a method with a space of its own",
            )

    def cut(self, counts: Counts, sizes: Mapping[str, Sequence[float]]) -> dict[str, int]:
        """Numbers of parts that keep the budgets: one width after the other is given up, of whatever loses
        least for what it saves.

        Args:
            counts: from which to begin.
            sizes: what is lost with each part that is left, descending.

        Raises:
            ValueError: not even the smallest subgraph keeps them.
        """
        left = self.allowed(counts)
        while (excess := self.excess(left)) > 1:
            best: tuple[float, dict[str, int]] | None = None
            for name, count in left.items():
                lower = max(
                    (w for w in self.space.config.widths.get(name, (0, 1)) if w < count), default=None
                )
                if lower is None or self._is_gone(name, left):
                    continue
                lost = math.fsum(sizes[name][lower:count])
                fewer = {**left, name: lower}
                saved = excess - self.excess(fewer)
                loss = lost / saved if saved > 0 else math.inf
                if best is None or loss < best[0]:
                    best = loss, fewer
            if best is None:
                raise ValueError("the smallest subgraph is above a budget")
            left = best[1]
        return left

    def grown(self, counts: Counts, gains: Mapping[str, Sequence[float]]) -> dict[str, int]:
        """Larger numbers of parts that keep the budgets as well: layers are widened and blocks come back,
        whatever gains most for what it adds first. A runtime computes channels in groups, so some of them
        cost nothing.

        Args:
            counts: widths of the space that keep the budgets.
            gains: what is gained with each part, those first that are there already.
        """
        left = dict(counts)
        while True:
            excess = self.excess(left)
            best: tuple[float, dict[str, int]] | None = None
            for name in left:
                for wider in self.space.config.widths.get(name, (1,)):
                    gained = math.fsum(gains[name][left[name] : wider])
                    if gained <= 0 or self._is_gone(name, left):
                        continue
                    more = {**left, name: wider}
                    if (then := self.excess(more)) > 1:
                        continue
                    worth = gained / (then - excess) if then > excess else math.inf
                    if best is None or worth > best[0]:
                        best = worth, more
            if best is None:
                return left
            left = best[1]

    def penalties(self, counts: Counts) -> dict[str, float]:
        """What one part of each structure adds to the price, relative to the mean over all parts.

        The part of a block is the whole block.
        """
        allowed = self.allowed(counts)
        key = tuple(allowed.values())
        if key not in self._penalties:
            self._penalties[key] = self._weighted(allowed)
        return self._penalties[key]

    def _weighted(self, counts: dict[str, int]) -> dict[str, float]:
        price = self.price
        if price is None:
            return dict.fromkeys(counts, 1.0)
        config = self.space.config
        added = {}
        for name, count in counts.items():
            widths = config.widths.get(name, (0, 1))
            # Of the lowest width nothing is removed any more: what was saved last counts.
            upper = max(count, widths[1]) if len(widths) > 1 else count
            lower = max((width for width in widths if width < upper), default=upper)
            saved = math.fsum(
                self._price(unit, {**counts, name: upper}, price)
                - self._price(unit, {**counts, name: lower}, price)
                for unit in config.units
                if name in unit.structures
            )
            added[name] = max(0.0, saved) / max(1, upper - lower)
        mean = math.fsum(added[name] * counts[name] for name in counts) / max(1, sum(counts.values()))
        return {name: value / mean if mean > 0 else 1.0 for name, value in added.items()}

    def _is_gone(self, name: str, counts: Counts) -> bool:
        around = self.space.config.inside.get(name)
        return around is not None and not counts[around]

    def _price(self, unit: Unit, counts: Counts, price: Callable[[Block], float]) -> float:
        gone = unit.block is not None and not counts[unit.block]
        return 0.0 if gone else price(self.space.block(unit, counts))


def least_counts(space: TeacherSpace) -> dict[str, int]:
    """No block that can be removed, and of every layer the smallest width."""
    widths = space.config.widths
    return {
        each.name: 0 if each.kind == "block" else widths[each.name][0] for each in space.config.structures
    }
