"""What a recipe's method decides: the space, and the search in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pipeline.spaces.base import Space
from pipeline.spaces.mobile.space import MobileSpace
from pipeline.stages.context import Context
from pipeline.stages.dna import dna_round, dna_space
from pipeline.stages.inputs import Data, FrozenTeacher
from pipeline.stages.score import scores_of
from pipeline.stages.search import Round, Searched, search_round
from pipeline.stages.space import Task


def space_of(context: Context, data: Data, teacher: FrozenTeacher) -> Space:
    """The space in which the method searches.

    Raises:
        TeacherError: ``dna`` cannot cut the teacher into blocks.
    """
    if context.recipe.method == "dna":
        return dna_space(context, data, teacher)
    shape, classes = data.summary.input_shape, len(data.summary.classes)
    return MobileSpace.from_config(context.recipe.space, shape, classes)


def searcher(context: Context, task: Task) -> Callable[[Round], Searched]:
    """What does one round of the method's search."""
    if context.recipe.method == "dna":
        return partial(dna_round, context, task)
    return partial(search_round, context, scores_of(context, task))
