"""What there is to select from: stages with options, checked and turned into tables of whole numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pipeline.errors import BudgetError, DataError, RecipeError
from pipeline.search.selection.pricing import Floats, Integers, OptionTables

_BITS = 52
_SMALLEST_EXPONENT = -1074
_SMALLEST_SHARE = 2.0**-900
_LARGEST_WORD = 2**62


@dataclass(frozen=True)
class StageOptions:
    """The options of one stage; one with an infinite number is never chosen.

    Attributes:
        losses: how bad each option is, (n_options,).
        costs: what each option costs, by name, such as the latency in ns on a target, (n_options,) each.
    """

    losses: ArrayLike
    costs: Mapping[str, ArrayLike]


@dataclass(frozen=True)
class Selection:
    """One option per stage.

    Attributes:
        choices: the option of each stage, by its place in the stage.
        loss: the weighted sum of the options' losses.
        costs: sums by name, with the fixed costs, also of those without a limit.
        ratio: the largest ratio of a cost to its limit.
    """

    choices: tuple[int, ...]
    loss: float
    costs: dict[str, float]
    ratio: float


class Options:
    """The options of all stages, in whole multiples of a step per column: then sums are exact in any order.

    A step is a power of two, at most 2^-51 of the largest possible sum or of the limit, whichever is smaller.

    Attributes:
        tables: what the search works on, of options that can be chosen; costs in the order of the limits.
        limits: in steps, (n_limits,).
        loss_step: the step of the losses.

    Args:
        stages: what there is to choose from.
        limits: by name of a cost.
        fixed_costs: costs that every selection has on top; 0 if not named.
        weights: factors of the losses, one per stage.

    Raises:
        BudgetError: a stage has no option that can be chosen.
        DataError: a table is empty, ragged, has other costs than the first, or holds NaN or minus infinity.
        RecipeError: a limit, a weight or a fixed cost has no meaning.
    """

    def __init__(
        self,
        stages: Sequence[StageOptions],
        limits: Mapping[str, float],
        fixed_costs: Mapping[str, float],
        weights: Sequence[float],
    ) -> None:
        columns = _columns(stages)
        self._names = list(stages[0].costs)
        _check_limits(self._names, limits)
        _check_others(self._names, fixed_costs, weights, len(stages))
        self._limits = dict(limits)

        usable = [np.isfinite(table).all(axis=1) for table in columns]
        for number, each in enumerate(usable):
            if not each.any():
                raise BudgetError(
                    f"Nothing can be selected: no option of stage {number} can be chosen",
                    why="each has an infinite loss or cost, as what failed to run has",
                    fix="see why its options failed, or give the stage others",
                )
        for table, each, weight in zip(columns, usable, weights, strict=True):
            table[~each] = 0.0  # never looked at again
            table[:, 0] *= weight
        fixed = np.array([0.0, *(fixed_costs.get(name, 0.0) for name in self._names)])
        with np.errstate(over="ignore"):  # refused if infinite
            largest = np.abs(fixed) + sum(np.abs(table).max(axis=0) for table in columns)
        self._steps = self._steps_for(largest)
        self._rows = [np.rint(table / self._steps) for table in columns]
        self._fixed = np.rint(fixed / self._steps)
        self._places = _places([len(table) for table in columns])

        limited = [0, *(1 + self._names.index(name) for name in limits)]
        words = np.arange(self._places[-1][0] + 1)
        self.tables = OptionTables(
            tuple(rows[each][:, limited] for rows, each in zip(self._rows, usable, strict=True)),
            tuple(
                np.flatnonzero(each)[:, None] * np.where(words == word, radix, 0)
                for each, (word, radix, _) in zip(usable, self._places, strict=True)
            ),
            self._fixed[limited],
        )
        with np.errstate(over="ignore"):  # a limit that nothing can reach is infinite
            self.limits: Floats = np.array(list(limits.values())) / self._steps[limited[1:]]
        self.loss_step = float(self._steps[0])

    def _steps_for(self, largest: Floats) -> Floats:
        """The step of each column, given sums that none exceeds, (1 + n_costs,)."""
        limits = np.array([math.inf, *(self._limits.get(name, math.inf) for name in self._names)])
        if not np.isfinite(largest).all() or (limits < largest * _SMALLEST_SHARE).any():
            raise DataError(
                "the losses or the costs are too large to be summed",
                why="an option that cannot be chosen may have been given a large number",
                fix="give it an infinite one",
            )
        exponents = np.frexp(np.minimum(largest, limits))[1]
        steps: Floats = np.ldexp(1.0, np.maximum(exponents - _BITS, _SMALLEST_EXPONENT))
        return steps

    def selection(self, code: Integers) -> Selection:
        """The selection with this code, (n_words,)."""
        choices = [int(code[word]) // radix % size for word, radix, size in self._places]
        sums = self._fixed + sum(rows[choice] for rows, choice in zip(self._rows, choices, strict=True))
        loss, *costs = (sums * self._steps).tolist()
        named = dict(zip(self._names, costs, strict=True))
        ratio = max(named[name] / limit for name, limit in self._limits.items())
        return Selection(tuple(choices), loss, named, ratio)


def _places(sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Word, radix and size of each stage's digit in a code; the first stage is the most significant."""
    places: list[tuple[int, int, int]] = []
    word, radix = 0, 1
    for size in reversed(sizes):
        if radix * size > _LARGEST_WORD:
            word, radix = word + 1, 1
        places.append((word, radix, size))
        radix *= size
    return [(word - place, radix, size) for place, radix, size in reversed(places)]


