"""All selections within linear bounds, merged stage by stage, many partial selections at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pipeline.search.selection.pricing import Bounds, Floats, Integers, OptionTables, SelectionObjective

WIDTH = 100_000
"""Partial selections that are made at a time; keeps the memory bounded."""

DIVE_WIDTH = 5_000
_BLOCK = 64


class BestSelections:
    """The ``count`` best selections so far: by value, then total, then code."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.values: Floats = np.empty(0)
        self.totals: Floats = np.empty((0, 0))
        self.codes: Integers = np.empty((0, 0), np.int64)

    @property
    def cutoff(self) -> float:
        """A selection of larger value is not among the best; infinite while there are too few."""
        return float(self.values[-1]) if len(self.values) == self.count else math.inf

    def reaches(self, value: float) -> bool:
        """Whether the best value is no larger."""
        return bool((self.values[:1] <= value).any())

    def add(self, values: Floats, totals: Floats, codes: Integers) -> None:
        """Take in selections; those of infinite value, and those already here, are dropped."""
        wanted = np.isfinite(values) & (values <= self.cutoff)
        if wanted.sum() > self.count:
            wanted &= values <= np.partition(values[wanted], self.count - 1)[self.count - 1]
        values, totals, codes = values[wanted], totals[wanted], codes[wanted]
        if len(self.values):
            values = np.concatenate([self.values, values])
            totals = np.concatenate([self.totals, totals])
            codes = np.concatenate([self.codes, codes])
        order = np.lexsort((*codes.T[::-1], *totals.T[::-1], values))
        values, totals, codes = values[order], totals[order], codes[order]
        new = np.ones(len(values), np.bool_)
        new[1:] = (codes[1:] != codes[:-1]).any(axis=1)
        self.values = values[new][: self.count]
        self.totals = totals[new][: self.count]
        self.codes = codes[new][: self.count]


def search(
    tables: OptionTables,
    objective: SelectionObjective,
    bounds: Bounds,
    found: BestSelections,
    *,
    effort: int,
    enough: float = -math.inf,
) -> float:
    """Improve ``found`` until no other selection can be among its best.

    Ends early after ``effort`` partial selections, or when the best value is at most ``enough``.

    Args:
        tables: the options.
        objective: what is to be small.
        bounds: the first moves with the cutoff; unless it is finite from the start, the second does not.
        found: takes the selections; has at least one that is within the bounds.
        effort: partial selections to make at most.
        enough: a value with which to be content.

    Returns:
        A value below which there is no other selection, if the best is not below ``enough``.
    """
    floor = math.inf
    for dive in (True, False):
        tables = _reduced(tables, bounds, found)
        floor = _Walk(tables, objective, bounds, found).run(dive=dive, effort=effort, enough=enough)
    return floor


def _reduced(tables: OptionTables, bounds: Bounds, found: BestSelections) -> OptionTables:
    """Without options that no selection within the bounds has; what was found is within them."""
    while True:
        ceilings = bounds.ceilings(found.cutoff, tables.magnitudes)
        scores = [rows @ bounds.weights for rows in tables.rows]
        least = [score.min(axis=0) for score in scores]
        room = ceilings - tables.fixed @ bounds.weights - sum(least)
        keep = [(score - low <= room).all(axis=1) for score, low in zip(scores, least, strict=True)]
        if all(each.all() for each in keep):
            return tables
        tables = replace(
            tables,
            rows=tuple(rows[each] for rows, each in zip(tables.rows, keep, strict=True)),
            codes=tuple(codes[each] for codes, each in zip(tables.codes, keep, strict=True)),
        )


