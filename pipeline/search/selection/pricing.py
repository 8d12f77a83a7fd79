"""Lower bounds on sums of one option per stage: limits get a price, and every stage then chooses on its own.

This is Lagrangian relaxation (Everett, "Generalized Lagrange multiplier method for solving problems of
optimum allocation of resources", 1963). The best prices are found by the ellipsoid method (Bland, Goldfarb
and Todd, "The ellipsoid method: a survey", 1981): a few lines, and sure to end near the best ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_ROUNDING = 1024 * np.finfo(np.float64).eps
_ITERATIONS_PER_PRICE_SQUARED = 200


@dataclass(frozen=True)
class OptionTables:
    """What each option adds. A total has the loss first, then the cost under each limit.

    Attributes:
        rows: per stage (n_options, 1 + n_limits), finite.
        codes: per stage (n_options, n_words); their sum identifies a selection, and sorts like its choices.
        fixed: what every selection has, (1 + n_limits,).
    """

    rows: tuple[Floats, ...]
    codes: tuple[Integers, ...]
    fixed: Floats

    @property
    def magnitudes(self) -> Floats:
        """No partial sum is larger, (1 + n_limits,)."""
        largest: Floats = np.abs(self.fixed) + sum(np.abs(rows).max(axis=0) for rows in self.rows)
        return largest

    def sums(self, picks: Integers) -> tuple[Floats, Integers]:
        """Totals and codes of the selections with these rows, (n, n_stages)."""
        columns = picks.T
        totals = self.fixed + sum(rows[column] for rows, column in zip(self.rows, columns, strict=True))
        codes = sum(codes[column] for codes, column in zip(self.codes, columns, strict=True))
        return totals, np.asarray(codes)


@dataclass(frozen=True)
class Bounds:
    """Linear inequalities that every selection keeps whose value is at most a cutoff, and maybe others.

    ``total @ weights <= offsets``, plus the cutoff where ``moves``; (1 + n_limits, n), (n,), (n,).
    """

    weights: Floats
    offsets: Floats
    moves: NDArray[np.bool_]

    @classmethod
    def stack(cls, *rows: tuple[Floats, float, bool]) -> Bounds:
        """Bounds from weights, offset and whether it moves, each."""
        weights, offsets, moves = zip(*rows, strict=True)
        return cls(np.column_stack(weights), np.array(offsets), np.array(moves))

    def ceilings(self, cutoff: float, magnitudes: Floats) -> Floats:
        """The right-hand sides (n,), with room for rounding."""
        room = _ROUNDING * (magnitudes @ np.abs(self.weights) + np.abs(self.offsets))
        return self.offsets + np.where(self.moves, cutoff, 0.0) + room


class SelectionObjective(Protocol):
    """What is to be small, and how limits are priced in it."""

    def values(self, totals: Floats) -> Floats:
        """The values (n,) of whole selections by their totals (n, 1 + n_limits); infinite if ruled out."""
        ...

    def priced(self, prices: Floats) -> tuple[Floats, float]:
        """Weights and offset: ``total @ weights - offset`` is no more than the value, for prices >= 0."""
        ...

    def slope(self, total: Floats, bound: float) -> Floats:
        """Where prices should move, given the selection that is best at the present ones and its bound."""
        ...


@dataclass(frozen=True)
class LeastLoss:
    """The loss of selections within all limits (n_limits,)."""

    limits: Floats

    def values(self, totals: Floats) -> Floats:
        """The losses; infinite beyond a limit."""
        return np.where((totals[:, 1:] <= self.limits).all(axis=1), totals[:, 0], np.inf)

    def priced(self, prices: Floats) -> tuple[Floats, float]:
        """The loss, and for each limit its price times the share that is used beyond it."""
        return np.concatenate([[1.0], prices / self.limits]), float(prices.sum())

    def slope(self, total: Floats, bound: float) -> Floats:
        """A supergradient of the bound."""
        return total[1:] / self.limits - 1.0


@dataclass(frozen=True)
class LeastRatio:
    """The largest ratio of a cost to its limit (n_limits,)."""

    limits: Floats

    def values(self, totals: Floats) -> Floats:
        """The largest ratios."""
        ratios: Floats = (totals[:, 1:] / self.limits).max(axis=1)
        return ratios

    def priced(self, prices: Floats) -> tuple[Floats, float]:
        """The mean ratio, weighted by the prices."""
        return np.concatenate([[0.0], prices / prices.sum() / self.limits]), 0.0

    def slope(self, total: Floats, bound: float) -> Floats:
        """Normal of a half-space that has all prices with a larger bound."""
        return total[1:] / self.limits - bound


@dataclass(frozen=True)
class Priced:
    """The best prices that were found.

    Attributes:
        bound: no selection has a smaller value.
        weights, offset: of the linear bound at these prices.
        picks: rows of the selections that were best at one of the prices tried, (n, n_stages).
    """

    bound: float
    weights: Floats
    offset: float
    picks: Integers


def price(tables: OptionTables, objective: SelectionObjective, largest: float, precision: float) -> Priced:
    """Raise the lower bound by prices between 0 and ``largest`` each, until ``precision`` below the best."""
    limits = len(tables.fixed) - 1
    centre = np.full(limits, largest / 2)
    shape = np.eye(limits) * limits * (largest / 2) ** 2
    best = Priced(-math.inf, np.zeros(limits + 1), math.inf, np.empty((0, 0), np.int64))
    picks = []
    for _ in range(_ITERATIONS_PER_PRICE_SQUARED * limits**2):
        if centre.min() < 0:
            slope = (centre == centre.min()).astype(np.float64)
        else:
            weights, offset = objective.priced(centre)
            pick = np.array([(rows @ weights).argmin() for rows in tables.rows])
            total = tables.sums(pick[None])[0][0]
            bound = float(total @ weights) - offset
            if bound > best.bound:
                best = Priced(bound, weights, offset, best.picks)
            picks.append(pick)
            slope = objective.slope(total, bound)
        width = math.sqrt(max(0.0, slope @ shape @ slope))
        if width <= precision:
            break
        step = shape @ slope / width
        centre = centre + step / (limits + 1)
        if limits == 1:
            shape = shape / 4
        else:
            shape = (shape - 2 / (limits + 1) * np.outer(step, step)) * (limits**2 / (limits**2 - 1))
    return Priced(best.bound, best.weights, best.offset, np.unique(picks, axis=0))