def _columns(stages: Sequence[StageOptions]) -> list[Floats]:
    """Per stage a table (n_options, 1 + n_costs) with the losses first."""
    if not stages:
        raise DataError("there is no stage to select from")
    names = set(stages[0].costs)
    tables = []
    for number, stage in enumerate(stages):
        if set(stage.costs) != names:
            raise DataError(
                f"stage {number} has the costs {sorted(stage.costs)}, stage 0 has {sorted(names)}",
                why="costs are summed over the stages",
                fix="give every stage the same costs",
            )
        parts = [
            np.asarray(part, np.float64)
            for part in (stage.losses, *(stage.costs[n] for n in stages[0].costs))
        ]
        shapes = {part.shape for part in parts}
        if len(shapes) > 1 or parts[0].ndim != 1 or not parts[0].size:
            raise DataError(
                f"the options of stage {number} have shapes {sorted(shapes)}",
                fix="give each option one loss and one of every cost, in arrays of one dimension",
            )
        table = np.stack(parts, axis=1)
        faulty = np.isnan(table) | np.isneginf(table)
        if faulty.any():
            option, column = np.argwhere(faulty)[0]
            what = "loss" if column == 0 else f"cost {list(stages[0].costs)[column - 1]!r}"
            raise DataError(
                f"the {what} of option {option} of stage {number} is {table[option, column]}",
                fix="evaluate or measure it again, or give it an infinite loss so that it is never chosen",
            )
        tables.append(table)
    return tables


def _check_limits(names: Sequence[str], limits: Mapping[str, float]) -> None:
    if not limits:
        raise RecipeError("a selection needs a limit on at least one cost", fix=f"limit one of {names}")
    for name, limit in limits.items():
        if name not in names:
            raise RecipeError(f"there is a limit on {name!r}, which is no cost", fix=f"limit one of {names}")
        if not 0 < limit < math.inf:
            raise RecipeError(
                f"the limit of {limit} on {name!r} is not finite and above zero",
                why="costs are compared by their ratio to the limit",
            )


def _check_others(
    names: Sequence[str], fixed_costs: Mapping[str, float], weights: Sequence[float], stages: int
) -> None:
    for name, cost in fixed_costs.items():
        if name not in names or not math.isfinite(cost):
            raise RecipeError(f"the fixed cost of {cost} for {name!r} is not finite, or that is no cost")
    if len(weights) != stages:
        raise RecipeError(f"{len(weights)} weights are given for {stages} stages")
    for weight in weights:
        if not 0 <= weight < math.inf:
            raise RecipeError(f"the weight of {weight} is not finite and zero or more")
