"""Latency budgets on a space: who is within them, who is nearest, and how to draw from within."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

from latency_db.estimate import Estimate
from pipeline.errors import BudgetError
from pipeline.search.base import AdditiveLatencyModel
from pipeline.search.feasibility import Feasibility, TargetRange
from pipeline.spaces.base import Architecture, Block, Space, architecture_of

GRID_STEPS = 12


class Constraints:
    """A latency limit on each of one or several targets.

    An architecture is within the budgets if the upper end of its estimate is, on every target.

    Args:
        space: what is searched.
        models: latency model per target; targets without a limit are left out of account.
        limits_ns: latency limit per target.

    Raises:
        ValueError: there is no limit, one is not finite and above zero, or one has no model.
    """

    def __init__(
        self, space: Space, models: Mapping[str, AdditiveLatencyModel], limits_ns: Mapping[str, float]
    ) -> None:
        if not limits_ns:
            raise ValueError("a search needs a limit on at least one target")
        for target, limit in limits_ns.items():
            if target not in models:
                raise ValueError(f"the limit on {target} has no latency model")
            if not 0 < limit < math.inf:
                raise ValueError(f"the limit of {limit} ns on {target} is not finite and above zero")
        self.space = space
        self.limits_ns = dict(limits_ns)
        self.models = {target: models[target] for target in limits_ns}

    def estimates(self, architecture: Architecture) -> dict[str, Estimate]:
        """The architecture's latency per target."""
        return {target: model.estimate([architecture])[0] for target, model in self.models.items()}

    def feasible(self, architecture: Architecture) -> bool:
        """Whether the upper end of the estimate is within every limit."""
        return max(self._ratios(architecture)) <= 1

    @cached_property
    def certificate(self) -> Feasibility:
        """What the space can reach; computed once.

        Raises:
            BudgetError: no member runs on all targets, because of blocks that failed there.
        """
        ranges = tuple(self._range(target) for target in self.models)
        # For weights w that sum to 1, the smallest weighted mean of ratios over the space is no more than the
        # smallest possible largest ratio (weak duality), and the member that has it is a good anchor.
        anchor, ratio, least_ratio = None, math.inf, 0.0
        for weights in _simplex(len(self.models)):
            found = self.space.extreme(self._weighted_cost(weights))
            ratios = self._ratios(found)
            if math.isinf(max(ratios)):
                raise BudgetError(
                    f"No network of the space runs on all of {', '.join(self.models)}",
                    why="every network has a block that could not be exported or run on one of them",
                    fix="see the table for the reasons of the failed blocks, or change the space's choices",
                )
            least_ratio = max(least_ratio, sum(w * r for w, r in zip(weights, ratios, strict=True)))
            if max(ratios) < ratio:
                anchor, ratio = found, max(ratios)
        assert anchor is not None
        estimates = tuple(self.estimates(anchor).values())
        return Feasibility(ranges, anchor, estimates, ratio, min(least_ratio, ratio))

    def draw(self, generator: random.Random) -> Architecture:
        """Draw uniformly from the space, then ``repair``.

        Raises:
            BudgetError: no member is known to keep the budgets.
        """
        return self.repair(self.space.sample(generator), generator)

    def repair(self, architecture: Architecture, generator: random.Random) -> Architecture:
        """The architecture, with decisions set to the anchor's one by one, in random order, until it fits.

        It ends with the anchor at the latest.

        Raises:
            BudgetError: no member is known to keep the budgets.
        """
        self.certificate.require_reachable()
        anchor = self.certificate.anchor
        names = [name for name, choice in architecture.choices if choice != anchor[name]]
        generator.shuffle(names)
        for name in names:
            if self.feasible(architecture):
                break
            architecture = architecture.with_choice(name, anchor[name])
        return architecture

    @cached_property
    def members(self) -> tuple[Architecture, ...]:
        """Every architecture within the budgets, in a fixed order; goes through the whole space, once."""
        names = [decision.name for decision in self.space.decisions]
        combinations = itertools.product(*(decision.choices for decision in self.space.decisions))
        everyone = (architecture_of(self.space, zip(names, choices, strict=True)) for choices in combinations)
        return tuple(filter(self.feasible, everyone))

    def _ratios(self, architecture: Architecture) -> list[float]:
        estimates = self.estimates(architecture)
        return [estimates[target].high_ns / limit for target, limit in self.limits_ns.items()]

    def _range(self, target: str) -> TargetRange:
        model = self.models[target]
        fastest = self.space.extreme(model.block_cost_ns)
        slowest = self.space.extreme(lambda block: _finite_or_least(model.block_cost_ns(block)), largest=True)
        fastest_estimate, slowest_estimate = model.estimate([fastest, slowest])
        return TargetRange(
            target, self.limits_ns[target], fastest, fastest_estimate, slowest, slowest_estimate
        )

    def _weighted_cost(self, weights: Sequence[float]) -> Callable[[Block], float]:
        def cost(block: Block) -> float:
            shares = [
                model.block_cost_ns(block) * model.upper_factor / self.limits_ns[target]
                for target, model in self.models.items()
            ]
            # A block that fails on one target is out, even where that target's weight is 0.
            if math.isinf(max(shares)):
                return math.inf
            return sum(weight * share for weight, share in zip(weights, shares, strict=True))

        return cost


def _finite_or_least(cost: float) -> float:
    return cost if cost < math.inf else -math.inf


def _simplex(dimensions: int) -> Iterator[tuple[float, ...]]:
    """All weights that are multiples of ``1 / GRID_STEPS`` and sum to 1; one per target at least."""
    for counts in itertools.product(range(GRID_STEPS + 1), repeat=dimensions - 1):
        if sum(counts) <= GRID_STEPS:
            yield tuple(count / GRID_STEPS for count in (*counts, GRID_STEPS - sum(counts)))
