"""The best architectures in order, where scores are known to add up over layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from pipeline.errors import RecipeError
from pipeline.search.base import AdditiveLatencyModel
from pipeline.search.budgets.constraints import Constraints
from pipeline.search.selection.options import Stage
from pipeline.search.selection.selection import select
from pipeline.search.strategies.base import ConstrainedStrategy
from pipeline.spaces.base import Architecture
from pipeline.spaces.factorised import FactorisedSpace, Option

_FIRST = 16
_EDGE = 1 + 1e-12


class ExactStrategy(ConstrainedStrategy):
    """Asks for the member of smallest total loss within the budgets, then for the next best, and so on.

    What it is told changes nothing, and nothing is drawn, so there is no seed. docs/methods/selection.md says
    how the order is found.

    Args:
        constraints: budgets over a ``FactorisedSpace``, with latencies that add up over its layers.
        losses: how bad each option is; infinite where it is never to be chosen.

    Attributes:
        exact: whether it is proved that what was asked is the best there is, in order.

    Raises:
        RecipeError: the space or a latency is of another kind, or an option has no loss.
        BudgetError: no member of the space is known to keep the budgets.
    """

    def __init__(self, constraints: Constraints, losses: Mapping[Option, float]) -> None:
        super().__init__(constraints, seed=0)
        self.exact = True
        self._stages, self._fixed_ns = _stages(constraints, losses)
        # Sums are rounded in other ways than estimates, which have the last word at the edge of a budget.
        self._limits_ns = {target: limit * _EDGE for target, limit in constraints.limits_ns.items()}
        self._ranked: list[Architecture] = []
        self._count, self._is_last = 0, False

    def proposals(self) -> Iterator[Architecture]:
        """The best that were not asked, in order; twice as many are ranked each time, until none is left."""
        while True:
            yield from (each for each in self._ranked if each not in self._asked)
            if self._is_last:
                return
            self._count = max(_FIRST, 2 * self._count)
            found = select(self._stages, self._limits_ns, count=self._count, fixed_costs=self._fixed_ns)
            self.exact = self.exact and found.exact
            self._is_last = len(found.best) < self._count
            ranked = [self._architecture(selection.choices) for selection in found.best]
            self._ranked = [each for each in ranked if self.constraints.feasible(each)]

    def _architecture(self, places: Sequence[int]) -> Architecture:
        decisions = self.constraints.space.decisions
        return Architecture(
            tuple((d.name, d.choices[place]) for d, place in zip(decisions, places, strict=True))
        )


def _stages(constraints: Constraints, losses: Mapping[Option, float]) -> tuple[list[Stage], dict[str, float]]:
    """What is chosen from, with the upper ends of latencies as costs; and their constant parts."""
    space, models = constraints.space, constraints.models
    additive = {name: model for name, model in models.items() if isinstance(model, AdditiveLatencyModel)}
    if not isinstance(space, FactorisedSpace) or len(additive) < len(models):
        raise RecipeError(
            "The best architectures cannot be put in order",
            why="that needs a space of independent layers, and latencies that add up over them",
            fix="use another strategy, or a FactorisedSpace with a CostTable",
        )
    missing = [option for option in space.distinct_blocks() if option not in losses]
    if missing:
        raise RecipeError(
            f"{len(missing)} options have no loss",
            why=f"for example {missing[0]}",
            fix="give every option one",
        )

    def high_ns(target: str, option: Option) -> float:
        return additive[target].block_cost_ns(option) * additive[target].upper_factor

    stages = []
    for name, choices in space.layers.items():
        options = [Option(name, choice) for choice in choices]
        costs = {target: [high_ns(target, option) for option in options] for target in additive}
        stages.append(Stage([losses[option] for option in options], costs))
    anchor = constraints.certificate.anchor
    fixed_ns = {
        target: max(0.0, estimate.high_ns - math.fsum(high_ns(target, o) for o in space.blocks(anchor)))
        for target, estimate in constraints.estimates(anchor).items()
    }
    return stages, fixed_ns
