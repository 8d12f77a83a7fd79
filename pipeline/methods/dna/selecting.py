"""From scores of paths to the best architectures within limits, exactly.

The cost of a block's first layer depends on the width that enters it, which the cell chosen before decides.
With the widths of all blocks fixed, costs add up independently and ``pipeline.search.selection`` finds the
best. So every sequence of widths is selected from in turn, the most promising first, until the smallest loss
that any other could have is above that of the worst that is to be returned.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import BudgetError, RecipeError
from pipeline.methods.dna.result import BlockScores, EvaluatedArchitecture, block_losses
from pipeline.search.base import AdditiveLatencyModel
from pipeline.search.selection.options import Selection, StageOptions
from pipeline.search.selection.selection import select
from pipeline.spaces.base import Architecture, Block
from pipeline.spaces.cost import block_cost
from pipeline.spaces.dna.space import BlockChoice, DnaSpace

SIZES = ("macs", "parameters")
"""Costs that need no target."""

Models = Mapping[str, AdditiveLatencyModel[Block]]
Widths = tuple[int, ...]


@dataclass(frozen=True)
class DnaSelection:
    """As ``DnaResult`` has it, with what is proved: no other within the limits has a loss below ``bound``."""

    selected: tuple[EvaluatedArchitecture, ...]
    nearest: EvaluatedArchitecture | None
    bound: float
    exact: bool


def select_architectures(
    space: DnaSpace,
    scores: tuple[BlockScores, ...],
    models: Models,
    limits: Mapping[str, float],
    *,
    count: int = 1,
) -> DnaSelection:
    """The ``count`` architectures of the smallest sum of scores within all limits.

    Args:
        space: of the scores.
        scores: one per block.
        models: latency model per target; a limit holds for the upper end of its estimates.
        limits: largest latency in ns by target, and largest ``macs`` and ``parameters``; at least one.
        count: how many; fewer come back if no more are within the limits.

    Raises:
        BudgetError: no architecture of the space runs on every target.
        RecipeError: a limit is on what is neither a target with a model nor ``macs`` or ``parameters``, or
            has no meaning.
    """
    return _Selecting(space, scores, models, limits).run(count)


class _Selecting:
    def __init__(
        self, space: DnaSpace, scores: tuple[BlockScores, ...], models: Models, limits: Mapping[str, float]
    ) -> None:
        unknown = [name for name in limits if name not in models and name not in SIZES]
        if unknown or not limits:
            raise RecipeError(
                f"the limit on {', '.join(unknown)} has no latency model" if unknown else "there is no limit",
                why=f"limits can be on {', '.join([*models, *SIZES])}",
                fix="give a model of each target that has a limit, and at least one limit",
            )
        self._space, self._scores, self._models = space, scores, models
        self._limits = dict(limits)
        # Few distinct blocks and pairs of widths come again and again.
        self._cost = functools.cache(self._cost_of)
        self._stage = functools.cache(self._stage_of)
        self._fixed = {name: self._fixed_ns(model) for name, model in models.items()}

    def run(self, count: int) -> DnaSelection:
        found: list[tuple[Widths, Selection]] = []
        nearest: tuple[Widths, Selection] | None = None
        bound, exact, ran = math.inf, True, False
        for least_loss, widths in self._sequences():
            if found and len(found) >= count and least_loss > found[count - 1][1].loss:
                bound = min(bound, least_loss)
                break
            try:
                selected = select(self._stages(widths), self._limits, count=count, fixed_costs=self._fixed)
            except BudgetError:  # some block cannot run with these widths
                continue
            ran = True
            exact = exact and selected.exact
            if selected.nearest is not None and (
                nearest is None or selected.nearest.ratio < nearest[1].ratio
            ):
                nearest = widths, selected.nearest
            if selected.best:
                bound = min(bound, selected.bound)
            found += [(widths, selection) for selection in selected.best]
            found.sort(key=self._order)
            bound = min([bound, *(selection.loss for _, selection in found[count:])])
            del found[count:]
        if not ran:
            raise BudgetError(
                f"no network of the space runs on all of {', '.join(self._models)}",
                why="every network has a block that could not be exported or run on one of them",
                fix="see the table for the reasons of the failed blocks, or change the space's choices",
            )
        best = tuple(itertools.starmap(self._evaluated, found))
        return DnaSelection(
            best, None if best or nearest is None else self._evaluated(*nearest), bound, exact
        )

    def _order(self, found: tuple[Widths, Selection]) -> tuple[object, ...]:
        widths, selection = found
        return selection.loss, [selection.costs[name] for name in self._limits], widths, selection.choices

    def _sequences(self) -> list[tuple[float, Widths]]:
        """Every sequence of widths with the smallest loss that it could have, in that order."""
        least: list[dict[int, float]] = []
        for config, evaluated in zip(self._space.config.blocks, self._scores, strict=True):
            by_width: dict[int, float] = {}
            for cell, values in zip(config.cells, evaluated.cells, strict=True):
                by_width[cell.width] = min(by_width.get(cell.width, math.inf), *values.values)
            least.append(by_width)
        return sorted(
            (math.fsum(by_width[width] for by_width, width in zip(least, widths, strict=True)), widths)
            for widths in itertools.product(*least)
        )

    def _stages(self, widths: Widths) -> list[StageOptions]:
        entering = (self._space.config.stem_width, *widths)
        return [self._stage(block, *pair) for block, pair in enumerate(itertools.pairwise(entering))]

    def _stage_of(self, block: int, in_width: int, width: int) -> StageOptions:
        """All paths of the cells of a block that have this width."""
        evaluated = self._scores[block].cells
        cells = self._cells(block, width)
        losses = np.concatenate([evaluated[index].values for index in cells])
        names = (*self._models, *SIZES)
        costs = {
            name: np.concatenate([self._cell_costs(name, block, index, in_width) for index in cells])
            for name in names
        }
        return StageOptions(losses, costs)

    def _cells(self, block: int, width: int) -> list[int]:
        cells = self._space.config.blocks[block].cells
        return [index for index, cell in enumerate(cells) if cell.width == width]

    def _cell_costs(self, name: str, block: int, index: int, in_width: int) -> NDArray[np.float64]:
        """The cost of every path, the last layer's operation changing fastest; stem and head included."""
        space = self._space
        cell = space.config.blocks[block].cells[index]
        total = np.zeros(1)
        if block == 0:
            total = total + self._cost(name, space.stem())
        for layer in range(cell.depth):
            entering = cell.width if layer else in_width
            options = [
                self._cost(name, space.layer(block, entering, cell.width, layer, operation))
                for operation in space.operations(block)
            ]
            total = np.add.outer(total, options).ravel()
        if block == len(space.config.blocks) - 1:
            total = total + self._cost(name, space.head(cell.width))
        return total

    def _cost_of(self, name: str, block: Block) -> float:
        if name in self._models:
            model = self._models[name]
            return model.block_cost_ns(block) * model.upper_factor
        return float(getattr(block_cost(block), name))

    def _fixed_ns(self, model: AdditiveLatencyModel[Block]) -> float:
        """What every network costs on top of its blocks, at the upper end; 0 where nothing runs."""
        fastest = self._space.extreme(model.block_cost_ns)
        estimate = model.estimate([fastest])[0]
        blocks = math.fsum(map(model.block_cost_ns, self._space.blocks(fastest)))
        return estimate.high_ns - blocks * model.upper_factor if math.isfinite(blocks) else 0.0

    def _evaluated(self, widths: Widths, selection: Selection) -> EvaluatedArchitecture:
        architecture = self._architecture(widths, selection.choices)
        losses = block_losses(self._space, self._scores, architecture)
        return EvaluatedArchitecture(architecture, selection.loss, losses, selection.costs)

    def _architecture(self, widths: Widths, options: Sequence[int]) -> Architecture:
        choices = []
        for block, (width, option) in enumerate(zip(widths, options, strict=True)):
            operations = self._space.operations(block)
            left = option
            for index in self._cells(block, width):
                cell = self._space.config.blocks[block].cells[index]
                paths = len(operations) ** cell.depth
                if left < paths:
                    path = np.unravel_index(left, [len(operations)] * cell.depth)
                    choices.append(BlockChoice(cell, tuple(operations[int(each)] for each in path)))
                    break
                left -= paths
        return self._space.architecture(choices)
