"""The best choice of one option per stage under limits on additive costs, exactly, and the next best ones.

A stage is whatever is chosen on its own: a block of DNA (1911.13053) with its evaluated paths, or a single
layer with its operations. docs/methods/selection.md says how it is solved, and why the result is exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import RecipeError
from pipeline.search.selection.enumeration import BestSelections, search
from pipeline.search.selection.options import Options, Selection, StageOptions
from pipeline.search.selection.pricing import (
    Bounds,
    Floats,
    LeastLoss,
    LeastRatio,
    Priced,
    SelectionObjective,
    price,
)

EFFORT = 20_000_000
"""Partial selections after which a proof is given up; about ten seconds."""

_PRECISION = 1e-9
_LEAST_SLACK = 1e-6


@dataclass(frozen=True)
class Selected:
    """What ``select`` found, and what it proved.

    Attributes:
        best: selections within all limits, smallest loss first, then the smallest cost under the
            first limit and so on, then the first choices.
        nearest: where ``best`` is empty, the selection of the smallest ratio.
        bound: no selection within the limits that is missing from ``best`` has a smaller loss; infinite if
            there is none. Where ``best`` is empty, no selection at all has a smaller ratio.
        exact: whether it is proved that nothing better is missing.
    """

    best: tuple[Selection, ...]
    nearest: Selection | None
    bound: float
    exact: bool


def select(
    stages: Sequence[StageOptions],
    limits: Mapping[str, float],
    *,
    count: int = 1,
    fixed_costs: Mapping[str, float] | None = None,
    weights: Sequence[float] | None = None,
    effort: int = EFFORT,
) -> Selected:
    """The ``count`` selections of smallest total loss among those within all limits.

    Args:
        stages: what there is to choose from.
        limits: the largest total allowed, for one or more of the costs.
        count: selections wanted; fewer come back if no more are within the limits.
        fixed_costs: costs that every selection has on top, 0 if not named.
        weights: factor of the losses of each stage, 1 if not given.
        effort: partial selections to look at before the proof is given up and a bound is returned.

    Raises:
        BudgetError: a stage has no option that can be chosen.
        DataError: a table is empty, ragged, has other costs than the first, or holds NaN or minus infinity.
        RecipeError: a limit, weight, fixed cost or count has no meaning.
    """
    if count < 1:
        raise RecipeError(f"{count} selections are asked for", fix="ask for at least one")
    factors = [1.0] * len(stages) if weights is None else weights
    options = Options(stages, limits, fixed_costs or {}, factors)
    by_ratio = price(options.tables, LeastRatio(options.limits), 2.0, _PRECISION)
    nearest, least_ratio = _nearest(options, by_ratio, effort)
    if nearest.cutoff > 1:
        selection = options.selection(nearest.codes[0])
        return Selected((), selection, least_ratio, least_ratio >= nearest.cutoff)
    found, least_loss = _best(options, by_ratio, nearest, count, effort)
    best = tuple(options.selection(code) for code in found.codes)
    bound = least_loss * options.loss_step
    complete = len(best) == count or bound == math.inf
    return Selected(best, None, bound, complete and bound >= best[-1].loss)


def _nearest(options: Options, by_ratio: Priced, effort: int) -> tuple[BestSelections, float]:
    """A selection within the limits, else the nearest one; and the ratio below which there is none."""
    objective = LeastRatio(options.limits)
    found = BestSelections(1)
    _add_picks(found, objective, options, by_ratio)
    if found.cutoff <= 1:
        return found, found.cutoff
    bounds = Bounds.stack((by_ratio.weights, 0.0, True), *_each_limit(options.limits, 0.0, True))
    return found, search(options.tables, objective, bounds, found, effort=effort, enough=1.0)


def _best(
    options: Options, by_ratio: Priced, inside: BestSelections, count: int, effort: int
) -> tuple[BestSelections, float]:
    """The best selections, given one inside the limits; and the loss below which there is no other."""
    objective = LeastLoss(options.limits)
    tables = options.tables
    excess = float(inside.totals[0, 0] - tables.fixed[0] - sum(rows[:, 0].min() for rows in tables.rows))
    # The best prices sum to no more than this if it is strictly inside (Slater's condition).
    largest = excess / max(_LEAST_SLACK, 1 - inside.cutoff)
    by_loss = price(tables, objective, largest, _PRECISION * excess)
    found = BestSelections(count)
    found.add(objective.values(inside.totals), inside.totals, inside.codes)
    for priced in (by_ratio, by_loss):
        _add_picks(found, objective, options, priced)
    bounds = Bounds.stack(
        (by_loss.weights, by_loss.offset, True),
        (by_ratio.weights, 1.0, False),
        (np.eye(1, 1 + len(options.limits))[0], 0.0, True),
        *_each_limit(options.limits, 1.0, False),
    )
    return found, search(tables, objective, bounds, found, effort=effort)


def _add_picks(
    found: BestSelections, objective: SelectionObjective, options: Options, priced: Priced
) -> None:
    totals, codes = options.tables.sums(priced.picks)
    found.add(objective.values(totals), totals, codes)


def _each_limit(limits: Floats, offset: float, moves: bool) -> list[tuple[Floats, float, bool]]:
    """The ratio of each cost to its limit, as bounds."""
    ratios = np.eye(len(limits), 1 + len(limits), 1) / np.append(1.0, limits)
    return [(ratio, offset, moves) for ratio in ratios]
