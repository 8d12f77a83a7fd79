"""Which share each of the teacher's maps has in the mixture of its layer group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from pipeline.distill.feature_groups import LayerGroup
from pipeline.errors import TeacherError

Shares = tuple[tuple[float, ...], ...]
"""Of the teacher's maps, group by group; those of a group sum to 1."""

Mixture = Callable[[Sequence[LayerGroup]], Shares]


def last(groups: Sequence[LayerGroup]) -> Shares:
    """All of the last map, as in distillation of the last layers; of an ensemble, of each member's alike."""
    return tuple(map(_last, groups))


def average(groups: Sequence[LayerGroup]) -> Shares:
    """The same of every map."""
    return tuple((1 / len(group.teacher),) * len(group.teacher) for group in groups)


def random(seed: int) -> Mixture:
    """Drawn evenly among all mixtures (a flat Dirichlet distribution)."""
    return partial(_drawn, seed)


def fixed(shares: Shares) -> Mixture:
    """These, which must fit the groups."""
    return partial(_checked, shares)


def _last(group: LayerGroup) -> tuple[float, ...]:
    places = set({each.member: place for place, each in enumerate(group.teacher)}.values())
    return tuple(float(place in places) / len(places) for place in range(len(group.teacher)))


def _drawn(seed: int, groups: Sequence[LayerGroup]) -> Shares:
    generator = torch.Generator().manual_seed(seed)
    draws = [
        torch.empty(len(group.teacher), dtype=torch.float64).exponential_(generator=generator)
        for group in groups
    ]
    return tuple(tuple((draw / draw.sum()).tolist()) for draw in draws)


def _checked(shares: Shares, groups: Sequence[LayerGroup]) -> Shares:
    given, wanted = [len(each) for each in shares], [len(group.teacher) for group in groups]
    if given != wanted:
        maps = "; ".join(
            f"{group.size[0]}x{group.size[1]}: {', '.join(each.name for each in group.teacher)}"
            for group in groups
        )
        raise TeacherError(
            f"the shares are of groups of {_listed(given)} maps, but the teacher's have {_listed(wanted)}",
            why=f"its maps are {maps}",
            fix="give one share for each map, in this order",
        )
    return shares


def _listed(counts: Sequence[int]) -> str:
    return ", ".join(map(str, counts))
