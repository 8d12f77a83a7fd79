"""The fastest and slowest members of a space, and the member that is nearest to all limits at once.

Three ways: exactly by the blocks where every latency model adds up over them; by looking at every member of a
space of at most ``ENUMERATION_LIMIT``; else by descent from random members, which may miss a better one.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.search.base import AdditiveLatencyModel, LatencyModel
from pipeline.spaces.base import Architecture, BlockSpace, SearchSpace

ENUMERATION_LIMIT = 20_000

_GRID_STEPS = 12
_STARTS = 20


@dataclass(frozen=True)
class Extremes:
    """What a space reaches under limits. A ratio is the upper end of an estimate divided by its limit.

    Attributes:
        fastest: per target, the member with the smallest upper end.
        slowest: per target, the member with the largest finite one.
        anchor: the member found whose largest ratio over the targets is smallest.
        least_ratio: no member's largest ratio is smaller; 0 where that is not known.
        exact: ``fastest`` and ``slowest`` are known to be so.
    """

    fastest: Mapping[str, Architecture]
    slowest: Mapping[str, Architecture]
    anchor: Architecture
    least_ratio: float
    exact: bool


def find_extremes(
    space: SearchSpace, models: Mapping[str, LatencyModel], limits_ns: Mapping[str, float]
) -> Extremes | None:
    """What the space reaches on all targets; None if no member that was found runs on all of them."""
    if isinstance(space, BlockSpace) and all(isinstance(m, AdditiveLatencyModel) for m in models.values()):
        return _by_blocks(space, models, limits_ns)  # type: ignore[arg-type]

    def ratios(architectures: Sequence[Architecture]) -> list[list[float]]:
        columns = [
            [estimate.high_ns / limits_ns[target] for estimate in model.estimate(architectures)]
            for target, model in models.items()
        ]
        return [list(row) for row in zip(*columns, strict=True)]

    if space.count() <= ENUMERATION_LIMIT:
        return _best(list(space.members()), ratios, list(models), exact=True)
    return _best(_descents(space, ratios), ratios, list(models), exact=False)


def _by_blocks(
    space: BlockSpace[Any],
    models: Mapping[str, AdditiveLatencyModel[Any]],
    limits_ns: Mapping[str, float],
) -> Extremes | None:
    def ratios(architecture: Architecture) -> list[float]:
        return [model.estimate([architecture])[0].high_ns / limits_ns[name] for name, model in models.items()]

    def weighted(weights: Sequence[float]) -> Callable[[Hashable], float]:
        def cost(block: Hashable) -> float:
            shares = [
                model.block_cost_ns(block) * model.upper_factor / limits_ns[target]
                for target, model in models.items()
            ]
            # A block that fails on one target is out, even where that target's weight is 0.
            if math.isinf(max(shares)):
                return math.inf
            return sum(weight * share for weight, share in zip(weights, shares, strict=True))

        return cost

    # For weights w that sum to 1, the smallest weighted mean of ratios over the space is no more than the
    # smallest possible largest ratio (weak duality), and the member that has it is a good anchor.
    anchor, ratio, least_ratio = None, math.inf, 0.0
    for weights in _simplex(len(models)):
        found = space.extreme(weighted(weights))
        its_ratios = ratios(found)
        if math.isinf(max(its_ratios)):
            return None
        least_ratio = max(least_ratio, sum(w * r for w, r in zip(weights, its_ratios, strict=True)))
        if max(its_ratios) < ratio:
            anchor, ratio = found, max(its_ratios)
    assert anchor is not None
    return Extremes(
        {name: space.extreme(model.block_cost_ns) for name, model in models.items()},
        {
            name: space.extreme(lambda block, m=model: _finite_or_least(m.block_cost_ns(block)), largest=True)  # type: ignore[misc]
            for name, model in models.items()
        },
        anchor,
        min(least_ratio, ratio),
        exact=True,
    )


def _best(
    members: Sequence[Architecture],
    ratios: Callable[[Sequence[Architecture]], list[list[float]]],
    targets: Sequence[str],
    *,
    exact: bool,
) -> Extremes | None:
    rows = list(zip(members, ratios(members), strict=True))
    running = [(member, row) for member, row in rows if max(row) < math.inf]
    if not running:
        return None
    anchor, ratios_of_anchor = min(running, key=lambda each: max(each[1]))
    fastest, slowest = {}, {}
    for index, target in enumerate(targets):
        here = [each for each in rows if each[1][index] < math.inf]
        fastest[target] = min(here, key=lambda each: each[1][index])[0]
        slowest[target] = max(here, key=lambda each: each[1][index])[0]
    return Extremes(fastest, slowest, anchor, max(ratios_of_anchor) if exact else 0.0, exact)


def _descents(
    space: SearchSpace, ratios: Callable[[Sequence[Architecture]], list[list[float]]]
) -> list[Architecture]:
    """Where steps to the best neighbour end: down in the largest ratio, and down and up in each."""
    generator = random.Random(0)
    starts = [space.sample(generator) for _ in range(_STARTS)]
    targets = len(ratios(starts[:1])[0])
    goals: list[Callable[[list[float]], float]] = [max]
    for index in range(targets):
        goals.append(lambda row, i=index: row[i])  # type: ignore[misc]
        goals.append(lambda row, i=index: -row[i] if row[i] < math.inf else math.inf)  # type: ignore[misc]
    found = {}
    for goal in goals:
        for start in starts:
            end = _descent(space, start, lambda many, goal=goal: [goal(row) for row in ratios(many)])  # type: ignore[misc]
            found[end.identity] = end
    return list(found.values())


def _descent(
    space: SearchSpace,
    start: Architecture,
    values: Callable[[Sequence[Architecture]], list[float]],
) -> Architecture:
    here, value = start, values([start])[0]
    while True:
        around = list(space.neighbours(here))
        if not around:
            return here
        best, best_value = min(zip(around, values(around), strict=True), key=lambda each: each[1])
        if not best_value < value:
            return here
        here, value = best, best_value


def _finite_or_least(cost: float) -> float:
    return cost if cost < math.inf else -math.inf


def _simplex(dimensions: int) -> Iterator[tuple[float, ...]]:
    """All weights that are multiples of ``1 / _GRID_STEPS`` and sum to 1; one per target at least."""
    for counts in itertools.product(range(_GRID_STEPS + 1), repeat=dimensions - 1):
        if sum(counts) <= _GRID_STEPS:
            yield tuple(count / _GRID_STEPS for count in (*counts, _GRID_STEPS - sum(counts)))