@dataclass(frozen=True)
class _Partials:
    """Selections of the first ``depth`` stages: totals (n, 1 + n_limits) and codes (n, n_words)."""

    depth: int
    totals: Floats
    codes: Integers

    def __getitem__(self, rows: Integers | slice) -> _Partials:
        return _Partials(self.depth, self.totals[rows], self.codes[rows])

    def undominated(self, count: int) -> _Partials:
        """Without most of those that ``count`` others are no worse than, whatever the other stages add.

        Only neighbours in sorted order are compared, which is enough for equal ones and costs little.
        """
        if count >= _BLOCK:
            return self
        order = np.lexsort((*self.codes.T[::-1], *self.totals.T[::-1]))
        blocks = -(-len(order) // _BLOCK)
        costs = np.zeros((blocks * _BLOCK, self.totals.shape[1] - 1))
        costs[: len(order)] = self.totals[order, 1:]
        # no_worse[block, i, j]: the j-th comes before the i-th, so has no larger loss, and no larger costs.
        no_worse = np.tril(np.ones((blocks, _BLOCK, _BLOCK), np.bool_), -1)
        for cost in costs.T.reshape(costs.shape[1], blocks, _BLOCK):
            no_worse &= cost[:, None, :] <= cost[:, :, None]
        keep = no_worse.sum(axis=2).ravel()[: len(order)] < count
        return self[order[keep]]


class _Walk:
    """Depth first through the stages, the best partial selections first."""

    def __init__(
        self, tables: OptionTables, objective: SelectionObjective, bounds: Bounds, found: BestSelections
    ) -> None:
        self.tables, self.objective, self.bounds, self.found = tables, objective, bounds, found
        self.magnitudes = tables.magnitudes
        self.order = sorted(range(len(tables.rows)), key=lambda stage: len(tables.rows[stage]))
        least = [(tables.rows[stage] @ bounds.weights).min(axis=0) for stage in self.order]
        # rest[depth]: what the stages from there on add at least, to each bound.
        self.rest = np.cumsum([np.zeros_like(bounds.offsets), *least[::-1]], axis=0)[::-1]

    def run(self, *, dive: bool, effort: int, enough: float) -> float:
        """Go through all, or when diving only through the best ones, to find something quickly."""
        width = DIVE_WIDTH if dive else WIDTH
        nothing = np.zeros((1, self.tables.codes[0].shape[1]), np.int64)
        stack = [_Partials(0, self.tables.fixed[None], nothing)]
        while stack and not self.found.reaches(enough):
            if effort <= 0:
                return min(self.floor(each) for each in stack)
            partials = self.within(stack.pop())
            if not len(partials.totals):
                continue
            children, taken, made = self.extended(partials, width)
            effort -= made
            if taken < len(partials.totals) and not dive:
                stack.append(partials[taken:])
            if children.depth < len(self.order):
                # A dive is over too soon for the comparison to pay.
                stack.append(children if dive else children.undominated(self.found.count))
            else:
                self.found.add(self.objective.values(children.totals), children.totals, children.codes)
        return self.found.cutoff

    def ceilings(self) -> Floats:
        return self.bounds.ceilings(self.found.cutoff, self.magnitudes)

    def floor(self, partials: _Partials) -> float:
        """No completion has a smaller value."""
        scores = partials.totals @ self.bounds.weights + self.rest[partials.depth]
        values = scores - self.bounds.ceilings(0.0, self.magnitudes)
        return float(values[:, self.bounds.moves].max(axis=1).min())

    def within(self, partials: _Partials) -> _Partials:
        """Those that keep the bounds, the best first."""
        scores = partials.totals @ self.bounds.weights + self.rest[partials.depth]
        rows = np.flatnonzero((scores <= self.ceilings()).all(axis=1))
        return partials[rows[scores[rows, 0].argsort(kind="stable")]]

    def extended(self, partials: _Partials, width: int) -> tuple[_Partials, int, int]:
        """What the next stage makes of the first ones, how many these were, and how many sums were made."""
        stage, rest = self.order[partials.depth], self.rest[partials.depth + 1]
        rows, codes = self.tables.rows[stage], self.tables.codes[stage]
        # One bound is used to make only what it allows; the others are then applied to that.
        gate = 0 if math.isfinite(self.found.cutoff) else 1
        weights, ceilings = self.bounds.weights[:, gate], self.ceilings()
        scores = rows @ weights
        order = scores.argsort(kind="stable")
        room = ceilings[gate] - rest[gate] - partials.totals @ weights
        counts = np.searchsorted(scores[order], room, side="right")
        ends = counts.cumsum()
        taken = max(1, int(np.searchsorted(ends, width, side="right")))
        made = int(ends[taken - 1])
        parents = np.repeat(np.arange(taken), counts[:taken])
        picks = order[np.arange(made) - (ends - counts)[parents]]
        totals = partials.totals[parents] + rows[picks]
        good = np.flatnonzero((totals @ self.bounds.weights + rest <= ceilings).all(axis=1))
        summed = partials.codes[parents[good]] + codes[picks[good]]
        return _Partials(partials.depth + 1, totals[good], summed), taken, made
