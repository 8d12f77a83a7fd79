"""Subgraphs that are worth a trial: cut by importance, or evenly, as one does by hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

from pipeline.methods.subgraph.costs import Costs, Counts
from pipeline.methods.subgraph.settings import Proposal
from pipeline.spaces.teacher.space import TeacherSpace

_STEPS = 200
"""Shares of a family that are looked at."""


def proposal(kind: Proposal, costs: Costs, matter: Mapping[str, Sequence[float]]) -> dict[str, int] | None:
    """A subgraph within the budgets, as large as its kind allows.

    Args:
        kind: any but ``gates``, which are trained (``selection.py``).
        costs: what subgraphs cost, and may cost.
        matter: importance of the parts by name of the structure, descending.

    Returns:
        Numbers of parts, widths of the space; ``None`` where no subgraph of this kind keeps the budgets.
    """
    found: Counts | None
    match kind:
        case "importance":
            whole = {each.name: each.count for each in costs.space.config.structures}
            try:
                found = costs.cut(whole, matter)
            except ValueError:
                return None
        case "least-blocks":
            found = _largest(costs, functools.partial(_without_least_blocks, costs.space, matter))
        case "shallower":
            found = _largest(costs, functools.partial(_shallower, costs.space))
        case "narrower":
            found = _largest(costs, functools.partial(_narrower, costs.space))
        case _:
            found = _largest(costs, functools.partial(_mixed, costs.space))
    return None if found is None else costs.grown(found, matter)


def _largest(costs: Costs, family: Callable[[float], Counts]) -> Counts | None:
    """The largest member of a family that keeps the budgets, if one does."""
    members = (family(step / _STEPS) for step in range(_STEPS, 0, -1))
    return next((each for each in members if costs.excess(each) <= 1), None)


def _narrower(space: TeacherSpace, share: float) -> dict[str, int]:
    """The same share of every layer, and all blocks."""
    widths = space.config.widths
    return {
        each.name: min(widths[each.name], key=lambda width, whole=each.count: abs(width - share * whole))  # type: ignore[misc]
        if each.name in widths
        else each.count
        for each in space.config.structures
    }


def _shallower(space: TeacherSpace, share: float) -> dict[str, int]:
    """This share of the blocks, evenly spread, and whole layers."""
    blocks = [each.name for each in space.config.structures if each.kind == "block"]
    count = round(share * len(blocks))
    return _with_blocks(space, {blocks[int((index + 0.5) * len(blocks) / count)] for index in range(count)})


def _without_least_blocks(
    space: TeacherSpace, matter: Mapping[str, Sequence[float]], share: float
) -> dict[str, int]:
    """This share of the blocks, the most important ones, and whole layers."""
    blocks = [each.name for each in space.config.structures if each.kind == "block"]
    most = sorted(blocks, key=lambda name: -math.fsum(matter[name]))
    return _with_blocks(space, set(most[: round(share * len(blocks))]))


def _with_blocks(space: TeacherSpace, kept: set[str]) -> dict[str, int]:
    return {
        each.name: int(each.name in kept) if each.kind == "block" else each.count
        for each in space.config.structures
    }


def _mixed(space: TeacherSpace, share: float) -> dict[str, int]:
    """Of blocks and of layers the root of the share each."""
    fewer = _shallower(space, math.sqrt(share))
    return {name: min(count, fewer[name]) for name, count in _narrower(space, math.sqrt(share)).items()}
